"""What a run has come to, for Python and notebooks: its table, records and comparisons."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from stic_eval.errors import UserError
from stic_eval.registry import suggest
from stic_eval.report import (
    compared_variants,
    flips,
    head_to_head,
    head_to_head_formats,
    html_table,
    runs,
    table_formats,
    terminal_table,
)
from stic_eval.report.head_to_head import HeadToHead
from stic_eval.report.table_layouts import lay_out
from stic_eval.report.tables import Table
from stic_eval.store import read_jsonl
from stic_eval.types import Record

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from stic_eval.report.flips import Flip

T = TypeVar("T")
_WIDTH = 120  # columns of a text where nothing says how many there are


@dataclass(frozen=True, repr=False)
class Display(Generic[T]):
    """What shows itself: as text in a terminal, as HTML in a notebook.

    Attributes:
        data: What is shown.
        to_rich: It, and a width -> what rich prints in so many columns.
        to_html: It -> an HTML fragment, escaped: texts in it may come from models and plug-ins.
    """

    data: T
    to_rich: Callable[[T, int], RenderableType]
    to_html: Callable[[T], str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.to_rich(self.data, options.max_width)

    def _repr_html_(self) -> str:
        # Notebooks would take what is between two dollar signs for mathematics.
        return f'<div class="tex2jax_ignore mathjax_ignore">\n{self.to_html(self.data)}</div>\n'

    def __repr__(self) -> str:
        from rich.console import Console

        out = io.StringIO()
        # Of itself it would display what it prints, in a notebook.
        console = Console(file=out, width=_WIDTH, color_system=None, highlight=False, force_jupyter=False)
        console.print(self)
        return out.getvalue()


@dataclass(frozen=True)
class RunResult:
    """The results of a run or an ablation.

    Attributes:
        folder: Where everything lies, as an absolute path: table.md and its like, `records/`, run.log.
        scores: Every evaluated variant with its scores, unit by unit.
        skipped: How many input files were left out; skipped.jsonl names them.
        laid_out: The table, where it has been computed already.
    """

    folder: Path
    scores: runs.Scores = field(repr=False)
    skipped: int = 0
    laid_out: Table | None = field(default=None, repr=False)

    @cached_property
    def table(self) -> Display[Table]:
        """The variants side by side; `data` has every number."""
        return Display(self.laid_out or lay_out([self.scores]), terminal_table.to_rich, html_table.to_html)

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be known about the numbers, as under the table."""
        return self.table.data.notes

    @property
    def complete(self) -> bool:
        """Whether every row has a verdict and no input file was left out; else the command exits with 3."""
        return not self.skipped and not self.table.data.unscored

    @property
    def variants(self) -> list[str]:
        """What variants are called, e.g. `stic+dar`."""
        return list(compared_variants.groups(self.scores))

    def to_pandas(self) -> DataFrame:
        """The table as a data frame: a line for each row and benchmark, and columns as in table.csv.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UserError("to_pandas: the package pandas is not installed; pip install pandas") from None
        text = io.StringIO(table_formats.to_csv(self.table.data))
        return pandas.read_csv(text, keep_default_na=False, na_values=[""])

    def records(self, variant: str, benchmark: str) -> list[Record]:
        """Every sample that a variant was asked, with question, answer and verdict.

        Args:
            variant: One of `variants`, or as its row is called; of several training seeds one, e.g.
                `stic@seed1`.
            benchmark: Its name.

        Raises:
            UserError: There is no such variant, benchmark or file.
        """
        key, entries = compared_variants.pick(self.scores, variant, self.folder)
        if len(entries) > 1:
            names = ", ".join(f"{key}@seed{entry.seed}" for entry in entries)
            raise UserError(f"{self.folder}: {variant} has several training seeds; name one: {names}")
        known = [column.name for column in self.scores.columns]
        if benchmark not in known:
            there = f" (there are {', '.join(known)})"
            raise UserError(f'{self.folder} has no "{benchmark}"{suggest(benchmark, known)}{there}')
        path = runs.records_of(self.folder, entries[0], benchmark)
        if not path.is_file():
            raise UserError(f"{path}: no such file; the run has no records there")
        return _records(path)

    def compare(self, variant: str, reference: str = "baseline") -> Display[HeadToHead]:
        """A variant held against another one, on the rows that both have a verdict for.

        Args:
            variant: One of `variants`, or as its row is called; of an ablation also `default`, or what sets
                a cell apart, e.g. `corruption=blur`.
            reference: Another one. Differences are the variant's scores minus the reference's.

        Raises:
            UserError: There is no such variant, or the two are one.
        """
        sides = compared_variants.choose_of(self.scores, self.folder, reference, variant)
        found = head_to_head.measure(*sides)
        return Display(
            found,
            lambda data, width: head_to_head_formats.to_rich(data, (), None, width),
            head_to_head_formats.to_html,
        )

    def flips(self, benchmark: str, variant: str, reference: str = "baseline") -> list[Flip]:
        """Rows of a benchmark that one of two variants does better, the largest change first.

        Raises:
            UserError: As `compare`; or both have no such benchmark.
        """
        found = self.compare(variant, reference).data
        known = [line.name for line in found.benchmarks]
        if benchmark not in known:
            raise UserError(f'both have no "{benchmark}"{suggest(benchmark, known)}')
        return flips.flips(found.a, found.b, benchmark)


@dataclass(frozen=True)
class TrainResult:
    """The adapters of a run.

    Attributes:
        folder: The run's.
        adapters: Variant, e.g. `stic`, or `stic@seed1` where a run has several seeds -> folder of its PEFT
            adapter.
        skipped: How many input files were left out; skipped.jsonl names them.
    """

    folder: Path
    adapters: Mapping[str, Path]
    skipped: int = 0


def _records(path: Path) -> list[Record]:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(list[Record]).validate_python(list(read_jsonl(path)))
    except ValidationError as error:
        line, *where = error.errors(include_url=False)[0]["loc"]
        at = ".".join(map(str, where))
        raise UserError(
            f"{path}, line {int(line) + 1}: not a record of this program ({at}); run it again"
        ) from error


def load_result(run: str | Path) -> RunResult:
    """The results of a finished run, by its folder or its name under `results/`.

    Raises:
        UserError: There is none, or its scores.json cannot be used.
    """
    folder = runs.find(str(Path(run).expanduser())).absolute()
    return RunResult(folder, runs.load(folder), sum(1 for _ in read_jsonl(folder / "skipped.jsonl")))
