"""A `Table` as a LaTeX `table`, for a paper."""

from __future__ import annotations

import re
import unicodedata

from stic_eval.report.cell_text import NONE, Rank, delta_text, interval_text, one_line, ranks, score_text
from stic_eval.report.table_rows import Cell, TableRow
from stic_eval.report.tables import Table

_MANY_ROWS = 12  # above, intervals would make the table longer than a page

# Brackets and asterisks are in groups: after `\\` LaTeX would take them for arguments of it.
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "]": "{]}", "*": "{*}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "{''}", "`": "{`}", "'": "{'}",
    "±": r"$\pm$", "×": r"$\times$", "÷": r"$\div$", "°": r"$^\circ$", "·": r"$\cdot$", "−": "$-$",
    "≤": r"$\leq$", "≥": r"$\geq$", "≠": r"$\neq$", "≈": r"$\approx$", "→": r"$\rightarrow$",
    "←": r"$\leftarrow$", "∞": r"$\infty$", "√": r"$\surd$", "∑": r"$\sum$", "†": r"$\dagger$",
    "‡": r"$\ddagger$", "•": r"$\bullet$", "µ": r"$\mu$", "²": "$^2$", "³": "$^3$", "✓": "yes",
    "–": r"\textendash{}", "—": r"\textemdash{}", "‘": "{`}", "’": "{'}", "“": "{``}", "”": "{''}",
    "…": r"\ldots{}", "ß": r"\ss{}",
    "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}", "å": r"\aa{}",
    "Å": r"\AA{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "§": r"\S{}", "¶": r"\P{}", "©": r"\copyright{}",
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b",
}  # fmt: skip
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta",
    "θ": "theta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi",
    "ρ": "rho", "σ": "sigma", "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi",
    "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi",
    "Σ": "Sigma", "Υ": "Upsilon", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip

# Where two characters that were written would become another one: `--by` is no dash, `?` and `` ` `` no `¿`.
_LIGATURES = re.compile(r"(?<=-)(?=-)|(?<=[?!])(?=`)")


def escape(text: str) -> str:
    """Escapes a string for LaTeX text that any pdflatex compiles without further packages.

    Accented letters, Greek and common symbols are written as commands. What else is not ASCII is replaced
    by its code point, e.g. `U+6F22` for 漢: pdflatex has no glyphs for it, and would stop.
    """
    escaped = "".join(_char(char) for char in unicodedata.normalize("NFC", one_line(text)))
    return _LIGATURES.sub("{}", escaped)


def _char(char: str) -> str:
    if char in _TEX:
        return _TEX[char]
    if char in _GREEK:
        return f"$\\{_GREEK[char]}$"
    if " " <= char <= "~":
        return char
    parts = unicodedata.normalize("NFD", char)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS:
        return f"\\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"U+{ord(char):04X}"


def to_latex(
    table: Table, *, caption: str | None = None, label: str | None = None, wide: bool = False
) -> str:
    r"""The table as a `table` environment: booktabs rules, best in bold, second underlined, notes below.

    A dagger marks p < 0.05, a double dagger p < 0.01, as `*` and `**` do elsewhere. Tables that are too
    wide are scaled to the width of the text.

    Args:
        caption: Text of the caption, in place of the table's own; escaped.
        label: Of `\label`, in place of `tab:<name>`; letters, digits and `:._-` (others are dropped).
        wide: Over both columns of a page that has two: `table*`.
    """
    environment = "table*" if wide else "table"
    wanted = label or f"tab:{table.name}"
    safe = "".join(char for char in wanted if char.isascii() and (char.isalnum() or char in ":._-"))
    columns = "l" * len(table.heads) + "r" * len(table.fields)
    titles = [*table.heads, *(title for _, title in table.fields)]
    rank = ranks(table)
    intervals = len(table.rows) <= _MANY_ROWS
    lines = [
        r"% Packages: booktabs, graphicx.",
        rf"\begin{{{environment}}}[t]",
        r"\centering",
        rf"\caption{{{escape(caption or table.caption)}}}",
        rf"\label{{{safe}}}",
        r"\setlength{\tabcolsep}{3pt}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(escape(title) for title in titles) + r" \\",
        r"\midrule",
    ]
    published = False
    for at, row in enumerate(table.rows):
        if at and (row.published != published):
            lines.append(r"\midrule")
        elif at and any(cell.difference for cell in row.cells.values()):
            lines.append(r"\addlinespace")
        published = row.published
        lines += _lines(table, row, {name: rank.get((at, name)) for name, _ in table.fields}, intervals)
    lines += [r"\bottomrule", r"\end{tabular}%", "}"]
    notes = [escape(_daggers(note)) for note in table.notes]
    if notes and not intervals and any(cell.difference for row in table.rows for cell in row.cells.values()):
        notes.append("The intervals are left out, as the table is long.")
    if notes:
        lines += [r"\par\smallskip", r"\parbox{\linewidth}{\scriptsize\raggedright", *notes, "}"]
    lines.append(rf"\end{{{environment}}}")
    return "\n".join(lines) + "\n"


def _daggers(note: str) -> str:
    """A note that explains the marks, with those that LaTeX has for them."""
    note = note.replace("** p <", "‡ p <").replace("* p <", "† p <")
    return re.sub(
        r"\b([Ss])tar(s?)\b", lambda found: f"{'D' if found[1] == 'S' else 'd'}agger{found[2]}", note
    )


def _lines(table: Table, row: TableRow, rank: dict[str, Rank | None], intervals: bool) -> list[str]:
    cells = [row.cells[name] for name, _ in table.fields]
    scores = [_score(row.cells[name], rank[name]) for name, _ in table.fields]
    lines = [" & ".join([*(escape(head) for head in row.heads), *scores]) + r" \\"]
    empty = [""] * len(table.heads)
    texts = [[_delta(cell) for cell in cells]]
    # In mathematics a minus is one, and no hyphen.
    texts += [[f"${text}$" if (text := interval_text(cell)) else "" for cell in cells]] if intervals else []
    for line in texts:
        if any(line):
            small = [rf"{{\scriptsize {text}}}" if text else "" for text in line]
            lines.append(" & ".join([*empty, *small]) + r" \\")
    return lines


def _score(cell: Cell, rank: Rank | None) -> str:
    score, _, spread = score_text(cell).partition(" ")
    number = score.rstrip("°")
    text = number if number != NONE else "--"
    if rank:
        text = rf"\{'textbf' if rank == 'best' else 'underline'}{{{text}}}"
    text += escape("°" * score.count("°"))
    return text + (rf" {{\scriptsize {escape(spread)}}}" if spread else "")


def _delta(cell: Cell) -> str:
    text = delta_text(cell)
    number, stars = text.rstrip("*§"), text.count("*")
    dagger = r"$^{\S}$" if "§" in text else ("", r"$^{\dagger}$", r"$^{\ddagger}$")[stars]
    return f"${number}${dagger}" if text else ""
