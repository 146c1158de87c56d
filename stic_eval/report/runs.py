"""A run's folder: scores.json, from which tables are rebuilt, and the records beside it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.contracts.curves import PREFERENCE_CURVES, TUNING_CURVES, Curves
from stic_eval.digests import digest
from stic_eval.errors import UserError, fault_of
from stic_eval.report.table_rows import Column, EvaluatedVariant, check, unfinished_notes
from stic_eval.store import file_name, read_object
from stic_eval.types import DESCRIBED, DIRECT, SolverLabel, Summary

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from stic_eval.report import tables
    from stic_eval.settings import RunConfig

SCHEMA = 1
ROOT = Path("results")
_GIVEN = re.compile(r"adapter\d*")  # methods of `--adapter`
# Kind and curves by a stage's name: in runs of versions that did not write them.
_FORMER = {
    "pairs": ("pairs", None),
    "preference": ("pair_training", PREFERENCE_CURVES),
    "positive_sft": ("pair_training", TUNING_CURVES),
    "descriptions": ("descriptions", None),
    "sft": ("item_training", TUNING_CURVES),
    "infused_sft": ("item_training", TUNING_CURVES),
}
_DEPTH = 3  # folders below it at which a run may lie, e.g. results/pocket/ablations/components


@dataclass(frozen=True)
class TextCut:
    """What a limit on the text of a row has cut in training.

    Attributes:
        max_length: Text tokens of a row.
        cut_rows: How many have lost tokens.
        cut_tokens: How many they have lost in all.
        left_out: Rows that had no answer token left.
    """

    max_length: int
    rows: int
    cut_rows: int
    cut_tokens: int
    left_out: int


@dataclass(frozen=True)
class TrainedStage:
    """A stage that an adapter came from, and what it cost.

    Attributes:
        name: e.g. `pairs`, `preference`.
        key: Content key; the first 16 digits name its folder in the cache, and its curve
            `training/<name>-<key16>.jsonl` in the run's folder.
        seconds: That it took, when it was computed.
        generations: Responses that were asked for.
        scored: Given answers whose likelihood was asked for.
        known: Whether the cost is known; if not, the numbers are 0.
        cut: What a limit on text has cut; None: nothing.
        images: How it was shown images in training (`training.images`).
        kind: What it is: `pairs`, `descriptions`, `pair_training`, `item_training`, or a method's own.
        curves: What is drawn of its training; None: nothing is known of it.
        loss: What preference training minimised, where that departs; empty otherwise.
    """

    name: str
    key: str
    seconds: float
    generations: int
    steps: int
    scored: int = 0
    known: bool = True
    cut: TextCut | None = None
    images: str = "as_generated"
    kind: str = ""
    curves: Curves | None = None
    loss: str = ""

    def __post_init__(self) -> None:
        if not self.kind and self.name in _FORMER:
            object.__setattr__(self, "kind", _FORMER[self.name][0])
            object.__setattr__(self, "curves", self.curves or _FORMER[self.name][1])


@dataclass(frozen=True)
class Entry:
    """One evaluated variant, trained with one seed (None: not trained).

    Attributes:
        folder: Its folder under `records/`, e.g. `stic+dar@seed1`.
        keys: Benchmark -> content key of the evaluation.
        settings: Of an ablation: axis -> this cell's value. Empty in a run.
        stages: What its adapter was trained by, the first first; empty if it is not trained.
        has_adapter: Whether a trained adapter answers: with no seed, one that was trained elsewhere.
        sha256: Benchmark -> digest of its records, as they were written; earlier versions did not say.
    """

    folder: str
    method: str
    title: str
    solver: SolverLabel
    seed: int | None
    keys: dict[str, str] = field(default_factory=dict)
    summaries: dict[str, Summary] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    stages: list[TrainedStage] = field(default_factory=list)
    has_adapter: bool = False
    sha256: dict[str, str] = field(default_factory=dict)


@dataclass
class Scores:
    """What scores.json holds: the columns, a line per variant and seed, and notes for the table.

    Attributes:
        axes: Of an ablation: axis -> its values in the order of the grid, the default first. Empty in a run.
        without_default: Axes whose first value is not the default, since that is not among them.
    """

    run: str
    columns: list[Column]
    entries: list[Entry]
    notes: list[str] = field(default_factory=list)
    model: str = ""
    axes: dict[str, list[Any]] = field(default_factory=dict)
    without_default: list[str] = field(default_factory=list)

    def known_summaries(self) -> Mapping[tuple[str, str], tuple[str, Summary]]:
        """(folder, benchmark) -> (key, summary) of everything evaluated so far."""
        return {(e.folder, b): (e.keys.get(b, ""), s) for e in self.entries for b, s in e.summaries.items()}

    def table(self, known: tables.Known | None = None) -> tables.Table:
        """Builds the side-by-side table of everything that has been evaluated; `known`: see `assemble`."""
        from stic_eval.report import tables  # NumPy, which a list of runs does without

        notes = [*self.unfinished_notes(), *self.notes]
        return tables.build(self.columns, self.variants(), notes, known)

    def variants(self) -> list[EvaluatedVariant]:
        """The rows of a table: methods and cells, their seeds together.

        Of a run that is under way, a row shows the seeds that have all benchmarks, or if none has, the
        seed with most of them.
        """
        return [variant for group in self.groups() if (variant := self.variant(group)) is not None]

    def groups(self) -> list[list[Entry]]:
        """Entries that differ by nothing but their seed, together."""
        groups: dict[tuple[str, SolverLabel, str], list[Entry]] = {}
        for entry in self.entries:
            cell = json.dumps(entry.settings, sort_keys=True, default=str)
            groups.setdefault((entry.method, entry.solver, cell), []).append(entry)
        return list(groups.values())

    def variant(self, group: list[Entry]) -> EvaluatedVariant | None:
        """A group's row of a table; None if nothing of it has been evaluated."""
        shown = [entry for entry in group if not self._missing(entry)]
        shown = shown or [min(group, key=self._missing)]
        if not shown[0].summaries:
            return None
        seeds = tuple(entry.seed for entry in shown if entry.seed is not None)
        summaries = {
            column.name: [e.summaries[column.name] for e in shown if column.name in e.summaries]
            for column in self.columns
        }
        first = group[0]
        return EvaluatedVariant(
            first.method, first.title, first.solver, seeds, summaries, first.settings, self.model,
            first.has_adapter,
        )  # fmt: skip

    def unfinished_notes(self) -> list[str]:
        """A note on what has not been evaluated yet; none if all has."""
        total = len(self.columns)
        return unfinished_notes({e.folder: total - self._missing(e) for e in self.entries}, total)

    def _missing(self, entry: Entry) -> int:
        return sum(column.name not in entry.summaries for column in self.columns)


