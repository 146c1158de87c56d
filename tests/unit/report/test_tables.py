"""The side-by-side table: what it counts, how it prints, and that nothing in it is executed."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stic_eval.errors import UserError
from stic_eval.report import (
    cell_text,
    compared_variants,
    head_to_head,
    html_table,
    runs,
    shown_notes,
    table_formats,
    table_notes,
    table_rows,
    tables,
    terminal_table,
)
from stic_eval.report.multiple_testing import holm
from stic_eval.report.paired_comparison import compare
from stic_eval.report.table_rows import AVERAGE, Column, EvaluatedVariant, PlannedRow
from stic_eval.report.tables import Table, assemble, build
from stic_eval.types import DESCRIBED, DIRECT, Summary

SEVEN = ["ScienceQA", "TextVQA", "ChartQA", "LLaVA-Bench", "MMBench", "MM-Vet", "MathVista"]


def summary(right: int, n: int = 200, unscored: int = 0) -> Summary:
    units = {f"{i}": (float(i < right), 1.0) for i in range(n - unscored)}
    score = 100 * right / (n - unscored) if n > unscored else None
    return Summary(score, n, unscored, units, {})


def full(title: str = "STIC") -> Table:
    columns = [Column(name.lower(), name, f"{name} protocol") for name in SEVEN]

    def row(method: str, name: str, dar: bool, seeds: tuple[int, ...], right: int) -> EvaluatedVariant:
        runs = max(1, len(seeds))
        return EvaluatedVariant(
            method,
            name,
            DESCRIBED if dar else DIRECT,
            seeds,
            {c.name: [summary(right + k) for k in range(runs)] for c in columns},
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
    console.print(terminal_table.to_rich(full(), width))
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
        line = next(line for line in reversed(text.splitlines()) if line.startswith("STIC + DaR"))
        assert "+11.5" in line and "[" in line and "±" in line


def test_markup_in_a_title_is_printed_not_obeyed() -> None:
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(terminal_table.to_rich(full("[red]x"), 120))
    assert "[red]x" in console.export_text().replace("\n", "")


def test_many_benchmarks_turn_the_table_on_its_side() -> None:
    columns = [Column(f"b{i}", f"Benchmark{i:02d}") for i in range(20)]
    rows = [
        EvaluatedVariant(name, name, DIRECT, (), {c.name: [summary(100)] for c in columns})
        for name in ("baseline", "other")
    ]
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(terminal_table.to_rich(build(columns, rows), 80))
    text = console.export_text()
    assert all(c.title in text for c in columns)
    assert "…" not in text


def test_average_leaves_out_an_unscored_column_in_every_row_and_says_so() -> None:
    columns = [Column("a", "A"), Column("b", "B")]
    base = EvaluatedVariant(
        "baseline", "Baseline", DIRECT, (), {"a": [summary(100)], "b": [summary(0, 200, 200)]}
    )
    stic = EvaluatedVariant("stic", "STIC", DIRECT, (0,), {"a": [summary(120)], "b": [summary(150)]})
    table = build(columns, [base, stic])
    assert table.averaged == ("a",)
    assert [row.cells[AVERAGE].score for row in table.rows] == [50.0, 60.0]
    assert not table.rows[1].cells[AVERAGE].complete
    assert any("without B" in note for note in table.notes)
    assert "60.0°" in table_formats.to_markdown(table)
    assert table.unscored == 200


def test_unscored_units_mark_their_cell_and_the_average() -> None:
    columns = [Column("a", "A")]
    base = EvaluatedVariant("baseline", "Baseline", DIRECT, (), {"a": [summary(100)]})
    stic = EvaluatedVariant("stic", "STIC", DIRECT, (0,), {"a": [summary(100, 200, 3)]})
    table = build(columns, [base, stic])
    cell = table.rows[1].cells["a"]
    assert not cell.complete and cell.unscored == 3
    assert cell.difference is not None and cell.difference.n == 197
    assert any("3 unscored" in note for note in table.notes)
    assert "°" in cell_text.score_text(table.rows[1].cells[AVERAGE])


def test_markdown_has_a_row_for_each_variant_and_escapes() -> None:
    text = table_formats.to_markdown(full("A|B*c_d<script>"))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4
    assert r"A\|B\*c\_d\<script\>" in text
    assert "<script>" not in text
    unescaped = [line.replace(r"\|", "").count("|") for line in rows]
    assert set(unescaped) == {len(SEVEN) + 3}


def test_csv_is_one_line_a_cell_and_no_formula() -> None:
    table = full()
    evil = EvaluatedVariant("=cmd()", "E", DIRECT, (0,), table.rows[2].variant.summaries)
    text = table_formats.to_csv(build(table.columns, [table.rows[0].variant, evil]))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 2 * 8
    assert {row["method"] for row in rows} == {"baseline", "'=cmd()"}
    assert float(rows[-1]["delta"]) == pytest.approx(10.5)
    assert float(rows[-1]["detectable"]) > 0 and float(rows[-1]["better"]) == pytest.approx(7 * 20 + 7)
    assert "nan" not in text.casefold()


def test_json_holds_what_the_table_shows() -> None:
    data = json.loads(table_formats.to_json(full()))
    assert [row["label"] for row in data["rows"]] == ["Baseline", "Baseline + DaR", "STIC", "STIC + DaR"]
    assert data["rows"][3]["cells"]["average"]["difference"]["delta"] == pytest.approx(11.5)


def test_without_a_baseline_there_are_scores_and_no_differences() -> None:
    stic = EvaluatedVariant("stic", "STIC", DIRECT, (0,), {"a": [summary(100)]})
    table = build([Column("a", "A")], [stic])
    assert table.rows[0].cells["a"].score == 50.0
    assert table.rows[0].cells[AVERAGE].difference is None


def test_averages_are_corrected_over_the_table_and_benchmarks_behind_them_within_their_row() -> None:
    table = full()
    rows = [[cell.difference for cell in row.cells.values()] for row in table.rows[1:]]
    averages = [row[-1] for row in rows]
    assert table.comparisons == len(averages) == 3
    expected = holm([d.p for d in averages if d])
    assert [d.p_holm for d in averages if d] == pytest.approx(expected)
    for row, gate in zip(rows, expected, strict=True):
        within = holm([d.p for d in row[:-1] if d])
        assert [d.p_holm for d in row[:-1] if d] == pytest.approx([max(p, gate) for p in within])
    assert any("over the table's 3 averages; a row's benchmarks have stars" in n for n in table.notes)


def test_the_average_over_one_benchmark_is_no_comparison_of_its_own() -> None:
    base = EvaluatedVariant("baseline", "Baseline", DIRECT, (), {"a": [summary(100)]})
    stic = EvaluatedVariant("stic", "STIC", DIRECT, (), {"a": [summary(110)]})
    table = build([Column("a", "A")], [base, stic])
    one, average = (table.rows[1].cells[name].difference for name in ("a", AVERAGE))
    assert table.comparisons == 1
    assert one is not None and average is not None
    assert one.p_holm == average.p_holm == one.p


def test_a_mark_is_of_the_corrected_p_value() -> None:
    columns = [Column(f"b{i}", f"B{i}") for i in range(8)]
    base = EvaluatedVariant("baseline", "Baseline", DIRECT, (), {c.name: [summary(100)] for c in columns})

    def stic(right: int) -> EvaluatedVariant:
        return EvaluatedVariant(
            "stic",
            "STIC",
            DIRECT,
            (),
            {c.name: [summary(right if c.name == "b0" else 100)] for c in columns},
        )

    alone = build(columns[:1], [base, stic(107)]).rows[1].cells["b0"].difference
    among = build(columns, [base, *[stic(107)] * 4]).rows[1].cells["b0"].difference
    assert alone is not None and among is not None
    assert alone.mark == "*" and among.mark == ""
    assert alone.p == among.p


def test_one_training_seed_gives_no_mark_and_says_what_would() -> None:
    columns = [Column("a", "A"), Column("b", "B")]

    def row(method: str, seeds: tuple[int, ...], right: int) -> EvaluatedVariant:
        return EvaluatedVariant(
            method, method, DIRECT, seeds, {c.name: [summary(right)] * max(1, len(seeds)) for c in columns}
        )

    table = build(columns, [row("baseline", (), 60), row("stic", (0,), 140), row("other", (), 140)])
    alone, tested = table.rows[1:]
    assert all(cell.difference and cell.difference.mark == "§" for cell in alone.cells.values())
    assert all(cell.difference and cell.difference.p < 0.001 for cell in alone.cells.values())
    assert all(cell.difference and cell.difference.mark == "**" for cell in tested.cells.values())
    assert table.comparisons == 1, "what cannot be marked costs the others nothing"
    assert any(note.startswith("§ one training seed") for note in table.notes)
    assert "One training seed (0); three would be tested." in table.notes
    assert r"+40.0$$^{\S}$" in table_formats.to_latex(table)
    several = build(columns, [row("baseline", (), 60), row("stic", (0, 1, 2), 140)])
    assert not any("§" in note for note in several.notes)
    assert all(cell.difference and cell.difference.mark == "**" for cell in several.rows[1].cells.values())


def test_an_adapter_that_was_given_is_one_training(tmp_path: Path) -> None:
    """Whoever trained it, and with whatever seed: another training may come out otherwise."""

    def entry(method: str, right: int, **more: Any) -> runs.Entry:
        return runs.Entry(method, method, method, DIRECT, None, summaries={"a": summary(right)}, **more)

    def marks(scores: runs.Scores) -> list[str]:
        return [
            row.cells["a"].difference.mark for row in scores.table().rows[1:] if row.cells["a"].difference
        ]

    scores = runs.Scores("run", [Column("a", "A")], [], model="m")
    scores.entries = [entry("baseline", 60), entry("adapter", 140, has_adapter=True), entry("asked", 140)]
    runs.save(scores, tmp_path)
    loaded = runs.load(tmp_path)
    assert marks(loaded) == ["§", "**"]
    assert any(note.startswith("§ one training seed") for note in loaded.table().notes)
    found = head_to_head.measure(*compared_variants.choose(str(tmp_path), None, ["adapter"]))
    assert found.average.difference.mark == "§"
    # Files of earlier versions do not say it, but the name does.
    data = json.loads((tmp_path / "scores.json").read_text())
    for variant in data["variants"]:
        del variant["has_adapter"]
    (tmp_path / "scores.json").write_text(json.dumps(data))
    assert marks(runs.load(tmp_path)) == ["§", "**"]


def test_one_blind_description_gives_no_mark_unless_seeds_have_their_own() -> None:
    def row(method: str, seeds: tuple[int, ...], right: int, descriptions: int) -> EvaluatedVariant:
        runs = [replace(summary(right), descriptions=descriptions)] * max(1, len(seeds))
        return EvaluatedVariant(method, method, DESCRIBED, seeds, {"a": runs})

    def marks(*others: EvaluatedVariant) -> list[str]:
        table = build(
            [Column("a", "A")], [EvaluatedVariant("baseline", "B", DIRECT, (), {"a": [summary(60)]}), *others]
        )
        return [row.cells["a"].difference.mark for row in table.rows[1:] if row.cells["a"].difference]

    assert marks(row("m", (), 140, 1), row("n", (), 140, 200)) == ["§", "**"]
    assert marks(row("m", (0, 1, 2), 140, 1)) == ["**"]


def test_a_score_that_is_no_mean_of_its_rows_is_an_error_and_no_table() -> None:
    wrong = replace(summary(100), score=53.0)
    with pytest.raises(UserError, match=r"^A: its score \(53.00\) is not what its rows come to \(50.00\)"):
        build([Column("a", "A")], [EvaluatedVariant("baseline", "Baseline", DIRECT, (), {"a": [wrong]})])
    rounded = replace(summary(67), score=33.5)
    build([Column("a", "A")], [EvaluatedVariant("baseline", "Baseline", DIRECT, (), {"a": [rounded]})])


def test_notes_give_smallest_differences_from_the_least_on() -> None:
    assert table_notes._span([float("nan"), 6.6, 6.5, float("nan"), 6.55]) == "6.5 to 6.6"
    assert table_notes._span([float("nan")]) == ""


def test_the_number_of_clusters_is_said() -> None:
    shared = {str(i): str(i // 4) for i in range(120)}  # 30 clusters of four, 80 of one
    variant = EvaluatedVariant(
        "baseline", "Baseline", DIRECT, (), {"a": [replace(summary(100), clusters=shared)]}
    )
    table = build(
        [Column("a", "A"), Column("b", "B")],
        [replace(variant, summaries={**variant.summaries, "b": [summary(9)]})],
    )
    assert "A: n = 200 in 110 clusters." in table.notes and "B: n = 200." in table.notes
    rows = list(csv.DictReader(io.StringIO(table_formats.to_csv(table))))
    assert [row["clusters"] for row in rows] == ["110", "200", "310"]


def test_a_column_says_which_earlier_version_graded_it() -> None:
    from stic_eval import registry

    today = registry.benchmarks().get("mmvet").version
    rows = [EvaluatedVariant("baseline", "Baseline", DIRECT, (), {"mmvet": [summary(100)]})]

    def said(version: int) -> list[str]:
        notes = build([Column("mmvet", "MM-Vet", version=version)], rows).notes
        return [note for note in notes if note.startswith("MM-Vet")]

    doubt = f"MM-Vet: graded by version {today - 1} (today's is {today})."
    assert said(today - 1) == [doubt, "MM-Vet: n = 200."]
    assert said(today) == said(0) == ["MM-Vet: n = 200."]
    assert [shown_notes.rank(note) is None for note in said(today - 1)] == [True, False]


def test_runs_of_one_seed_are_paired_in_any_order() -> None:
    def of(seeds: tuple[int, ...], right: dict[int, int]) -> EvaluatedVariant:
        return EvaluatedVariant(
            "stic", "STIC", DIRECT, seeds, {"a": [summary(right[seed]) for seed in seeds]}
        )

    one = of((0, 1, 2), {0: 90, 1: 110, 2: 130})
    other = of((2, 0, 1), {0: 94, 1: 114, 2: 134})
    lines = [PlannedRow(one, ("one",), None, "one"), PlannedRow(other, ("other",), one, "other")]
    difference = assemble([Column("a", "A")], lines).rows[1].cells["a"].difference
    assert difference is not None
    assert difference.delta == pytest.approx(2.0)
    assert difference.high - difference.low < 10  # seeds vary by 20 points, their differences not at all


def test_an_average_has_no_difference_where_a_benchmark_has_none() -> None:
    """Here no row of `b` was answered by both: the average's difference would be that of `a` alone."""
    columns = [Column("a", "A"), Column("b", "B")]
    halves = [
        Summary(50.0, 200, 100, {f"{i}": (float(i % 2), 1.0) for i in range(at, at + 100)}, {})
        for at in (0, 100)
    ]
    base = EvaluatedVariant("baseline", "Baseline", DIRECT, (), {"a": [summary(100)], "b": [halves[0]]})
    stic = EvaluatedVariant("stic", "STIC", DIRECT, (0,), {"a": [summary(120)], "b": [halves[1]]})
    row = build(columns, [base, stic]).rows[1]
    assert row.cells["a"].difference is not None
    assert row.cells["b"].difference is None and row.cells[AVERAGE].difference is None
    assert not row.cells[AVERAGE].complete


