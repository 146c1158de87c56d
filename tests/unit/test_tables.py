"""The side-by-side table: what it counts, how it prints, and that nothing in it is executed."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from stic_eval.report import render
from stic_eval.report.tables import AVERAGE, Column, Table, Variant, build
from stic_eval.types import Summary

SEVEN = ["ScienceQA", "TextVQA", "ChartQA", "LLaVA-Bench", "MMBench", "MM-Vet", "MathVista"]


def summary(right: int, n: int = 200, unscored: int = 0) -> Summary:
    units = {f"{i}": (float(i < right), 1.0) for i in range(n - unscored)}
    score = 100 * right / (n - unscored) if n > unscored else None
    return Summary(score, n, unscored, units, {})


def full(title: str = "STIC") -> Table:
    columns = [Column(name.lower(), name, f"{name} protocol") for name in SEVEN]

    def row(method: str, name: str, dar: bool, seeds: tuple[int, ...], right: int) -> Variant:
        runs = max(1, len(seeds))
        return Variant(
            method, name, dar, seeds, {c.name: [summary(right + k) for k in range(runs)] for c in columns}
        )

    return build(
        columns,
        [
            row("baseline", "Baseline", False, (), 90),
            row("baseline", "Baseline", True, (), 70),
            row("stic", title, False, (0, 1, 2), 110),
            row("stic", title, True, (0, 1, 2), 112),
        ],
    )


def test_cells_hold_mean_spread_and_difference() -> None:
    cell = full().rows[2].cells["textvqa"]
    assert cell.score == pytest.approx(55.5)
    assert cell.sd == pytest.approx(0.5)
    assert cell.difference is not None and cell.difference.delta == pytest.approx(10.5)
    assert full().rows[0].cells["textvqa"].difference is None


@pytest.mark.parametrize("width", [80, 120, 200])
def test_terminal_table_fits_and_shows_everything(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(render.to_rich(full(), width))
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    squeezed = text.replace("\n", " ")
    for label in ("Baseline + DaR", "STIC + DaR"):
        assert all(word in squeezed for word in label.split())
    assert "+10.5" in text and "-10.0" in text
    if width > 80:
        assert all(name in text for name in SEVEN)
        assert text.count("[") >= 3 * 8
    else:
        assert "STIC + DaR: average +11.5" in text and "[" in text


def test_markup_in_a_title_is_printed_not_obeyed() -> None:
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(render.to_rich(full("[red]x"), 120))
    assert "[red]x" in console.export_text().replace("\n", "")


def test_many_benchmarks_turn_the_table_on_its_side() -> None:
    columns = [Column(f"b{i}", f"Benchmark{i:02d}") for i in range(20)]
    rows = [
        Variant(name, name, False, (), {c.name: [summary(100)] for c in columns})
        for name in ("baseline", "other")
    ]
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(render.to_rich(build(columns, rows), 80))
    text = console.export_text()
    assert all(c.title in text for c in columns)
    assert "…" not in text


def test_average_leaves_out_an_unscored_column_in_every_row_and_says_so() -> None:
    columns = [Column("a", "A"), Column("b", "B")]
    base = Variant("baseline", "Baseline", False, (), {"a": [summary(100)], "b": [summary(0, 200, 200)]})
    stic = Variant("stic", "STIC", False, (0,), {"a": [summary(120)], "b": [summary(150)]})
    table = build(columns, [base, stic])
    assert table.averaged == ("a",)
    assert [row.cells[AVERAGE].score for row in table.rows] == [50.0, 60.0]
    assert not table.rows[1].cells[AVERAGE].complete
    assert any("without B" in note for note in table.notes)
    assert "60.0†" in render.to_markdown(table)
    assert table.unscored == 200


def test_unscored_units_mark_their_cell_and_the_average() -> None:
    columns = [Column("a", "A")]
    base = Variant("baseline", "Baseline", False, (), {"a": [summary(100)]})
    stic = Variant("stic", "STIC", False, (0,), {"a": [summary(100, 200, 3)]})
    table = build(columns, [base, stic])
    cell = table.rows[1].cells["a"]
    assert not cell.complete and cell.unscored == 3
    assert cell.difference is not None and cell.difference.n == 197
    assert any("3 unscored" in note for note in table.notes)
    assert "†" in render.score_text(table.rows[1].cells[AVERAGE])


def test_markdown_has_a_row_for_each_variant_and_escapes() -> None:
    text = render.to_markdown(full("A|B*c_d<script>"))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4
    assert r"A\|B\*c\_d\<script\>" in text
    assert "<script>" not in text
    unescaped = [line.replace(r"\|", "").count("|") for line in rows]
    assert set(unescaped) == {len(SEVEN) + 3}


def test_latex_is_escaped_and_balanced() -> None:
    text = render.to_latex(full(r"50% & #1_{x}\input{/etc/passwd}"))
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert r"50\% \& \#1\_\{x\}\textbackslash{}input\{/etc/passwd\}" in body
    assert body.count(r"\toprule") == body.count(r"\bottomrule") == 1
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in lines} == {len(SEVEN) + 1}


def test_csv_is_one_line_a_cell_and_no_formula() -> None:
    table = full()
    evil = Variant("=cmd()", "E", False, (0,), table.rows[2].variant.summaries)
    rows = list(
        csv.DictReader(io.StringIO(render.to_csv(build(table.columns, [table.rows[0].variant, evil]))))
    )
    assert len(rows) == 2 * 8
    assert {row["method"] for row in rows} == {"baseline", "'=cmd()"}
    assert float(rows[-1]["delta"]) == pytest.approx(10.5)


def test_json_holds_what_the_table_shows() -> None:
    data = json.loads(render.to_json(full()))
    assert [row["label"] for row in data["rows"]] == ["Baseline", "Baseline + DaR", "STIC", "STIC + DaR"]
    assert data["rows"][3]["cells"]["average"]["difference"]["delta"] == pytest.approx(11.5)


def test_without_a_baseline_there_are_scores_and_no_differences() -> None:
    stic = Variant("stic", "STIC", False, (0,), {"a": [summary(100)]})
    table = build([Column("a", "A")], [stic])
    assert table.rows[0].cells["a"].score == 50.0
    assert table.rows[0].cells[AVERAGE].difference is None
