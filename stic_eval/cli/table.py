"""`stic-eval table`: tables of finished runs, in any layout and format, without computing anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from stic_eval.cli.options import check_file
from stic_eval.flags import Argument, Flag

if TYPE_CHECKING:
    from stic_eval.report.tables import Table


Format = Literal["text", "md", "tex", "html", "csv", "json"]
ALL_NOTES = "`stic-eval table RUN --notes` shows them"
_ENDINGS: dict[str, Format] = {
    ".txt": "text", ".md": "md", ".tex": "tex", ".html": "html", ".csv": "csv", ".json": "json",
}  # fmt: skip


def table(
    run: Annotated[list[str], Argument("Runs: their folders, or names under results/.", values="run")],
    layout: Annotated[
        Literal["auto", "paper", "components", "ablation", "detail"],
        Flag("`paper`: methods by benchmarks. `components`: stage 1, stage 2 and DaR. `ablation`: what "
             "varies. `detail`: a benchmark by its parts. `auto`: `ablation` for an ablation, else `paper`."),
    ] = "auto",
    by: Annotated[
        list[str] | None,
        Flag("Ablation axis to show, with the others at their default; with `detail`, the group of labels. "
             "Repeatable.", "all that vary", "AXIS"),
    ] = None,
    reference: Annotated[
        str | None,
        Flag("Row to compare the others with: its text as printed, its label, method or folder, or `default` "
             "for an ablation's default cell.", "baseline", "ROW"),
    ] = None,
    published: Annotated[bool, Flag("Add the paper's rows, marked as published.")] = False,
    benchmark: Annotated[
        str | None,
        Flag("Benchmark to show, with `--layout detail`.", "all with parts", values="benchmark"),
    ] = None,
    format_: Annotated[
        Format | None,
        Flag("Output format. `tex` needs the LaTeX packages booktabs and graphicx.",
             "from the ending of --output, else text", names="--format"),
    ] = None,
    caption: Annotated[str | None, Flag("Caption, for `tex` and `html`.", "describes the table")] = None,
    label: Annotated[str | None, Flag("Label, for `tex`.", "tab:<what is shown>")] = None,
    wide: Annotated[bool, Flag("For `tex`: span both columns of a two-column page (`table*`).")] = False,
    notes: Annotated[
        bool | None,
        Flag("Print all notes, or only those that can invalidate a number.",
             "on a terminal, these and five lines of others", names="--notes/--no-notes"),
    ] = None,
    out: Annotated[
        Path | None,
        Flag("File to write: .txt, .md, .tex, .html, .csv or .json.", "standard output",
             names="--output --out"),
    ] = None,
) -> None:  # fmt: skip
    """Print a table of finished runs."""
    from dataclasses import replace

    from stic_eval.errors import UserError
    from stic_eval.report import runs, shown_notes

    chosen_format = _format(format_, out)
    if wide and chosen_format != "tex":
        raise UserError(f"--wide: is for --format tex, not {chosen_format}; leave it out")
    if label is not None and not _is_label(label):
        raise UserError(
            f'--label: "{label}" has characters that LaTeX labels cannot; use letters, digits, :._-'
        )
    if benchmark is not None and layout != "detail":
        raise UserError("--benchmark: is for --layout detail; leave it out")
    found = [runs.load(runs.find(name)) for name in run]
    if layout == "detail":
        from stic_eval.report.subscores import detail

        if reference is not None:
            raise UserError("--reference: --layout detail compares nothing; leave it out")
        built = detail(found, benchmark, by or (), published)
    else:
        from stic_eval.report.table_layouts import lay_out

        built = [lay_out(found, layout, by=by or (), reference=reference, published=published)]
    if notes is False:
        doubts = [tuple(note for note in item.notes if shown_notes.rank(note) is None) for item in built]
        built = [replace(item, notes=own, hints=()) for item, own in zip(built, doubts, strict=True)]
    if chosen_format == "text" and out is None:
        for at, item in enumerate(built):
            print("\n" if at else "", end="")
            print_table(item, titled=len(built) > 1, more=ALL_NOTES if notes is None else None)
        return
    text = _text(built, chosen_format, caption, label, wide)
    if out is None:
        print(text, end="")
        return
    from stic_eval.store import atomic_write

    atomic_write(out, text)


def _format(given: Format | None, out: Path | None) -> Format:
    """The format that --format and the ending of --output say.

    Raises:
        UserError: They say different things, or nothing, or the file cannot be there.
    """
    from stic_eval.errors import UserError

    if out is None:
        return given or "text"
    check_file("--output", out)
    if not out.parent.is_dir():
        raise UserError(
            f"--output {out}: cannot write there, because {out.parent} is not a folder; make it first"
        )
    ending = out.suffix.lower()
    found = _ENDINGS.get(ending)
    if found is None and given is None:
        raise UserError(
            f"--output {out}: its ending is not one of {', '.join(_ENDINGS)}; say which with --format"
        )
    if found is not None and given is not None and found != given:
        raise UserError(f"--output {out}: ends in {ending}, but --format is {given}; change one of them")
    return given or found or "text"


def _is_label(label: str) -> bool:
    return bool(label) and all(char.isascii() and (char.isalnum() or char in ":._-") for char in label)


def _text(built: Sequence[Table], format_: Format, caption: str | None, label: str | None, wide: bool) -> str:
    from dataclasses import replace

    from stic_eval.report import html_table, latex, table_formats

    tables = [replace(item, caption=caption) for item in built] if caption is not None else list(built)
    if format_ == "csv":
        return table_formats.to_csv(tables)
    if format_ == "json":
        return table_formats.to_json(tables[0] if len(tables) == 1 else tables)
    if format_ == "tex":
        # A label names one table: several are numbered.
        labels = [f"{label}-{at + 1}" if label and len(tables) > 1 else label for at in range(len(tables))]
        return "\n".join(
            latex.to_latex(item, label=own, wide=wide) for item, own in zip(tables, labels, strict=True)
        )
    if format_ == "text":
        return "\n".join(_plain_text(item, titled=len(tables) > 1) for item in tables)
    write = {"md": table_formats.to_markdown, "html": html_table.to_html}[format_]
    return "\n".join(write(item) for item in tables)


def _plain_text(built: Table, titled: bool) -> str:
    """A table for a text file, 120 characters wide."""
    import io

    from rich.console import Console

    from stic_eval.report import terminal_table

    console = Console(file=io.StringIO(), width=120, record=True, color_system=None, highlight=False)
    console.print(terminal_table.to_rich(built, console.width, titled=titled))
    return console.export_text()


def print_table(built: Table, titled: bool = False, more: str | None = None) -> None:
    """Prints a table on stdout, in the terminal's width.

    Args:
        built: What is printed.
        titled: Whether its caption is, as it is one of several.
        more: What shows all notes, where only some are printed; None: all are.
    """
    from rich.console import Console

    from stic_eval.report import terminal_table

    console = Console(highlight=False)
    console.print(terminal_table.to_rich(built, console.width, titled=titled, more=more))
