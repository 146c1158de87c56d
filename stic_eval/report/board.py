"""All runs below a folder as one leaderboard: what was evaluated, on which rows, how well, at what cost."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from stic_eval.errors import UserError
from stic_eval.report import compared_variants, runs, score_intervals
from stic_eval.report.score_intervals import ScoreInterval
from stic_eval.report.table_rows import AVERAGE, Cell, Column, TableRow
from stic_eval.store import read_object

REPORT = "report.html"


@dataclass(frozen=True)
class BoardCell:
    """A score on the board.

    Attributes:
        cell: As the run's own table has it, with the difference to the run's baseline.
        interval: Of the score itself, over test rows; None where it cannot be said.
    """

    cell: Cell
    interval: ScoreInterval | None


@dataclass(frozen=True)
class Rows:
    """What scores are of: rows, protocols and graders. Only scores of the same are comparable.

    Attributes:
        letter: A short name: A, B, ...
        benchmarks: Title, units, and how each was asked and graded.
    """

    letter: str
    benchmarks: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True)
class TrainingCost:
    """What training took, the mean over seeds.

    Attributes:
        generations: Answers that the model was asked for.
        seconds: On the machine that computed the stages.
        known: False: the cost of a stage is lost, and the numbers are of the others alone.
    """

    generations: float
    steps: float
    seconds: float
    known: bool


@dataclass(frozen=True)
class BoardLine:
    """A variant of a run.

    Attributes:
        run: Its path below the board's folder.
        report: The run's report, if there is one, from where the page lies.
        variant: As commands name it, e.g. `stic+dar`.
        method: As tables name it, e.g. `STIC + DaR`.
        settings: Of an ablation's cell, e.g. `corruption=blur`; empty in a run.
        rows: The letter of what it was evaluated on.
        cells: By benchmark; `average` where every benchmark of the run has a score.
        cost: None: it was not trained.
        started: When the run's last call was started, e.g. `2026-12-01 00:37`; empty: not recorded.
        finished: Whether every benchmark was evaluated with every seed.
    """

    run: str
    report: str | None
    model: str
    variant: str
    method: str
    settings: str
    rows: str
    seeds: tuple[int, ...]
    cells: Mapping[str, BoardCell]
    cost: TrainingCost | None
    started: str
    finished: bool


@dataclass(frozen=True)
class Board:
    """What the board shows.

    Attributes:
        columns: Benchmarks of any run, by name, in the order in which runs have them.
        lines: Those of the same rows together, the best average first.
        trained: Runs of `train`, which have nothing to show.
        unreadable: Runs that cannot be shown, and why.
    """

    columns: Mapping[str, str]
    rows: tuple[Rows, ...]
    lines: tuple[BoardLine, ...]
    trained: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]


def gather(root: Path, beside: Path) -> Board:
    """Reads all runs below a folder, and the folder itself if it is one.

    Args:
        root: The folder.
        beside: Where the page will lie, from which reports are linked.

    Raises:
        UserError: There is no such folder, or no run in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder")
    folders = _folders(root)
    if not folders:
        raise UserError(f"{root}: holds no run (a folder with config.yaml or scores.json)")
    columns: dict[str, str] = {}
    known: dict[str, Rows] = {}
    lines: list[BoardLine] = []
    trained: list[str] = []
    unreadable: list[tuple[str, str]] = []
    for folder in folders:
        name = folder.relative_to(root).as_posix()
        name = root.resolve().name if name == "." else name
        if runs.is_trained_only(folder):
            trained.append(name)
            continue
        try:
            scores = runs.load(folder)
            found = _lines(scores, folder, beside, name, known)
        except (UserError, OSError) as error:
            unreadable.append((name, str(error).removeprefix(f"{folder}: ")))
            continue
        if not found:
            unreadable.append((name, "nothing of it has been evaluated yet"))
        lines += found
        for column in scores.columns:
            columns.setdefault(column.name, column.title)
    ordered = sorted(lines, key=lambda line: (_place(line.rows), -_average(line)))
    return Board(columns, tuple(known.values()), tuple(ordered), tuple(trained), tuple(unreadable))