def test_best_and_second_are_told_by_printed_digits_and_ties_share() -> None:
    columns = [Column("a", "A"), Column("b", "B"), Column("c", "C")]

    def row(name: str, a: int, b: int, c: int) -> EvaluatedVariant:
        return EvaluatedVariant(
            name, name, DIRECT, (), {"a": [summary(a)], "b": [summary(b)], "c": [summary(c)]}
        )

    incomplete = EvaluatedVariant(
        "x", "X", DIRECT, (), {"a": [summary(199, 200, 1)], "b": [summary(10)], "c": [summary(5)]}
    )
    table = build(columns, [row("p", 100, 100, 5), row("q", 120, 120, 5), row("r", 110, 120, 5), incomplete])
    rank = cell_text.ranks(table)
    assert {at: rank.get((at, "a")) for at in range(4)} == {0: None, 1: "best", 2: "second", 3: None}
    assert {at: rank.get((at, "b")) for at in range(4)} == {0: None, 1: "best", 2: "best", 3: None}
    assert not any(name == "c" for _, name in rank)


@pytest.mark.parametrize("width", [80, 120])
def test_two_dozen_rows_fit_a_terminal(width: int) -> None:
    columns = [Column(name.lower(), name) for name in SEVEN]
    rows = [
        EvaluatedVariant("baseline" if i == 0 else f"m{i}", f"Method {i:02d}", DIRECT, (),
                {c.name: [summary(80 + 2 * i)] for c in columns})
        for i in range(24)
    ]  # fmt: skip
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(terminal_table.to_rich(build(columns, rows), width))
    text = console.export_text()
    lines = text.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert "…" not in text
    assert all(f"Method {i:02d}" in text for i in range(24))
    shown, _, below = text.partition("Scores in percent")
    labels = [line for line in shown.splitlines() if line.startswith("Method")]
    assert len(labels) == (24 if width > 80 else 24 + 24), "one block; at 80 columns the average in a second"
    assert shown.count("[") == 23
    assert "23 averages" in " ".join(below.split())


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_what_is_too_wide_is_cut_with_its_leading_columns_in_each_part(seeds: tuple[int, ...]) -> None:
    columns = [Column(name.lower(), name) for name in SEVEN]
    lines: list[PlannedRow] = []
    for i in range(6):
        right = [summary(80 + 2 * i + k) for k in range(len(seeds))]
        variant = EvaluatedVariant(f"m{i}", f"M{i}", DIRECT, seeds, {c.name: right for c in columns})
        base = lines[0].variant if lines else None
        lines.append(
            PlannedRow(variant, (f"a setting of some length {i}", "0.0009765625", f"x{i}"), base, f"M{i}")
        )
    table = assemble(columns, lines, heads=("stage1.first", "stage1.second", "Third"))
    for width in (60, 80):
        console = Console(width=width, file=io.StringIO(), record=True)
        console.print(terminal_table.to_rich(table, width))
        text = console.export_text().partition("Scores in percent")[0]
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
        assert "…" not in text
        blocks = text.strip("\n").split("\n\n")
        assert len(blocks) > 1 and all(f"x{i}" in block for block in blocks for i in range(6))
        assert sum(name.split("-")[0][:4] in text for name in SEVEN) == 7
        assert cell_text.interval_text(table.rows[5].cells[AVERAGE]).replace(" ", "") in blocks[-1]
        if width == 80:
            assert ("seeds" in blocks[-1]) == (len(seeds) > 1), "nothing of seeds where there is one"