def save(scores: Scores, folder: Path) -> None:
    """Writes scores.json atomically."""
    from stic_eval.store import atomic_write

    shared = _shared_clusters(scores)
    data = {
        "schema": SCHEMA,
        "run": scores.run,
        "model": scores.model,
        "columns": [asdict(column) for column in scores.columns],
        "axes": scores.axes,
        "without_default": scores.without_default,
        "notes": scores.notes,
        "clusters": shared,
        "variants": [],
    }
    # A line for each variant: they are long, and hold a number for every row of every benchmark.
    lines = [
        json.dumps(_entry(entry, shared), ensure_ascii=False, separators=(",", ":"))
        for entry in scores.entries
    ]
    head = json.dumps(data, indent=1, ensure_ascii=False).removesuffix("[]\n}")
    atomic_write(folder / "scores.json", head + "[\n" + ",\n".join(lines) + "\n]}\n")


def _shared_clusters(scores: Scores) -> dict[str, Mapping[str, str]]:
    """Benchmark -> the clusters of its first summary: nearly always those of all."""
    found: dict[str, Mapping[str, str]] = {}
    for entry in scores.entries:
        for name, summary in entry.summaries.items():
            found.setdefault(name, dict(summary.clusters or {}))
    return {name: clusters for name, clusters in found.items() if clusters}