def _folders(root: Path) -> list[Path]:
    """Folders of runs, those of which only the scores are left among them."""
    own = [root] if any((root / name).is_file() for name in ("config.yaml", "scores.json")) else []
    bare = [path.parent for depth in (1, 2, 3) for path in root.glob("*/" * depth + "scores.json")]
    return sorted({*own, *runs.runs(root), *bare})


def _lines(
    scores: runs.Scores, folder: Path, beside: Path, name: str, known: dict[str, Rows]
) -> list[BoardLine]:
    manifest = read_object(folder / "manifest.json")
    started = str(manifest.get("started") or "")[:16].replace("T", " ")
    report = folder / REPORT
    link = os.path.relpath(report, beside).replace(os.sep, "/") if report.is_file() else None
    shown = [
        (key, entries)
        for key, entries in compared_variants.groups(scores).items()
        if scores.variant(entries) is not None
    ]
    letter = _letter(scores, known) if shown else ""
    return [
        BoardLine(
            run=name, report=link, model=row.variant.model, variant=key, method=row.variant.name,
            settings=row.label.removeprefix(row.variant.name).lstrip(", "), rows=letter,
            seeds=row.variant.seeds, cells=_cells(row, scores.columns), cost=_cost(entries), started=started,
            finished=all(column.name in entry.summaries for entry in entries for column in scores.columns),
        )
        for (key, entries), row in zip(shown, scores.table().rows, strict=True)
    ]  # fmt: skip


def _cells(row: TableRow, columns: Sequence[Column]) -> dict[str, BoardCell]:
    """The row's scores; the average only where it is of all the run's benchmarks."""
    found: dict[str, BoardCell] = {}
    for column in columns:
        cell = row.cells[column.name]
        if cell.score is not None:
            own = score_intervals.interval(row.variant.summaries.get(column.name, ()))
            found[column.name] = BoardCell(cell, own)
    average = row.average
    if average is not None and average.score is not None and len(found) == len(columns):
        scores = [float(item.cell.score or 0.0) for item in found.values()]
        parts = [item.interval for item in found.values()]
        found[AVERAGE] = BoardCell(average, score_intervals.average(scores, parts))
    return found


def _cost(entries: Sequence[runs.Entry]) -> TrainingCost | None:
    trained = [entry.stages for entry in entries if entry.stages]
    if not trained:
        return None
    generations, steps, seconds = (
        mean(sum(getattr(stage, name) for stage in stages) for stages in trained)
        for name in ("generations", "steps", "seconds")
    )
    return TrainingCost(generations, steps, seconds, all(s.known for stages in trained for s in stages))


def _letter(scores: runs.Scores, known: dict[str, Rows]) -> str:
    """The letter of a run's rows; those of another run's rows, protocols and graders are the same."""
    parts = []
    for column in scores.columns:
        summaries = [e.summaries[column.name] for e in scores.entries if column.name in e.summaries]
        units = sorted({unit for one in summaries for unit in one.units})
        n = max((one.n for one in summaries), default=0)
        parts.append((column.name, column.title, column.protocol, column.grader, column.version, n, units))
    key = hashlib.sha256(json.dumps(sorted(parts)).encode("utf-8", "surrogatepass")).hexdigest()
    if key not in known:
        told = tuple((title, n, "; ".join(t for t in (p, g) if t)) for _, title, p, g, _, n, _ in parts)
        known[key] = Rows(_name(len(known)), told)
    return known[key].letter


def _name(number: int) -> str:
    """A, B, ... Z, AA, AB, ..."""
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("A") + digit) + text
    return text


def _place(letter: str) -> tuple[int, str]:
    return len(letter), letter


def _average(line: BoardLine) -> float:
    found = line.cells.get(AVERAGE)
    return float(found.cell.score or 0.0) if found is not None else -1.0
