"""What a run is given: checked before anything is computed, counted where something is left out."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval import registry
from stic_eval.documents import from_json, read_text
from stic_eval.errors import UserError, count_of, shorten

if TYPE_CHECKING:
    from stic_eval.contracts.method import Data, PromptSet, Report, Stage
    from stic_eval.experiment.machine_facts import Facts
    from stic_eval.images import Skipped
    from stic_eval.pocket.rows import Source
    from stic_eval.settings import RunConfig
    from stic_eval.types import ImageRef

# Any of these in config.json says that a model takes images.
_VISION_KEYS = {
    "vision_config",
    "vq_config",
    "visual",
    "mm_vision_tower",
    "image_token_id",
    "image_token_index",
}

# What the embedded world draws for a method that takes all there is.
_POCKET_IMAGES, _POCKET_ITEMS = 2_000, 1_000
# Of its pictures, which are drawn one after the other until enough differ: seconds for so many.
_POCKET_MOST = 100_000
_SHOWN = 5
_MISSING = "no such file"
_LFS = b"version https://git-lfs"


def unwritable(folder: Path) -> str:
    """Why nothing can be written into a folder (made if missing); empty if it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"{folder} cannot be written to ({error.strerror})"


def check_model(config: RunConfig) -> None:
    """Refuses early, without importing torch, what transformers would refuse late.

    Raises:
        UserError: A folder that is missing or holds no configuration, no weights, or no model that
            takes images.
    """
    model, path = config.model, Path(config.model).expanduser()
    if (
        not registry.engines().get(config.engine).trains
        or model == "pocket"
        or (not path.exists() and model.count("/") <= 1 and not model.startswith((".", "/", "~")))
    ):
        return
    if not path.is_dir():
        raise UserError(f"--model {model}: no such folder")
    try:
        data = from_json(read_text(path / "config.json"))
    except FileNotFoundError:
        raise UserError(
            f"--model {model}: holds no config.json; give the folder of a transformers model"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"--model {model}: config.json cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"--model {model}: config.json holds a {type(data).__name__}, not an object")
    for weights in path.glob("*.safetensors"):
        with weights.open("rb") as file:
            if file.read(len(_LFS)) == _LFS:
                raise UserError(
                    f"--model {model}: {weights.name} is a pointer of git-LFS, not the weights: "
                    "run `git lfs pull` in that folder"
                )
    if not any(path.glob("*.safetensors")):
        other = next((p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in path.glob(pattern)), None)
        found = f" ({other} is not loaded: convert it to safetensors)" if other else ""
        raise UserError(f"--model {model}: holds no weights (*.safetensors){found}")
    if not _VISION_KEYS & set(data) and not any(path.glob("*processor_config.json")):
        kind = data.get("model_type", "of unknown type")
        raise UserError(f"--model {model}: {kind} takes no images; give a vision-language model")


def check_adapter(folder: Path) -> None:
    """Refuses a folder that is no PEFT adapter in safetensors, or one with values that no adapter has.

    Raises:
        UserError: Says what is missing, or which tensor holds what.
    """
    if not folder.is_dir():
        raise UserError(f"--adapter {folder}: no such folder")
    names = ("adapter_config.json", "adapter_model.safetensors")
    if missing := " and no ".join(name for name in names if not (folder / name).is_file()):
        raise UserError(f"--adapter {folder}: holds no {missing}; give a PEFT adapter folder")
    from stic_eval.models.adapter_values import check_adapter_values

    check_adapter_values(folder, f"--adapter {folder}")


def check_adapters(config: RunConfig, report: Report) -> None:
    """Refuses what is no adapter, and says of one that was trained for another model.

    Raises:
        UserError: Says what is missing, or that the model is a server's.
    """
    from stic_eval.models.fingerprint import local_model

    folder = local_model(config.model)
    own = config.model if folder is None else folder.resolve().name
    for adapter in config.adapters:
        check_adapter(adapter)
        try:
            data = from_json(read_text(adapter / "adapter_config.json"))
            base = str(data.get("base_model_name_or_path") or "")
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"--adapter {adapter}: adapter_config.json cannot be read: {error}") from error
        # Of a path only the last part means the same elsewhere; a hub id may stand for a copy of it.
        if base and base.rstrip("/").split("/")[-1] != own.split("/")[-1]:
            report.line(f"note: adapter {adapter} says that it was trained for {base}, not for {own}")


def check_pairs(config: RunConfig) -> None:
    """Refuses pairs that no method of the run would learn from, or that cannot be read.

    Raises:
        UserError: Says which, and what to do.
    """
    if config.pairs_file is None:
        return
    from stic_eval.training.pair_formats import check

    check(config.pairs_file, "--pairs", images=True)
    if not any(stage.kind == "pairs" and not stage.reads for stage in _stages(config)):
        names = ", ".join(config.methods)
        raise UserError(f"--pairs: nothing that this run trains ({names}) learns from pairs; leave it out")


