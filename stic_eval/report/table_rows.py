"""What tables are made of: columns, rows and the scores in their cells."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import TYPE_CHECKING, Any

from stic_eval.errors import UserError
from stic_eval.evals.scoring.aggregate import odd
from stic_eval.types import SolverLabel, Summary

if TYPE_CHECKING:  # at run time it needs NumPy, which a list of runs does without
    from stic_eval.report.paired_comparison import Difference

AVERAGE = "average"
_NAMED = 3  # variants in a note


@dataclass(frozen=True, slots=True)
class Column:
    """A benchmark as a column.

    Attributes:
        protocol: How it was asked and scored.
        grader: Who graded it, where rules alone did not.
        version: Of the benchmark, prompt and scoring; 0: not recorded.
    """

    name: str
    title: str
    protocol: str = ""
    grader: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class EvaluatedVariant:
    """One evaluated row of the table.

    Attributes:
        seeds: Training seeds in the order of the summaries; empty for what is not trained.
        summaries: Benchmark -> one summary per seed (one in all for what is not trained).
        settings: Of an ablation's cell: axis -> value.
        model: What was evaluated; variants are compared with the baseline of their own model.
    """

    method: str
    title: str
    solver: SolverLabel
    seeds: tuple[int, ...]
    summaries: Mapping[str, Sequence[Summary]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    has_adapter: bool = False

    @property
    def name(self) -> str:
        """Method and solver as printed, e.g. `STIC + DaR`."""
        return f"{self.title} + {self.solver.title}" if self.solver.title else self.title

    @property
    def label(self) -> str:
        """The row as tables print it, e.g. `STIC + DaR`, or of a cell `STIC + DaR, corruption=blur`."""
        named = self.settings.get("dar") == ("off" if self.solver.plain else "on")  # by the name: `+ DaR`
        return ", ".join([self.name, *self.settings_text(without=("dar",) if named else ())])

    def settings_text(self, without: Collection[str] = ()) -> list[str]:
        """An ablation's settings as `axis=value`, without those of some axes."""
        return [f"{axis}={setting(v)}" for axis, v in self.settings.items() if axis not in without]

    def average(self, columns: Sequence[Column]) -> float | None:
        """Mean over benchmarks and seeds, in percent; None unless every one of them has a score."""
        found = [s.score for column in columns for s in self.summaries.get(column.name, ())]
        whole = all(self.summaries.get(column.name) for column in columns) and None not in found
        return mean(score for score in found if score is not None) if found and whole else None


@dataclass(frozen=True, slots=True)
class Cell:
    """A score in percent: mean over seeds, spread, and distance to the reference.

    Attributes:
        score: None if nothing is scored.
        sd: Sample standard deviation over seeds; None with one.
        n: Units; None where that is not known (published figures, parts of a benchmark).
        clusters: In how many clusters they lie; None where that is not known.
        unscored: Units without a verdict, in the seed with most.
        difference: To the reference; None for the reference itself and where no pair is left.
        complete: False marks a score over fewer units, or an average over fewer columns, than there are.
        guard: Why the score cannot tell rows apart, e.g. `constant answer B`; see `report.score_guards`.
    """

    score: float | None
    sd: float | None = None
    n: int | None = None
    unscored: int = 0
    difference: Difference | None = None
    complete: bool = True
    clusters: int | None = None
    guard: str = ""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A method with or without DaR, a cell of an ablation, or a published row.

    Attributes:
        cells: By column name; `average` is the last.
        label: The row in one text, unique where rows are.
        published: Taken from a paper and not measured here: no units, no seeds, no differences.
    """

    variant: EvaluatedVariant
    cells: Mapping[str, Cell]
    heads: tuple[str, ...]
    label: str
    published: bool = False

    @property
    def average(self) -> Cell | None:
        """The average's cell; None in a table without one."""
        return self.cells.get(AVERAGE)


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row before it is computed: a variant, what it is called, and what it is compared with."""

    variant: EvaluatedVariant
    heads: tuple[str, ...]
    reference: EvaluatedVariant | None
    label: str


def setting(value: Any) -> str:
    """A value as YAML and the command line write it: `true`, `0.5`, `blur`; in quotes where it must be."""
    plain = isinstance(value, str) and value.isprintable() and value == value.strip() != ""
    return str(value) if plain else json.dumps(value, ensure_ascii=False, default=str)


def check(title: str, summaries: Sequence[Summary], where: str = "") -> None:
    """Whether a benchmark's scores are what its units come to.

    Raises:
        UserError: One is not.
    """
    for summary in summaries:
        if why := odd(summary):
            raise UserError(f"{where}{title}: {why}, and run it again")


def unfinished_notes(done: Mapping[str, int], total: int) -> list[str]:
    """A note on what has not been evaluated yet, the first three by name; none if all has.

    Args:
        done: Variant's folder -> how many benchmarks it has.
    """
    parts = [f"{folder} ({n} of {total} benchmarks)" for folder, n in done.items() if n < total]
    if not parts:
        return []
    more = f"{len(parts)} of {len(done)} evaluations, e.g. " if len(parts) > _NAMED else ""
    return [f"unfinished: {more}{', '.join(parts[:_NAMED])}."]