def test_notes_tell_corrected_marks_from_uncorrected_intervals_and_commands_are_no_notes() -> None:
    table = full()
    assert any(note.startswith("Only the stars are corrected") for note in table.notes)
    assert any("stic-eval compare" in hint for hint in table.hints)
    for text in (table_formats.to_markdown(table), html_table.to_html(table), *table.notes):
        assert "stic-eval compare" not in text
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(terminal_table.to_rich(table, 100))
    assert "stic-eval compare" in console.export_text()


def test_a_single_benchmark_needs_no_average_explained_and_one_of_two_is_named() -> None:
    base = EvaluatedVariant("baseline", "Baseline", DIRECT, (), {"a": [summary(100)]})
    stic = EvaluatedVariant("stic", "STIC", DIRECT, (), {"a": [summary(110)], "b": [summary(100)]})
    one = build([Column("a", "A")], [base, stic]).notes
    assert not any(note.startswith("Average") for note in one)
    assert "* p < 0.05, ** p < 0.01." in one and "Stars: McNemar." in one
    assert not any("Intervals are not corrected" in note for note in one)
    two = build([Column("a", "A"), Column("b", "B")], [base, stic]).notes
    assert any(note.startswith("Average: A alone, without B") for note in two)


def test_a_benchmark_without_any_evaluation_has_no_note() -> None:
    base = EvaluatedVariant("baseline", "Baseline", DIRECT, (), {"a": [summary(100)]})
    notes = build([Column("a", "A", "asked so"), Column("b", "B", "asked thus")], [base]).notes
    assert "A: n = 200; asked so." in notes and not any(note.startswith("B:") for note in notes)