def check_root(benchmark: str, root: Path | None) -> None:
    """Refuses a folder for the images of rows that is not there.

    Raises:
        UserError: It is not.
    """
    if root is not None and not root.is_dir():
        raise UserError(f"-o rows.{benchmark}.root={root}: no such folder")


def check_rows(config: RunConfig) -> None:
    """Refuses rows of a path that is not there, before anything is computed.

    Raises:
        UserError: Names the benchmark and the path.
    """
    from stic_eval.evals.data_places import local_path

    for name in config.benchmarks:
        check_root(name, config.rows_root(name))
        local_path(registry.benchmarks().get(name), config.rows_of(name))


def check_tiles(config: RunConfig) -> None:
    """Refuses training by single tiles of a model that has none; of one on the hub it is known when loaded.

    Raises:
        UserError: Names the model's type.
    """
    from stic_eval.models.fingerprint import local_model
    from stic_eval.models.single_tile import check_single_tile

    folder = local_model(config.model)
    if config.training.images == "single_tile" and folder is not None and any(_stages(config)):
        check_single_tile(from_json(read_text(folder / "config.json")))


def check_gang(config: RunConfig, machine: Facts | None = None) -> None:
    """Refuses what so many processes cannot train, before anything is computed.

    Args:
        config: The run.
        machine: Where they train; None: here.

    Raises:
        UserError: Says what, and what to do.
    """
    from stic_eval.training import gang_launch

    config = config if machine is None else machine.settled(config)
    if gang_launch.is_gang(config):
        gang_launch.check_gang(config, _stages(config), here=machine is None)


@dataclass(frozen=True)
class Inputs:
    """The data of self-training, what was left out of it, and what was to be read, as `needs` has it."""

    data: Data
    skipped: tuple[Skipped, ...]
    reads: Mapping[str, int | None] = field(default_factory=dict)


def sources(config: RunConfig) -> tuple[Any, ...]:
    """Where a run's data comes from: of what is the same for two runs, they read the same."""
    c = config
    return c.images, c.sft_data, c.pairs_file, c.image_root, c.prompts, c.training.images


def joint(configs: Sequence[RunConfig]) -> list[dict[str, int | None]]:
    """For each of several runs what is read: what it and the others need of the same data, together."""
    together: dict[tuple[Any, ...], dict[str, int | None]] = {}
    for config in configs:
        wanted = together.setdefault(sources(config), {})
        for kind, count in needs(config).items():
            _add(wanted, kind, count)
    return [together[sources(config)] for config in configs]


def _add(wanted: dict[str, int | None], kind: str, count: int | None) -> None:
    known = wanted.get(kind, 0)
    wanted[kind] = None if count is None or known is None else max(known, count)


def needs(config: RunConfig) -> dict[str, int | None]:
    """Which inputs the selected methods read, any of `images` and `sft`, and how many of each.

    A stage says by a parameter, `images` or `items`, how many it takes; None stands for all. Of a part
    (`fraction`) the whole is read, for it may be one of less than was asked for. A server's model is not
    trained, and nothing is read for it.
    """
    found: dict[str, int | None] = {}
    for stage in _stages(config):
        for kind in stage.reads:
            _add(found, kind, stage.takes(kind))
    return found


def _stages(config: RunConfig) -> Iterator[Stage]:
    """All stages of a run's methods as they are before any data is read."""
    from stic_eval.contracts.method import Data
    from stic_eval.experiment.variants import make_plan, stages

    for name in config.methods if registry.engines().get(config.engine).trains_in(config) else ():
        data = Data(
            (), (), "", "", prompt_set(config), pairs=config.pairs_file,
            training_images=config.training.images,
        )  # fmt: skip
        plan, _ = make_plan(registry.methods().get(name), config, data)
        yield from stages(plan.adapter)


def prompt_set(config: RunConfig) -> PromptSet:
    """The run's prompt set: shipped, or of a file.

    Raises:
        UserError: There is no such set, or it does not fit.
    """
    from stic_eval.training.prompt_sets import load_prompts

    return load_prompts(config.prompts)


