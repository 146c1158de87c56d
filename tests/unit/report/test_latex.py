"""The LaTeX table: escaped, marked, and compiled by a real LaTeX where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stic_eval.report import latex
from stic_eval.report.table_rows import Column, EvaluatedVariant
from stic_eval.report.tables import Table, build
from stic_eval.types import DIRECT, Summary

NASTY = (
    r"50% & #1_{x} ~ ^ \input{/etc/passwd} $x$ <|> [a] *b* `c' \"d\" ?` -- Δ é Ž ß ł 漢字 🙂 ± ° “q” … "
    "\u202e\u0301 \x1b[31m \ud800 ﬁ ² ⅓ √"
)


def summary(right: int, unscored: int = 0) -> Summary:
    units = {f"{i}": (float(i < right), 1.0) for i in range(200 - unscored)}
    return Summary(100 * right / (200 - unscored), 200, unscored, units, {})


def table(title: str = "STIC", columns: int = 7, unscored: int = 0) -> Table:
    fields = [Column(f"b{i}", f"{title} {i}", f"protocol {title}", title) for i in range(columns)]

    def row(method: str, seeds: tuple[int, ...], right: int) -> EvaluatedVariant:
        runs = range(max(1, len(seeds)))
        return EvaluatedVariant(
            method, f"{title} {method}", DIRECT, seeds,
            {c.name: [summary(right + k, unscored) for k in runs] for c in fields},
        )  # fmt: skip

    rows = [row("baseline", (), 90), row("stic", (), 130), row("sft", (), 100)]
    return build(fields, rows, [title])


def body(text: str) -> str:
    """What stands between the rules."""
    return text[text.index(r"\toprule") : text.index(r"\bottomrule")]


@given(st.text())
def test_escaped_text_is_plain_ascii_without_active_characters(text: str) -> None:
    escaped = latex.escape(text)
    assert escaped.isascii() and escaped.isprintable()
    # Commands of ours are taken out; nothing that TeX obeys may be left.
    rest = re.sub(r"\\[&%$#_{}]|\\[a-zA-Z]+(\{\})?|\\[`'^~=.\"]\{[a-zA-Z]\}", "", escaped)
    rest = re.sub(r"\$[^$]*\$", "", rest)
    assert not re.search(r"[\\&%$#_~^]", rest)
    assert rest.count("{") == rest.count("}")
    assert not rest.startswith(("[", "*")), "after a line's end, LaTeX takes these for arguments"


def test_accents_greek_and_what_latex_does_not_know() -> None:
    assert latex.escape("é Ž Δ ß 漢") == r"\'{e} \v{Z} $\Delta$ \ss{} U+6F22"
    assert latex.escape("--by") == "-{}-by"


def test_cells_are_counted_and_specials_escaped() -> None:
    text = latex.to_latex(table("a&b"))
    lines = [line for line in body(text).splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in lines} == {8}
    assert len(lines) == 1 + 3 + 2 * 2  # head; three scores; two differences with their intervals


def test_best_is_bold_second_underlined_and_marks_are_daggers() -> None:
    made = table()
    text = body(latex.to_latex(made))
    baseline, stic, sft = [line for line in text.splitlines() if re.match(r"STIC [a-z]+ &", line)]
    assert stic.count(r"\textbf{65.0}") == 8 and r"\underline" not in stic
    assert sft.count(r"\underline{50.0}") == 8 and r"\textbf" not in sft
    assert r"\textbf" not in baseline and r"\underline" not in baseline
    marks = [cell.difference.mark for row in made.rows[1:] for cell in row.cells.values() if cell.difference]
    assert "*" in marks and "**" in marks
    assert len(re.findall(r"\$\^\{\\dagger\}\$", text)) == marks.count("*")
    assert len(re.findall(r"\$\^\{\\ddagger\}\$", text)) == marks.count("**")
    assert r"$\dagger$ p \textless{} 0.05" in latex.to_latex(made) and "**" not in latex.to_latex(made)
    assert "Daggers: " in latex.to_latex(made) and "star" not in latex.to_latex(made)


def test_caption_and_label_are_given_or_say_what_is_shown() -> None:
    plain = latex.to_latex(table())
    assert r"\caption{Scores in percent.}" in plain and r"\label{tab:scores}" in plain
    given_ = latex.to_latex(table(), caption="50% of #1", label="tab:mine")
    assert r"\caption{50\% of \#1}" in given_ and r"\label{tab:mine}" in given_


def test_a_wide_table_spans_both_columns_of_a_page() -> None:
    wide, narrow = latex.to_latex(table(), wide=True), latex.to_latex(table())
    assert wide.replace("{table*}", "{table}") == narrow
    assert wide.count("{table*}") == 2 and "{table*}" not in narrow


def test_without_notes_nothing_stands_below_the_rules() -> None:
    text = latex.to_latex(replace(table(), notes=()))
    assert "parbox" not in text and text.endswith("\\end{tabular}%\n}\n\\end{table}\n")


def test_a_minus_is_none_of_the_hyphens_and_commands_do_not_leak() -> None:
    made = build([Column("a", "A")], [
        EvaluatedVariant("baseline", "Baseline", DIRECT, (), {"a": [summary(100)]}),
        EvaluatedVariant("stic", "STIC", DIRECT, (0,), {"a": [summary(60)]}),
    ])  # fmt: skip
    text = latex.to_latex(made)
    assert re.search(r"\$\[-\d+\.\d, -\d+\.\d\]\$", body(text)), "an interval in mathematics"
    assert not re.search(r"-\d", re.sub(r"\$[^$]*\$", "", body(text)))
    assert "stic-eval" not in text and "-{}-" not in text


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex")
@pytest.mark.parametrize(
    "made", [table(), table(NASTY, columns=2, unscored=3), table("Benchmark", columns=16)]
)
def test_a_real_latex_compiles_it(made: Table, tmp_path: Path) -> None:
    text = latex.to_latex(made, caption=NASTY) + latex.to_latex(made, wide=True, label="tab:wide")
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
        f"{text}\\end{{document}}\n",
        encoding="ascii",
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "t.tex"],
        cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    log = (tmp_path / "t.log").read_text(encoding="latin-1")
    assert done.returncode == 0, log[-2000:]
    assert "Missing character" not in log
    assert r"Overfull \hbox" not in log.split("Output written")[0].replace("in paragraph at lines", "")