@pytest.mark.parametrize(
    ("dar", "settings", "label"),
    [
        (True, {"beta": 0.1, "dar": "on"}, "STIC + DaR, beta=0.1"),
        (False, {"dar": "off", "beta": 0.1}, "STIC, beta=0.1"),
        (True, {"dar": "on"}, "STIC + DaR"),
        (True, {"dar": "off"}, "STIC + DaR, dar=off"),
    ],
)
def test_a_label_says_once_that_an_answer_is_described_first(
    dar: bool, settings: dict[str, object], label: str
) -> None:
    assert EvaluatedVariant("stic", "STIC", DESCRIBED if dar else DIRECT, (), {}, settings).label == label


@pytest.mark.parametrize("left", [1, 3, 4, 40])
def test_what_is_unfinished_is_counted_and_the_first_are_named(left: int) -> None:
    done = {f"v{i}": 1 for i in range(left)} | {"whole": 2}
    (note,) = table_rows.unfinished_notes(done, 2)
    assert note.count(" of 2 benchmarks)") == min(left, 3)
    assert (f"{left} of {left + 1} evaluations" in note) == (left > 3)
    assert table_rows.unfinished_notes({"whole": 2}, 2) == []


def test_html_is_escaped_semantic_and_without_style_or_script() -> None:
    text = html_table.to_html(full("<script>alert(1)</script>"))
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "style=" not in text
    assert text.count('<th scope="col"') == 1 + 8
    assert text.count('<th scope="row">') == 4
    assert 'class="best sig better"' in text
    assert "<caption>" in text and text.count("<li>") == len(full().notes)


