"""`stic-eval ls`: what there is to choose from, and what has been run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from stic_eval.errors import UserError
from stic_eval.flags import Argument

if TYPE_CHECKING:
    from stic_eval.report.runs import Scores

_GAP = 2  # blanks between columns


What = Literal[
    "benchmarks", "methods", "solvers", "engines", "losses", "corruptions", "presets", "ablations", "runs"
]
Listing = tuple[tuple[str, ...], list[tuple[str, ...]]]


def ls(
    what: Annotated[What | None, Argument(f"What to list: {', '.join(get_args(What))}.")] = None,
    folder: Annotated[
        Path | None, Argument("With runs: the folder that contains them.", "results", metavar="DIR")
    ] = None,
) -> None:  # fmt: skip
    """List benchmarks, methods and so on, or past runs; without an argument, list what can be listed."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from stic_eval.printable import printable

    ways: dict[What, Callable[[], Listing]] = {
        "benchmarks": _benchmarks, "methods": partial(_listing, "method", "title", "paper"),
        "solvers": partial(_listing, "solver", "title", "suffix"),
        "engines": partial(_listing, "engine", "trains"), "losses": partial(_listing, "loss", "title"),
        "corruptions": partial(_listing, "corruption", "defaults"), "presets": _presets,
        "ablations": _ablations, "runs": partial(_runs, folder),
    }  # fmt: skip
    if folder is not None and what != "runs":
        raise UserError(f"ls {what} {folder}: only runs can be in a folder of yours; leave it out")
    if folder is not None and not folder.is_dir():
        raise UserError(f"ls runs {folder}: no such folder")
    if what is None:
        for name in ways:
            print(f"stic-eval ls {name}")
        return
    head, rows = ways[what]()
    if not rows:
        print(f"no {what}")
        return
    console = Console(highlight=False)
    cells = [tuple(map(printable, row)) for row in rows]
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for title, width in zip(head, _widths([list(head), *cells], console.width), strict=True):
        grid.add_column(title, width=width, no_wrap=title == head[0], overflow="fold")
    for cell in cells:
        grid.add_row(*map(Text, cell))
    console.print(grid)


def _widths(rows: Sequence[Sequence[str]], width: int) -> Sequence[int | None]:
    """Widths of columns at which no word is broken and nothing is wider than its text; None: any width."""
    from rich.cells import cell_len

    columns = list(zip(*rows, strict=True))
    full = [max(cell_len(line) for text in column for line in text.split("\n")) for column in columns]
    least = [max(cell_len(word) for text in column for word in text.split() or [""]) for column in columns]
    least[0] = full[0]
    free = width - _GAP * len(columns) - sum(least)
    more = [a - b for a, b in zip(full, least, strict=True)]
    if free < 0:
        return [None] * len(columns)
    found = dict(enumerate(least))
    # What needs little gets all of it, so that only long texts take several lines.
    for done, at in enumerate(sorted(found, key=more.__getitem__)):
        given = min(more[at], free // (len(columns) - done))
        found[at] += given
        free -= given
    return list(found.values())


def _benchmarks() -> Listing:
    from stic_eval import registry
    from stic_eval.benchmark_protocols import protocols

    rows: list[tuple[str, ...]] = []
    for name in registry.benchmarks().names():
        try:
            benchmark = registry.benchmarks().get(name)
        except UserError as error:
            rows.append((name, "broken", "", "", str(error)))
            continue
        source = benchmark.source
        where = "/".join(part for part in (source.path, source.name, source.split) if part)
        rows.append((name, benchmark.title, where, ", ".join(protocols(benchmark)), benchmark.protocol))
    for file in registry.benchmarks().broken():
        rows.append((file.path.name, "broken", "", "", file.error))
    for family in registry.benchmarks().families():
        rows.append((f"{family}:NAME", f"any task of {family}", "", "", "as the task's own definition says"))
    return ("name", "title", "data", "protocols", "asked and scored by default"), rows


def _listing(kind: str, *shown: str) -> Listing:
    """Names of a registry, and some texts of each."""
    from stic_eval import registry

    known = registry.kinds()[kind]
    rows: list[tuple[str, ...]] = []
    broken = [(file.path.name, file.error) for file in known.broken()]
    for name in known.names():
        try:
            found = known.get(name)
        except UserError as error:
            broken.append((name, str(error)))
            continue
        rows.append((name, *(str(getattr(found, text)) for text in shown)))
    rows += [(name, f"broken: {why}", *[""] * (len(shown) - 1)) for name, why in broken]
    return ("name", *shown), rows


def _presets() -> Listing:
    from stic_eval import config_layers

    rows: list[tuple[str, ...]] = []
    for name in config_layers.preset_names():
        content = config_layers.read_preset(name)
        rows.append(
            (name, str(content.get("model", "any model")), ", ".join(content.get("method_options", {})))
        )
    return ("name", "model", "sets options of"), rows


def _ablations() -> Listing:
    from stic_eval.ablations import spec

    rows: list[tuple[str, ...]] = []
    for name in spec.shipped_names():
        content = spec.load(name)
        asks = f"{content.title} Paper: {content.paper}." if content.paper else content.title
        rows.append((name, "\n".join(content.vary), asks))
    return ("name", "varies", "asks"), rows


def _runs(root: Path | None) -> Listing:
    from stic_eval.report import runs

    def name_of(folder: Path) -> str:
        return runs.name_of(folder) if root is None else str(folder)

    rows: list[tuple[str, ...]] = []
    itself = [root] if root is not None and (root / "config.yaml").is_file() else []
    for folder in [*itself, *runs.runs(root or runs.ROOT)]:
        command = "ablate" if (folder / "ablation.json").is_file() else "run"
        resumes = f"unfinished: `stic-eval {command}` with the same options resumes it"
        try:
            scores = runs.load(folder)
        except UserError:
            state = "trained, not evaluated" if runs.is_trained_only(folder) else resumes
            rows.append((name_of(folder), state, ""))
            continue
        lines = [*_averages(scores), *([resumes] if scores.unfinished_notes() else [])]
        benchmarks = ", ".join(column.name for column in scores.columns)
        rows.append((name_of(folder), "\n".join(lines), benchmarks))
    return ("run", "average", "benchmarks"), rows


def _averages(scores: Scores) -> Iterator[str]:
    """Each variant's average; of an ablation's cells, which may be many, the range."""
    averages = [(variant, variant.average(scores.columns)) for variant in scores.variants()]
    known = [(variant, score) for variant, score in averages if score is not None]
    yield from (f"{variant.label} {score:.1f}" for variant, score in known if not variant.settings)
    cells = [score for variant, score in known if variant.settings]
    if cells:
        count = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
        ends = dict.fromkeys(f"{end(cells):.1f}" for end in (min, max))
        yield f"{count} by {', '.join(scores.axes)}: {' to '.join(ends)}"
