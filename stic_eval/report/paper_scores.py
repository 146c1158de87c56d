"""The paper's own figures (`results/paper.yaml`), beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import mean
from typing import Any

import yaml

from stic_eval.report.table_rows import AVERAGE, Cell, Column, EvaluatedVariant, TableRow
from stic_eval.types import DESCRIBED, DIRECT

MODEL = "LLaVA-v1.6-7B"  # of tables 2, 7 and 8


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A row of one of the paper's tables.

    Attributes:
        method: What it was trained with; empty for the base model.
        dar: Whether it answers by describe-and-respond; None where the table does not say.
        scores: Column -> percent; None where the paper has no figure.
    """

    model: str
    method: str
    dar: bool | None
    scores: Mapping[str, float | None]

    @property
    def label(self) -> str:
        """The row as tables print it, e.g. `LLaVA-v1.6-7B+STIC (published)`."""
        return "+".join([self.model, *([self.method] if self.method else [])]) + self._suffix

    @property
    def name(self) -> str:
        """Without the model, e.g. `STIC (published)`."""
        return (self.method or "Baseline") + self._suffix

    @property
    def _suffix(self) -> str:
        return f"{' + DaR' if self.dar else ''} (published)"


@cache
def paper() -> Mapping[str, Any]:
    """The file, as it is."""
    text = (files("stic_eval.results") / "paper.yaml").read_text(encoding="utf-8")
    data: Mapping[str, Any] = yaml.safe_load(text)
    return data


def main_result() -> list[PaperRow]:
    """Table 1: models and methods by benchmarks."""
    data = paper()
    found = []
    for label, scores in data["table1"].items():
        model, _, method = label.partition("+")
        found.append(PaperRow(model, method, None, dict(zip(data["benchmarks"], scores, strict=True))))
    return found


def describe_and_respond() -> list[PaperRow]:
    """Table 2: LLaVA-v1.6-7B, with and without STIC, with and without describe-and-respond."""
    data = paper()
    found = []
    for label, row in data["table2"].items():
        method = label.removesuffix("+DaR").removeprefix("base")
        scores = dict(zip(data["benchmarks"], row["scores"], strict=True))
        found.append(PaperRow(MODEL, method, label.endswith("+DaR"), scores))
    return found


def breakdown(benchmark: str, group: str) -> list[PaperRow]:
    """Tables 7 and 8: LLaVA-v1.6-7B by MMBench's abilities or MM-Vet's capabilities; else nothing."""
    for name in ("table7", "table8"):
        data = paper()[name]
        if (data["benchmark"], data["group"]) == (benchmark, group):
            return [
                PaperRow(MODEL, label.removeprefix("base"), None,
                          dict(zip(data["labels"], data[label], strict=True)))
                for label in ("base", "STIC")
            ]  # fmt: skip
    return []


def labels(benchmark: str, group: str) -> list[str]:
    """The labels of a breakdown in the paper's order; none if it has no such table."""
    return next((list(row.scores) for row in breakdown(benchmark, group)), [])


def row(
    published: PaperRow, columns: Sequence[str], averaged: Sequence[str], heads: Sequence[str]
) -> TableRow:
    """A row of a table.

    The average is over the same benchmarks as in the table's other rows; where the paper lacks one of
    them, there is none.
    """
    scores = published.scores
    cells = {name: Cell(scores.get(name)) for name in columns}
    known = [score for name in averaged if (score := scores.get(name)) is not None]
    complete = bool(averaged) and len(known) == len(averaged)
    cells[AVERAGE] = Cell(mean(known) if complete else None)
    solver = DESCRIBED if published.dar else DIRECT
    variant = EvaluatedVariant("published", published.name, solver, (), {}, model=published.model)
    return TableRow(variant, cells, tuple(heads), published.label, published=True)


# How the note begins that published rows are never shown without.
JUDGE = "Published figures by a judge"


def judge_note(columns: Sequence[Column]) -> list[str]:
    """Who has graded published figures and who the measured ones; none where no judge grades a column."""
    judges = paper()["judges"]
    parts = [
        f"{column.title} by {judges[column.name]}, as far as the paper's code tells; measured here: "
        f"{column.grader or 'not said'}"
        for column in columns
        if column.name in judges
    ]
    if not parts:
        return []
    advice = "figures by different judges do not compare (docs/benchmarks.md has how far they drift)"
    return [f"{JUDGE}: {'; '.join(parts)}; {advice}."]


def notes(table: str = "") -> list[str]:
    """What to know about published rows, and about one of the paper's tables in particular."""
    data = paper()
    general = (
        f"Published: figures of {data['citation']}; – where it has none. They were not measured here, but "
        "with the paper's models, rows, prompts and judge: differences to them are not tested."
    )
    return [general, *(f"Published: {note}" for note in data["notes"].get(table, []))]