def load(config: RunConfig, report: Report, wanted: Mapping[str, int | None] | None = None) -> Inputs:
    """Reads what the selected methods need, and nothing that they do not.

    Args:
        config: The run.
        report: Where progress goes.
        wanted: What is needed, as `needs` has it; None: what this run needs.

    Raises:
        UserError: A method needs images or instruction data and none are given or usable.
    """
    from stic_eval.contracts.method import Data, items_key
    from stic_eval.image_sources import keeps_order, scan_images
    from stic_eval.store import content_key, file_sha256
    from stic_eval.training.instruction_data import items_of, read_items

    wanted = needs(config) if wanted is None else wanted
    pocket = config.model == "pocket"
    if config.image_root is not None and not config.image_root.is_dir():
        raise UserError(f"--image-root {config.image_root}: no such folder")
    images: Sequence[ImageRef] = ()
    items: Sequence[Any] = ()
    skipped: list[Skipped] = []
    if "images" in wanted and (source := _source(config)) is not None:
        from stic_eval.pocket.rows import unlabeled_images

        images = unlabeled_images(_pocket_count(wanted["images"] or _POCKET_IMAGES, "--images"), source)
    elif "images" in wanted and config.images is not None:
        with report.step(f"scan {config.images}") as step:
            images, found = scan_images(config.images, root=config.image_root, progress=step.update)
        skipped = [item for item in found if item.fault]
        _note_beside([item for item in found if not item.fault], report)
        if not images:
            raise UserError(
                f"--images {config.images}: holds no usable image ({commonest(skipped or found)})"
            )
        if not keeps_order(config.images):
            # Methods take images from the front, and names are often sorted by time or subject: the
            # order of content hashes is a shuffle that does not depend on names. A list keeps its own.
            images = sorted(images, key=lambda image: image.sha256)
    elif "images" in wanted:
        raise UserError(
            "--images: the selected method learns from unlabeled images; give a folder or a list of some"
            + (" (--pairs replaces the first pairs alone)" if config.pairs_file else "")
        )
    if "sft" in wanted and config.sft_data is not None:
        with report.step(f"read {config.sft_data}"):
            items, left_out = read_items(config.sft_data, config.image_root, limit=wanted["sft"])
        skipped = [*skipped, *left_out]
        if not items:
            raise UserError(
                f"--sft-data {config.sft_data}: no item has a usable image ({commonest(left_out)})"
            )
    elif "sft" in wanted and pocket:
        from stic_eval.pocket.rows import sft_items

        items = items_of(sft_items(_pocket_count(wanted["sft"] or _POCKET_ITEMS, "--sft-data")))
    elif "sft" in wanted:
        raise UserError(
            "--sft-data: the selected method is tuned on instruction data; give LLaVA-format JSON"
        )
    keys = content_key([image.sha256 for image in images]), items_key(items)
    data = Data(
        tuple(images), tuple(items), *keys, prompt_set(config), training_images=config.training.images
    )
    if config.pairs_file is not None:
        from stic_eval.training.pair_formats import check

        rows = check(config.pairs_file, "--pairs", images=True)
        key = file_sha256(config.pairs_file)
        data = replace(data, pairs=config.pairs_file, pairs_key=key, pairs_rows=rows)
    return Inputs(data, tuple(skipped), wanted)


def _pocket_count(asked: int, flag: str) -> int:
    if asked > _POCKET_MOST:
        raise UserError(
            f"{flag}: the methods ask for {asked:,}, and the built-in world draws at most {_POCKET_MOST:,}; "
            "give your own, or ask for fewer"
        )
    return asked


def _source(config: RunConfig) -> Source | None:
    """Which pictures of the embedded world are a run's unlabeled images; None: others.

    Raises:
        UserError: `pocket:` and no name of a source.
    """
    if config.images is None:
        return "scenes" if config.model == "pocket" else None
    world, colon, name = str(config.images).partition(":")
    if world != "pocket" or not colon:
        return None
    from stic_eval.pocket.rows import SOURCES

    for source in SOURCES:
        if name == source:
            return source
    known = " and ".join(f"pocket:{source}" for source in SOURCES)
    advice = registry.suggest(name, list(SOURCES))
    raise UserError(f"--images {config.images}: the built-in world has {known}{advice}")


def report_skipped(skipped: Sequence[Skipped], report: Report) -> None:
    """Says which input files were left out, the first of them by name."""
    if skipped:
        report.line(f"{count_of(len(skipped), 'input file')} skipped, listed in skipped.jsonl:")
    said: set[str] = set()
    for item in skipped[:_SHOWN]:
        # Where a file was looked for, and what to do, is the same for all of them.
        text, _, hint = item.reason.rpartition(" (")
        reason = text if hint in said else item.reason
        if reason.startswith(_MISSING) and _MISSING in said:
            reason = _MISSING
        said |= {hint} | ({_MISSING} if reason.startswith(_MISSING) else set())
        report.line(f"  {shorten(item.source)}: {shorten(reason, 400)}")


def _note_beside(beside: Sequence[Skipped], report: Report) -> None:
    """Says what lay beside images, or was named again, by which nothing is lost."""
    for reason, count in Counter(item.reason for item in beside).items():
        name = next(item.source for item in beside if item.reason == reason)
        report.line(f"note: {count} skipped: {reason} ({shorten(name)}{', ...' if count > 1 else ''})")


def commonest(skipped: Sequence[Skipped]) -> str:
    """Why files were left out: a missing one, else one of the commonest reason, and how many more."""
    if not skipped:
        return "no file there"
    missing = [item for item in skipped if item.reason.startswith(_MISSING)]
    kinds = Counter(map(_kind, missing or skipped))
    shown = next(item for item in missing or skipped if _kind(item) == kinds.most_common(1)[0][0])
    more = f"; {len(skipped) - 1} more" if len(skipped) > 1 else ""
    return f"{shorten(shown.source)}: {shorten(shown.reason, 400)}{more}"


def _kind(item: Skipped) -> str:
    """A reason without what is of this one alone: its item's id, numbers, paths."""
    return re.sub(r"^item \S+: |\d+", "", item.reason).partition(": ")[0]
