"""`stic-eval ls`: what there is to choose from, and what has been run."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class What(StrEnum):
    """What can be listed."""

    benchmarks = "benchmarks"
    methods = "methods"
    presets = "presets"
    ablations = "ablations"
    runs = "runs"


def ls(
    what: Annotated[What, typer.Argument(help="benchmarks, methods, presets, ablations or runs.")],
) -> None:
    """List benchmarks, methods, presets, ablations or runs."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from stic_eval.printable import printable

    head, rows = {
        What.benchmarks: _benchmarks, What.methods: _methods, What.presets: _presets,
        What.ablations: _ablations, What.runs: _runs,
    }[what]()  # fmt: skip
    if not rows:
        print(f"no {what}")
        return
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, title in enumerate(head):
        grid.add_column(title, no_wrap=index == 0, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    Console(highlight=False).print(grid)


Listing = tuple[tuple[str, ...], list[tuple[str, ...]]]


def _benchmarks() -> Listing:
    from stic_eval import registry
    from stic_eval.errors import UserError
    from stic_eval.variants import protocols

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
    return ("name", "title", "data", "protocols", "asked and scored by default"), rows


def _methods() -> Listing:
    from stic_eval import registry
    from stic_eval.errors import UserError

    rows: list[tuple[str, ...]] = []
    for name in registry.methods().names():
        try:
            method = registry.methods().get(name)
        except UserError as error:
            rows.append((name, "broken", str(error)))
            continue
        rows.append((name, method.title, method.paper))
    return ("name", "title", "paper"), rows


def _presets() -> Listing:
    from stic_eval import config

    rows: list[tuple[str, ...]] = []
    for name in config.preset_names():
        content = config.read_preset(name)
        rows.append(
            (name, str(content.get("model", "any model")), ", ".join(content.get("method_options", {})))
        )
    return ("name", "model", "sets options of"), rows


def _ablations() -> Listing:
    from stic_eval.ablate import spec

    rows: list[tuple[str, ...]] = []
    for name in spec.shipped():
        content = spec.load(name)
        rows.append((name, content.title, ", ".join(content.vary), content.paper))
    return ("name", "asks", "varies", "in the paper"), rows


def _runs() -> Listing:
    from stic_eval.errors import UserError
    from stic_eval.report import runs

    rows: list[tuple[str, ...]] = []
    for folder in runs.runs():
        try:
            scores = runs.load(folder)
        except UserError:
            rows.append((folder.name, "unfinished: `stic-eval run` with the same options resumes it", ""))
            continue
        averages = [(variant.label, variant.average(scores.columns)) for variant in scores.variants()]
        text = ", ".join(f"{label} {score:.1f}" for label, score in averages if score is not None)
        rows.append((folder.name, text, ", ".join(column.name for column in scores.columns)))
    return ("run", "average", "benchmarks"), rows
