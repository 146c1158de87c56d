"""Preference pairs: what is asked to get them, and the file that holds them."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval import registry
from stic_eval.contracts.method import PromptSet, SFTItem
from stic_eval.dataset_messages import quiet_datasets
from stic_eval.durable_files import make_folder, publish, temporary_name
from stic_eval.errors import UserError
from stic_eval.images import corrupt
from stic_eval.models.image_encoding import encode_image
from stic_eval.store import content_key, request_key
from stic_eval.training.hyperparameters import Describing, PairFilter, PairSettings
from stic_eval.types import Generation, ImageRef, Message, Request

if TYPE_CHECKING:
    from datasets import Dataset, Features
    from PIL.Image import Image

_ROW_GROUP = 64  # pairs held in memory while the file is written


@dataclass(frozen=True)
class PairPrompts:
    """What is asked about one image.

    Attributes:
        prompt: x, the plain prompt: what is trained on.
        chosen: Asks for y_g.
        rejected: Asks for y_b.
        negative: How y_b is spoilt: `misleading`, or a kind of corruption.
    """

    image: ImageRef
    prompt: str
    chosen: Request
    rejected: Request
    negative: str
    seed: int


@dataclass(frozen=True)
class AnsweredPair:
    """A pair with its answers.

    Attributes:
        image: What is trained on; clean, whatever the answers were given about.
        negative: How the dispreferred answer came about, in a word.
        seed: Of what was drawn for it.
        history: Turns before the prompt, role and text; the image is shown with the first.
    """

    image: ImageRef
    prompt: str
    chosen: str
    rejected: str
    negative: str = ""
    seed: int = 0
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class PairReport:
    """What was written.

    Attributes:
        identical: Pairs whose two answers are the same, dropped or not.
        negatives: Kind of negative -> rows.
    """

    pairs: int
    dropped: int
    identical: int
    negatives: Mapping[str, int] = field(default_factory=dict)


def local_random(*parts: Any) -> random.Random:
    """A generator seeded by content: what it gives does not depend on order, batches or restarts."""
    return random.Random(int(content_key(list(parts))[:16], 16))


def pair_requests(
    images: Iterable[ImageRef], prompts: PromptSet, settings: PairSettings, seed: int, iteration: int = 1
) -> Iterator[PairPrompts]:
    """Algorithm 1 of the paper, up to the model's answers.

    For each image: a plain prompt x from P. y_g is asked for by the step-by-step prompt (or by x too, if
    the settings say so). y_b is asked for by x on the corrupted image with probability `p_corrupt`, by a
    misleading prompt otherwise.

    Args:
        seed: The run's; an image's draws depend on it, on the iteration and on its content alone.
        iteration: Of stage 1, from 1 on: each draws anew.
    """
    kinds = sorted(settings.mix)
    weights = [settings.mix[kind] for kind in kinds]
    for image in images:
        draw = local_random("pair", seed, image.sha256, *([iteration] if iteration > 1 else []))
        # All draws are made for every image, so that one setting changes what it means and no more.
        plain, misleading = draw.choice(prompts.plain), draw.choice(prompts.misleading)
        kind = draw.choices(kinds, weights)[0]
        corrupted = draw.random() < settings.p_corrupt
        own, good, bad = (draw.getrandbits(31) for _ in range(3))
        rejected = (
            question(plain, corrupt(image, registry.corruptions().get(kind), own), settings, bad)
            if corrupted
            else question(misleading, image, settings, bad)
        )
        preferred = prompts.step_by_step if settings.chosen_prompt == "step_by_step" else plain
        chosen = question(preferred, image, settings, good)
        yield PairPrompts(image, plain, chosen, rejected, kind if corrupted else "misleading", own)


def question(prompt: str, image: ImageRef | None, how: Describing, seed: int = 0, begun: str = "") -> Request:
    """One question about one image.

    Args:
        image: What it is about; None: nothing is shown.
        begun: What the answer begins with: the model goes on from there.
    """
    generation = Generation(
        max_new_tokens=how.max_new_tokens,
        temperature=how.temperature,
        top_p=how.top_p,
        seed=seed if how.temperature > 0 else 0,
    )
    turns = (Message("user", prompt), *((Message("assistant", begun),) if begun else ()))
    return Request(turns, () if image is None else (image,), generation)


def is_filtered(good: str, bad: str, settings: PairFilter) -> bool:
    """Whether a pair with these two answers is left out; what each filter drops: `PairFilter`."""
    if settings.filter == "identical":
        return good == bad
    if settings.filter == "near_duplicates":
        from rapidfuzz.distance import Levenshtein

        return float(Levenshtein.normalized_similarity(good, bad)) >= settings.similarity
    if settings.filter == "length_balance":
        fewer, more = sorted(len(answer.split()) for answer in (good, bad))
        return more > settings.length_ratio * fewer
    return False


def features() -> Features:
    """Columns of a file of pairs and their types: TRL's conversational preferences, and what was drawn."""
    from datasets import Features, Image, List, Value

    turns = List({"role": Value("string"), "content": Value("string")})
    text = Value("string")
    return Features(
        {"prompt": turns, "chosen": turns, "rejected": turns, "images": List(Image()),
         "image_sha256": text, "source": text, "negative": text, "seed": Value("int64")}
    )  # fmt: skip