def test_json_knows_no_nan() -> None:
    same = EvaluatedVariant("stic", "STIC", DIRECT, (0,), {"a": [summary(100)]})
    base = EvaluatedVariant("baseline", "Baseline", DIRECT, (), {"a": [summary(100)]})
    text = table_formats.to_json(build([Column("a", "A")], [base, same]))
    data = json.loads(text, parse_constant=pytest.fail)
    assert data["rows"][1]["cells"]["a"]["difference"]["detectable"] is None
    assert data["rows"][1]["cells"]["a"]["difference"]["mark"] == "§"
    assert data["rows"][1]["cells"]["a"]["difference"]["p_holm"] is None


def test_every_format_is_written(tmp_path: Path) -> None:
    written = table_formats.write(full(), tmp_path)
    assert {path.name for path in written} == {f"table.{s}" for s in ("md", "tex", "html", "csv", "json")}
    assert all("STIC" in path.read_text(encoding="utf-8") for path in written)


def test_a_comparison_that_is_known_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(right: int) -> list[EvaluatedVariant]:
        return [
            EvaluatedVariant("baseline", "Baseline", DIRECT, (), {"one": [summary(90)]}),
            EvaluatedVariant("stic", "STIC", DIRECT, (0,), {"one": [summary(right)]}),
        ]

    columns, given, known = [Column("one", "One")], rows(110), tables.Known()
    first = build(columns, given, known=known)
    assert first == build(columns, given)
    made: list[object] = []
    monkeypatch.setattr(tables, "compare", lambda *sides, **how: made.append(sides) or compare(*sides, **how))
    assert build(columns, given, known=known) == first
    assert not made
    other = build(columns, rows(120), known=known)
    assert len(made) == 1
    assert other == build(columns, rows(120)) != first


