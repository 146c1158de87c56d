"""What a method makes preference pairs with: draws, answers, likelihoods, and a count of what was dropped."""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel

from stic_eval.contracts.engine import Ask
from stic_eval.contracts.method import Data, Stage, StageContext
from stic_eval.errors import UserError
from stic_eval.store import request_key
from stic_eval.training.hyperparameters import Describing, PairFilter
from stic_eval.training.preference_pairs import AnsweredPair, PairReport, local_random, question, write_made
from stic_eval.types import ImageRef, Likelihood, Request, Response

if TYPE_CHECKING:
    from stic_eval.contracts.method import SFTItem

__all__ = [
    "AnsweredPair", "Making", "fill", "imported_pairs", "made_pairs", "own_fields", "question", "sentences",
    "tell",
]  # fmt: skip

Settings = TypeVar("Settings", bound=BaseModel)
FilterSettings = TypeVar("FilterSettings", bound=PairFilter)

# Behind a full stop, an exclamation or question mark; not behind an initial, or the number of a list's item.
_ENDS = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)(?<!^\d\.)(?<!^\d\d\.)\s+", re.MULTILINE)


@dataclass(frozen=True)
class Making:
    """What a method's function is given to make pairs with.

    Everything that is asked is kept as it comes: a function that is started again after a kill asks
    everything again and gets what is known already for nothing. So it has to be a pure function of
    what it is given: whatever it draws, it draws by `random`.

    Attributes:
        images: The unlabeled images that it takes; none if it takes instruction data.
        items: The items of the instruction data that it takes; none if it takes images.
        prompts: Role -> prompts, of the roles that the stage has named.
        iteration: From 1 on.
        folder: Of the adapter that answers; None: the base model does.
        dropped: Reason -> how many pairs were given up for it; logged at the end.
        kept: What is loaded once, by name.
        cut: Answers that are empty because the model was still thinking when they ended.
    """

    images: Sequence[ImageRef]
    items: Sequence[SFTItem]
    prompts: dict[str, tuple[str, ...]]
    iteration: int
    folder: Path | None
    context: StageContext
    dropped: Counter[str] = field(default_factory=Counter)
    kept: dict[str, Any] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)

    def random(self, *parts: Any) -> random.Random:
        """A generator of one's own for what these parts name, e.g. an image's hash.

        It depends on them, on the run's seed and on the iteration, and on nothing else: no order, no batch.
        """
        more = [self.iteration] if self.iteration > 1 else []
        return local_random(self.context.seed, *parts, *more)

    def answers(self, requests: Sequence[Request], what: str = "ask") -> list[Response]:
        """The model's answers, in the order of the questions."""
        found: dict[str, Response] = {}
        with self.context.progress(what, len(requests)) as step:
            stream = self.context.vlm(self.folder).generate(requests)
            for done, (request, response) in enumerate(stream, 1):
                found[request_key(request)] = response
                if response.unclosed:
                    self.cut.add(request_key(request))
                step.update(done, len(requests))
        return [found[request_key(request)] for request in requests]

    def likelihoods(self, asked: Sequence[tuple[Request, str]], what: str = "score") -> list[Likelihood]:
        """How likely the model holds answers, in the order of the questions."""
        found: list[Likelihood] = []
        with self.context.progress(what, len(asked)) as step:
            for likelihood in self.context.likelihoods(self.folder, asked):
                found.append(likelihood)
                if len(found) % 64 == 0 or len(found) == len(asked):
                    step.update(len(found), len(asked))
        return found

    def image_text(self, shown: Sequence[tuple[ImageRef, str]], clip: str | None = None) -> list[float]:
        """How well texts fit images.

        Args:
            clip: A CLIP model, by hub id or folder: the cosine of its embeddings. None: the model itself
                scores, by what seeing the image adds to a token's log-probability in nats,
                (log p(text | image, x) - log p(text | x)) / tokens, x the step-by-step prompt.
        """
        if clip is not None:
            from stic_eval.models.clip import load_clip, similarities
            from stic_eval.models.devices import device_of

            if clip not in self.kept:
                named = self.context.device
                self.kept[clip] = load_clip(clip, device_of(named) if named == "auto" else named)
            with self.context.progress("compare images and texts", len(shown)) as step:
                log = self.context.out / "clip.jsonl"
                return similarities(clip, self.kept[clip], shown, log, step.update)
        (ask,) = self.prompts["step_by_step"]
        how = Describing()
        seen = self.likelihoods([(question(ask, image, how), text) for image, text in shown], "see")
        blind = self.likelihoods([(question(ask, None, how), text) for _, text in shown], "guess")
        return [(a.logp - b.logp) / max(1, a.n_tokens) for a, b in zip(seen, blind, strict=True)]


def fill(template: str, **parts: str) -> str:
    """A prompt with texts in the places of their names in braces. Braces in the texts mean nothing."""
    return re.sub(r"\{(\w+)\}", lambda name: parts.get(name[1], name[0]), template)


def sentences(text: str) -> list[str]:
    """A text's sentences, without the white space between them."""
    return [part for part in _ENDS.split(text.strip()) if part]


# ---------------------------------------------------------------- as a stage


def own_fields(kind: type[Settings], settings: BaseModel) -> Settings:
    """The fields that one kind of settings has, whatever a subclass has beside them."""
    return kind.model_validate(settings.model_dump(include=set(kind.model_fields)))