def _entry(entry: Entry, shared: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """An entry as data, without the clusters that are written once, and without what it has nothing of."""
    data = asdict(entry)
    for name, summary in data["summaries"].items():
        if summary["clusters"] == shared.get(name, {}):
            del summary["clusters"]
        if summary["resampled"] is None:
            del summary["resampled"]
    if not entry.sha256:
        del data["sha256"]
    return data


def _with_clusters(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """What scores.json holds, each summary with its clusters; of files of earlier versions None."""
    shared = data.get("clusters")
    known, shared = isinstance(shared, dict), shared if isinstance(shared, dict) else {}
    entries = data.get("variants")
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        if _GIVEN.fullmatch(str(entry.get("method"))):
            entry.setdefault("has_adapter", True)  # earlier versions do not say so
        if "solver" not in entry:  # they had two, and said whether it was the second
            entry["solver"] = asdict(DESCRIBED if entry.pop("dar", False) else DIRECT)
        summaries = entry.get("summaries")
        for name, summary in (summaries if isinstance(summaries, dict) else {}).items():
            if isinstance(summary, dict):
                summary.setdefault("clusters", shared.get(name, {}) if known else None)
    return {**data, "entries": entries}


def is_trained_only(folder: Path) -> bool:
    """Whether a folder is of a `train` that has ended: it has a manifest, and nothing was evaluated."""
    evaluated = any((folder / name).exists() for name in ("scores.json", "records"))
    return not evaluated and "seconds" in read_object(folder / "manifest.json")


def load(folder: Path) -> Scores:
    """Reads scores.json; the run is called what its folder is, by which commands find it.

    Raises:
        UserError: The folder is no finished run, its file was written by another version, or a benchmark's
            score is not what its units come to.
    """
    from pydantic_core import from_json

    path = folder / "scores.json"
    try:
        data = from_json(path.read_bytes(), cache_strings="keys")
    except FileNotFoundError:
        if is_trained_only(folder):
            again = "`stic-eval run` with the same options evaluates it"
            raise UserError(f"{folder}: was trained, not evaluated; {again}") from None
        raise UserError(
            f"{folder}: holds no scores.json; is it the folder of a run that has finished?"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run it again") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise UserError(f"{path}: was not written by this version; run it again")
    from pydantic import ValidationError

    try:
        # Each field by its type: whoever wrote the file, what is printed is text, and numbers are numbers.
        scores = _checker().validate_python(_with_clusters(data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: is damaged ({where}: {fault_of(first)}); run it again") from error
    titles = {column.name: column.title for column in scores.columns}
    for entry in scores.entries:
        for name, summary in entry.summaries.items():
            check(titles.get(name, name), [summary], f"{path}: ")
    return replace(scores, run=folder.resolve().name or scores.run)


def records_path(folder: Path, entry: Entry, benchmark: str) -> Path:
    """Where an evaluation's records lie, or would."""
    return folder / "records" / entry.folder / f"{file_name(benchmark)}.jsonl"


def records_of(folder: Path, entry: Entry, benchmark: str) -> Path:
    """The file of an evaluation's records, which may not be there.

    Raises:
        UserError: It is not what was written.
    """
    path = records_path(folder, entry, benchmark)
    if records_changed(path, entry, benchmark):
        raise UserError(
            f"{path}: has changed since it was written; start the run's command again to rebuild it"
        )
    return path


def records_changed(path: Path, entry: Entry, benchmark: str) -> bool:
    """Whether a file of records is there and is not what was written, as far as the run says."""
    try:
        return benchmark in entry.sha256 and digest(path) != entry.sha256[benchmark]
    except FileNotFoundError:  # they may have been cleared away
        return False
    except OSError:
        return True


@cache
def _checker() -> TypeAdapter[Scores]:
    """What checks the content of scores.json; to build it takes longer than to check a small run."""
    from pydantic import TypeAdapter

    return TypeAdapter(Scores)


def other_settings(folder: Path, config: RunConfig) -> str | None:
    """How the settings of a run whose results lie in a folder differ from these, in words; None: not at all.

    Both keys are computed now, from the settings that were saved: what a key is made of may change. A
    folder with settings alone holds nothing that could be lost.

    Raises:
        UserError: The file of the settings is damaged.
    """
    from stic_eval.config_layers import read_file
    from stic_eval.report import setting_differences
    from stic_eval.settings import RunConfig

    path = folder / "config.yaml"
    if not path.is_file() or not ((folder / "scores.json").exists() or (folder / "records").exists()):
        return None
    try:
        found = read_file(path)
        if not found:
            raise UserError("is empty")
    except UserError as error:
        raise UserError(
            f"{path}: cannot be read, so it is unknown whose results are there ({error}); give another "
            "--output, or, if they belong to these settings, delete that file"
        ) from error
    try:
        saved = RunConfig.model_validate(found)
    except ValueError:  # of another version, or of something else
        return "its config.yaml is of another version"
    return None if saved.key == config.key else setting_differences.in_words(saved, config)


def find(run: str) -> Path:
    """The folder of a run given by path or by its name under `results/`.

    Raises:
        UserError: There is none; the closest name is suggested.
    """
    from stic_eval.registry import suggest

    for folder in (Path(run), ROOT / run):
        if (folder / "config.yaml").is_file() or (folder / "scores.json").is_file():
            return folder
    known = [name_of(folder) for folder in runs()]
    raise UserError(
        f'no run is called "{run}"{suggest(run, known)} (`stic-eval ls runs` lists those in results/; for '
        "others, give the folder)"
    )


def runs(root: Path = ROOT) -> list[Path]:
    """Folders of runs below a folder, of ablations within runs as well; the newest last."""
    found = [path.parent for n in range(1, _DEPTH + 1) for path in root.glob("*/" * n + "config.yaml")]
    return sorted(found, key=lambda folder: (folder / "config.yaml").stat().st_mtime)


def name_of(folder: Path) -> str:
    """What commands take for a run: its path below `results/`; of one elsewhere its folder's name."""
    whole, root = (Path(os.path.abspath(path)) for path in (folder, ROOT))  # links keep their names
    return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else whole.name