def write_pairs(
    pairs: Sequence[PairPrompts], answers: Mapping[str, str], path: Path, settings: PairSettings
) -> PairReport:
    """Writes pairs with the answers to what was asked; see `write_made`.

    Args:
        answers: Content key of a request -> the model's answer.

    Raises:
        UserError: An image file has changed since it was found, or has become unreadable.
    """
    answered = (
        AnsweredPair(
            pair.image, pair.prompt, answers[request_key(pair.chosen)], answers[request_key(pair.rejected)],
            pair.negative, pair.seed,
        )
        for pair in pairs
    )  # fmt: skip
    return write_made(answered, path, settings)


def write_made(pairs: Iterable[AnsweredPair], path: Path, settings: PairFilter) -> PairReport:
    """Writes pairs in TRL's conversational preference format, images included; whole or not at all.

    Columns: `prompt`, `chosen`, `rejected` (lists of role and content), `images` (one encoded image), and
    beside them `image_sha256`, `source`, `negative`, `seed`.

    Raises:
        UserError: An image file has changed since it was found, or has become unreadable.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = features().arrow_schema
    negatives: Counter[str] = Counter()
    identical = dropped = 0
    make_folder(path.parent)
    temporary = temporary_name(path)
    with pq.ParquetWriter(temporary, schema) as writer:
        rows: list[dict[str, Any]] = []
        for pair in pairs:
            good, bad = pair.chosen, pair.rejected
            identical += good == bad
            if is_filtered(good, bad, settings):
                dropped += 1
                continue
            negatives[pair.negative] += 1
            asked = (*pair.history, ("user", pair.prompt))
            rows.append(
                {
                    "prompt": [{"role": role, "content": text} for role, text in asked],
                    "chosen": [{"role": "assistant", "content": good}],
                    "rejected": [{"role": "assistant", "content": bad}],
                    "images": [{"bytes": encode_image(pair.image), "path": None}],
                    "image_sha256": pair.image.sha256,
                    "source": pair.image.source,
                    "negative": pair.negative,
                    "seed": pair.seed,
                }
            )
            if len(rows) == _ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))
    publish(temporary, path)
    return PairReport(sum(negatives.values()), dropped, identical, dict(sorted(negatives.items())))


def open_pairs(path: Path, cache: Path) -> Dataset:
    """The rows of a pairs file, mapped into memory rather than read.

    Args:
        cache: Where the mapped copy goes; the caller deletes it.

    Raises:
        UserError: There are none.
    """
    import pyarrow.parquet as pq
    from datasets import Dataset

    if pq.ParquetFile(path).metadata.num_rows == 0:
        raise UserError(f"{path.name}: no pair is left to train on; give more --images or filter=none")
    with quiet_datasets():
        return Dataset.from_parquet(str(path), cache_dir=str(cache))


@contextmanager
def positives(path: Path, cache: Path) -> Iterator[list[SFTItem]]:
    """The preferred answers of a pairs file as items to fine-tune on: image, plain prompt, y_g.

    Args:
        cache: Where the mapped copy goes; deleted afterwards.
    """
    dataset = open_pairs(path, cache)
    light = dataset.select_columns(["prompt", "chosen", "image_sha256", "source"])
    pictures = dataset.select_columns(["images"])

    def picture(index: int) -> Image:
        images: list[Image] = pictures[index]["images"]
        return images[0].convert("RGB")

    items: list[SFTItem] = []
    for index, row in enumerate(light):
        turns = tuple((turn["role"], turn["content"]) for turn in [*row["prompt"], *row["chosen"]])
        ref = ImageRef(row["image_sha256"], row["source"], partial(picture, index))
        items.append(SFTItem(str(index), ref, turns))
    yield items
    shutil.rmtree(cache, ignore_errors=True)