def imported_pairs(data: Data) -> Stage:
    """`pairs.parquet`: pairs that were made elsewhere."""

    def run(ctx: StageContext) -> None:
        assert ctx.data.pairs is not None
        shutil.copyfile(ctx.data.pairs, ctx.out / "pairs.parquet")

    return Stage("pairs", 1, run, {"imported": data.pairs_key}, rows=data.pairs_rows, kind="pairs")


def made_pairs(
    make: Callable[[Making, FilterSettings], Iterable[AnsweredPair]],
    kind: type[FilterSettings],
    settings: FilterSettings,
    data: Data,
    *,
    version: int,
    rows: int,
    generations: int,
    images: int | None = None,
    items: int | None = None,
    roles: Sequence[Literal["step_by_step", "plain", "misleading"]] = (),
    by: Stage | None = None,
    iteration: int = 1,
    asks: tuple[Ask, ...] = (),
) -> Stage:
    """`pairs.parquet`: pairs as a function of one's own makes them.

    Args:
        make: (what to make pairs with, settings) -> pairs, in any order but always the same. Pure: see
            `Making`. Where its pairs come to nothing it counts them in `Making.dropped`.
        kind: The settings that it is given: all of them enter the stage's key but `images`, `items` and
            `fraction`, for which the number of images or items stands. What else `settings` has (rates of
            training, say) is left out.
        data: Counts images and items, and has the prompts.
        version: Bumped when `make` changes what it gives. Of a function that is no part of this program the
            file's content is in the key as well.
        rows: Pairs at most, for the plan.
        generations: Responses that are asked for, for the plan; about.
        images: How many unlabeled images it takes, from the front; None: none.
        items: How many items of the instruction data it takes; None: none.
        roles: What it uses of the prompt set.
        by: Stage whose adapter answers; None: the base model does.
        iteration: From 1 on; each makes its own draws.
        asks: What it asks of the model beside answers.
    """
    if data.pairs is not None and by is None:
        return imported_pairs(data)
    own = own_fields(kind, settings)
    prompts = {role: getattr(data.prompts, role) for role in roles}
    texts = {str(role): (text,) if isinstance(text, str) else tuple(text) for role, text in prompts.items()}

    def run(ctx: StageContext) -> None:
        making = Making(
            ctx.data.images[:images] if images is not None else (),
            ctx.data.sft_items[:items] if items is not None else (),
            texts, iteration, ctx.needs[by.name] / "adapter" if by else None, ctx,
        )  # fmt: skip
        report = write_made(_drop_unanswered(make(making, own), making), ctx.out / "pairs.parquet", own)
        tell(ctx, report, own, making.dropped, _file(make))

    constants = {"near_duplicates": {"similarity"}, "length_balance": {"length_ratio"}}
    unused = {"similarity", "length_ratio"} - constants.get(own.filter, set())
    params: dict[str, Any] = {
        "made_by": _name_of(make),
        "settings": own.model_dump(mode="json", exclude=unused | {"images", "items", "fraction"}),
    }
    counts = {"images": images, "items": items}
    params |= {name: count for name, count in counts.items() if count is not None}
    if prompts:
        params["prompts"] = prompts
    if iteration > 1:
        params["iteration"] = iteration
    kinds: dict[Literal["images", "sft"], int | None] = {"images": images, "sft": items}
    reads = tuple(name for name, count in kinds.items() if count is not None)
    return Stage(
        "pairs", version, run, params,
        needs=(by,) if by else (), reads=reads, generations=generations, rows=rows, code=(make,),
        kind="pairs", asks=asks,
    )  # fmt: skip


def _drop_unanswered(pairs: Iterable[AnsweredPair], making: Making) -> Iterator[AnsweredPair]:
    """Pairs without those that have no answer, where answers were cut while the model was thinking."""
    for pair in pairs:
        if making.cut and not (pair.chosen and pair.rejected):
            making.dropped["with an answer cut while thinking"] += 1
        else:
            yield pair


def _file(make: Any) -> str:
    """The file that a function is from, as a method is called."""
    code = getattr(getattr(make, "func", make), "__code__", None)
    return Path(code.co_filename).stem if code else "pairs"


def tell(
    ctx: StageContext, report: PairReport, own: PairFilter, given_up: Mapping[str, int], who: str
) -> None:
    """Logs what was made.

    Args:
        given_up: Reason -> pairs that were given up before the filter saw them.
        who: Made them.

    Raises:
        UserError: There is no pair; says what became of all of them.
    """
    counts = [f"{report.identical} with equal answers, {report.dropped} dropped (filter {own.filter})"]
    counts += [f"{count} {why}" for why, count in sorted(given_up.items())]
    if not report.pairs:
        raise UserError(
            f"{who}: no pair is left to train on: {'; '.join(counts)}; give more data, or change how "
            "pairs are made and filtered (`stic-eval show METHOD` lists its settings)"
        )
    kinds = ", ".join(f"{count} {kind or 'pairs'}" for kind, count in report.negatives.items())
    ctx.log(f"{report.pairs} pairs ({kinds}); {'; '.join(counts)}")


def _name_of(make: Any) -> str:
    """A function by module and name; by name alone where its file is in the key, as it is no part of this."""
    module, name = str(getattr(make, "__module__", "")), str(getattr(make, "__qualname__", "make"))
    return f"{module}.{name}" if module.startswith("stic_eval.") else name