SHOWN = (
    "Scores in percent; differences to Baseline in points, with 95 % intervals.",
    "* p < 0.05, ** p < 0.01, corrected for multiple comparisons.",
    "§ one training seed, so no test: intervals cover test rows, not training luck.",
    "= no row's score differs; up to 5.8 % of rows like these 50 may differ (95 %).",
)


def test_five_lines_of_notes_are_shown_and_whatever_can_invalidate_a_number() -> None:
    doubts = ["° incomplete: unscored rows or columns are left out, never counted as 0.", "X: 3 unscored.",
              "What somebody else has written."]  # fmt: skip
    others = [f"{name}: n = 200; protocol llava; a question, and how it is scored." for name in SEVEN]
    notes = [*SHOWN, *doubts, *others]
    chosen, left_out = shown_notes.choose(notes, 80)
    assert shown_notes.choose(notes, 20)[0] == [*SHOWN[1:], *doubts], "signs are explained at any width"
    assert (chosen, left_out) == ([*SHOWN, *doubts], len(others))
    assert shown_notes.choose([*SHOWN[:2], *doubts, *others[:2]], 120)[1] == 0
    assert shown_notes.choose([], 80) == ([], 0)
    for note in (
        *SHOWN,
        *others,
        "one: Asked as: LLaVA-1.5.",
        "Rounding: in bfloat16, 0 of 40 answers came ...",
    ):
        assert shown_notes.rank(note) is not None, note
    for note in ("Rounding: in bfloat16, 2 of 40 answers came out otherwise.", "unfinished: stic (0 of 2).",
                 "Average: mean of the 2 benchmarks' percentages, without X (not scored in every row).",
                 "The model's weights in 4 bits (NF4), by bitsandbytes."):  # fmt: skip
        assert shown_notes.rank(note) is None, note


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_table_breaks_no_word_and_hides_no_sign(width: int) -> None:
    names = ("ScienceQA", "TextVQA", "ChartQA", "LLaVA-Bench", "MMBench", "MM-Vet", "MathVista")
    columns = [Column(name.lower(), name) for name in names]
    scored = {column.name: [replace(summary(90), unscored=1)] for column in columns}
    rows = [
        EvaluatedVariant(method, title, DIRECT, seeds, scored)
        for method, title, seeds in (("baseline", "Baseline", ()), ("stic", "STIC, stage 1 only", (0,)))
    ]  # fmt: skip
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(terminal_table.to_rich(build(columns, rows), width, more="..."))
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    above = text.partition("Scores in percent")[0]
    words = {word for name in names for word in name.replace("LLaVA-Bench", "LLaVA- Bench").split()}
    assert {*words, "Average"} <= {*above.replace("LLaVA-Bench", "LLaVA- Bench").split()}
    assert (above.count("°"), above.count("§"), above.count("=")) == (16, 8, 8)
