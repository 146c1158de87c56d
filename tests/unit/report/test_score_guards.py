"""Scores that cannot tell rows apart are marked as such, in every format, and nothing is tested on them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from stic_eval import registry
from stic_eval.evals.sources import samples
from stic_eval.report import (
    compared_variants,
    head_to_head,
    html_table,
    latex,
    runs,
    score_guards,
    table_formats,
    terminal_table,
)
from stic_eval.report.table_rows import AVERAGE, Column, EvaluatedVariant
from stic_eval.report.tables import Table, build
from stic_eval.types import DIRECT, Record, Request, Response, Summary
from tests.support.fake import FakeVLM
from tests.support.scripted import Scripted, solving


def summary(right: int, n: int = 50, **fields: object) -> Summary:
    units = {f"{i}": (float(i < right), 1.0) for i in range(n)}
    return replace(Summary(100 * right / n, n, 0, units, {}, answers=n), **fields)


def table(*rows: Summary, seeds: tuple[int, ...] = ()) -> Table:
    """A table of one row a summary, the first of which is the baseline, with an ordinary second benchmark."""
    columns = [Column("a", "Alpha"), Column("b", "Beta")]
    names = ["baseline", *(f"m{i}" for i in range(1, len(rows)))]
    return build(
        columns,
        [
            EvaluatedVariant(name, name, DIRECT, (), {"a": [row], "b": [summary(20 + 3 * at)]})
            for at, (name, row) in enumerate(zip(names, rows, strict=True))
        ],
    )


# ---------------------------------------------------------------- what a run finds out about its answers


def evaluated(name: str, answer: Callable[[Request], str], tmp_path: Path) -> Summary:
    from stic_eval.evals import runner

    benchmark = registry.benchmarks().get(name)
    return runner.evaluate(
        benchmark,
        samples(benchmark, "pocket"),
        FakeVLM(answer),
        **solving(),
        progress=lambda done, total: None,
    )[1]


@pytest.mark.parametrize("name", ["scienceqa", "mmbench"])
def test_a_model_that_always_says_b_has_a_constant_answer(name: str, tmp_path: Path) -> None:
    found = evaluated(name, lambda request: "B.", tmp_path)
    assert found.constant == "B"
    assert found.best_constant is not None
    assert found.best_constant[1] >= (found.score or 0)
    assert score_guards.guard([found]) == "constant answer B"


def test_the_best_constant_answer_is_the_commonest_target(tmp_path: Path) -> None:
    """A model whose answers differ is not constant, and its score is not the constant answer's."""
    rows = samples(registry.benchmarks().get("scienceqa"), "pocket")
    targets = [sample.target for sample in rows]
    common = max("ABCD", key=targets.count)
    letters = {
        s.question: str(s.target) if n % 10 == 0 else "ABCD"["BCDA".index(str(s.target))]
        for n, s in enumerate(rows)
    }
    found = evaluated("scienceqa", lambda request: letters[request.messages[-1].text], tmp_path)
    assert found.constant == ""
    assert found.best_constant == (common, pytest.approx(100 * targets.count(common) / len(rows)))
    assert found.score is not None and found.score < found.best_constant[1]
    assert score_guards.guard([found]) == ""


def test_right_answers_that_differ_are_no_constant(tmp_path: Path) -> None:
    rows = {s.question: s.target for s in samples(registry.benchmarks().get("scienceqa"), "pocket")}
    wrong = iter(["?"] * 20)

    def answer(request: Request) -> str:
        return next(wrong, rows[request.messages[-1].text])

    found = evaluated("scienceqa", answer, tmp_path)
    assert (found.constant, score_guards.guard([found])) == ("", "")


def test_a_benchmark_whose_targets_are_as_alike_has_a_constant_answer_by_right() -> None:
    from stic_eval.evals.constant_answers import constant_answer

    def record(at: int, target: str, answer: str | None, response: str = "") -> Record:
        return Record(f"{at}", "?", (), target, {}, None, response, answer, 1.0, 1.0, None, 0.0, 1)

    assert constant_answer([record(i, "yes", "yes") for i in range(40)]) == ""
    assert constant_answer([record(i, "yn"[i % 2], "yes") for i in range(40)]) == "yes"
    assert constant_answer([record(i, "yn"[i % 2], "yes") for i in range(19)]) == ""
    assert constant_answer([record(i, "yn"[i % 2], "yes" if i % 10 else "no") for i in range(40)]) == ""
    # What could not be read is left out; where nothing is read apart, the response itself is looked at.
    half = [record(i, "yn"[i % 2], "yes" if i % 2 else None) for i in range(40)]
    assert constant_answer(half) == "yes"
    said = [record(i, "yn"[i % 2], None, f"A \x1b[31m{'long ' * 9}\nanswer") for i in range(40)]
    assert constant_answer(said) == "A \\x1b[31mlong long long..."


def test_answers_that_are_empty_or_cut_are_counted_and_said(tmp_path: Path) -> None:
    from stic_eval.evals import runner

    benchmark = registry.benchmarks().get("chartqa")
    rows = samples(benchmark, "pocket")[:40]
    turns = iter([Response("", 1, "stop"), Response("so", 9, "length"), Response("well", 9, "length")] * 40)
    _, found = runner.evaluate(
        benchmark, rows, Scripted(lambda request: next(turns)), **solving(),
        progress=lambda done, total: None,
    )  # fmt: skip
    assert (found.blank, found.cut) == (14, 26)
    notes = " ".join(
        build(
            [Column("chartqa", "ChartQA")], [EvaluatedVariant("m", "M", DIRECT, (), {"chartqa": [found]})]
        ).notes
    )
    assert "up to 65 % of a row's answers are cut at their bound" in notes
    assert "empty" not in notes


# ---------------------------------------------------------------- what tables say


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (summary(50), "at the ceiling"),
        (summary(0), "no row right"),
        (summary(15, constant="B"), "constant answer B"),
        (summary(15, best_constant=("B", 30.0)), "what always answering B scores"),
        (summary(16, best_constant=("B", 30.0)), ""),
        (summary(14, best_constant=("B", 30.0)), ""),
        (summary(0, best_constant=("A", 0.0)), "no row right"),
        (summary(49), ""),
        (summary(10, n=10), ""),
        (replace(summary(0, n=30), units={f"{i}": (0.8, 0.8) for i in range(30)}, score=100.0), ""),
    ],
)
def test_why_a_score_says_little(one: Summary, reason: str) -> None:
    assert score_guards.guard([one]) == reason
    assert score_guards.guard([one, summary(25)]) == ""
    assert score_guards.guard([]) == ""


def test_a_guarded_column_is_marked_and_explained() -> None:
    found = table(summary(15, constant="B"), summary(15, constant="B"), summary(40))
    assert dict(found.fields) == {"a": "Alpha ¶", "b": "Beta", AVERAGE: "Average"}
    (note,) = [note for note in found.notes if note.startswith("¶")]
    assert "Alpha: constant answer B (baseline, m1)" in note
    assert "The average holds 1 such column." in note
    assert [row.cells["a"].guard for row in found.rows] == ["constant answer B", "constant answer B", ""]


def test_what_neither_side_can_show_is_not_tested() -> None:
    # From nearly no B to nearly all B: a difference, and none of what is measured.
    found = table(summary(5, constant="A"), summary(45, constant="B"), summary(45))
    both, one = (row.cells["a"].difference for row in found.rows[1:])
    assert both is not None and one is not None
    assert (both.delta, both.mark, both.p_holm, both.p != both.p) == (80, "", None, True)
    assert one.mark == "**"
    (note,) = [note for note in found.notes if note.startswith("¶")]
    assert "no claim" not in note, "a difference to an ordinary score is tested"
    assert "a difference between two of them is not tested, except to the ceiling." in note


def test_a_gain_below_the_best_constant_answer_is_tested() -> None:
    """Yes-and-no questions, answered wrong nine times out of ten, then at random: rows were told apart."""
    best = ("yes", 50.0)
    found = table(summary(40, 400, best_constant=best), summary(180, 400, best_constant=best))
    difference = found.rows[1].cells["a"].difference
    assert difference is not None and difference.p < 1e-9
    assert not any("Alpha: " in note for note in found.notes if note.startswith("¶"))
    alike = table(summary(200, 400, best_constant=best), summary(200, 400, best_constant=best))
    assert alike.rows[1].cells["a"].guard == "what always answering yes scores"


@pytest.mark.parametrize(
    "low", [summary(0), summary(15, constant="B"), summary(15, best_constant=("B", 30.0))]
)
def test_a_difference_to_the_ceiling_is_tested(low: Summary) -> None:
    """All rows right is what answers of nearly one kind cannot be."""
    found = table(low, summary(50))
    difference = found.rows[1].cells["a"].difference
    assert [row.cells["a"].guard != "" for row in found.rows] == [True, True]
    assert difference is not None and difference.p < 1e-4


HOSTILE = "<script>|*]\\"


@pytest.mark.parametrize("text", [HOSTILE, "¶ **bold**"])
def test_a_constant_answer_is_text_in_every_format(text: str) -> None:
    found = table(summary(15, constant=text), summary(15, constant=text))
    assert "<script>" not in html_table.to_html(found)
    assert "<script>" not in table_formats.to_markdown(found)
    assert "Alpha ¶" in table_formats.to_markdown(found)
    tex = latex.to_latex(found)
    assert r"Alpha \P{}" in tex and HOSTILE not in tex
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(terminal_table.to_rich(found, 100))
    assert f"constant answer {text}" in " ".join(console.export_text().split())
    data = json.loads(table_formats.to_json(found))
    assert data["rows"][0]["cells"]["a"]["guard"] == f"constant answer {text}"
    lines = list(csv.DictReader(io.StringIO(table_formats.to_csv(found))))
    assert lines[0]["guard"] == f"constant answer {text}"
    assert [column["title"] for column in data["columns"]] == ["Alpha", "Beta"]


def test_what_was_noted_is_kept_and_files_of_earlier_versions_have_none(tmp_path: Path) -> None:
    noted = summary(15, constant="B", best_constant=("B", 30.0), blank=3, cut=4)
    scores = runs.Scores("run", [Column("a", "Alpha")], [], model="m")
    scores.entries = [runs.Entry("baseline", "baseline", "Baseline", DIRECT, None, summaries={"a": noted})]
    runs.save(scores, tmp_path)
    assert runs.load(tmp_path).entries[0].summaries["a"] == noted
    data = json.loads((tmp_path / "scores.json").read_text())
    for name in ("constant", "best_constant", "blank", "cut"):
        del data["variants"][0]["summaries"]["a"][name]
    (tmp_path / "scores.json").write_text(json.dumps(data))
    assert score_guards.guard([runs.load(tmp_path).entries[0].summaries["a"]]) == ""


# ---------------------------------------------------------------- no row differs


def test_no_interval_is_printed_where_no_row_differs_but_what_that_leaves_open() -> None:
    found = table(summary(15), summary(15), summary(16))
    (same, other) = (row.cells["a"].difference for row in found.rows[1:])
    assert same is not None and other is not None
    assert same.unmoved and not other.unmoved
    assert same.unseen == pytest.approx(5.8, abs=0.05)
    assert "| 30.0<br>+0.0<br>= |" in table_formats.to_markdown(found)
    assert "[0.0, 0.0]" not in table_formats.to_markdown(found) + html_table.to_html(found) + latex.to_latex(
        found
    )
    assert "= no row's score differs; up to 5.8 % of rows like these 50 may differ (95 %)." in found.notes
    lines = [
        line for line in csv.DictReader(io.StringIO(table_formats.to_csv(found))) if line["benchmark"] == "a"
    ]
    assert [line["unseen95"][:4] for line in lines] == ["", "5.81", ""]
    cells = [row["cells"]["a"]["difference"] for row in json.loads(table_formats.to_json(found))["rows"][1:]]
    assert [cell["unseen95"] is None for cell in cells] == [False, True]


def test_the_bound_is_the_exact_one() -> None:
    """With so many rows, none of which differs, 5 % of the samples would be like this one."""
    found = table(summary(15, n=200), summary(15, n=200)).rows[1].cells["a"].difference
    assert found is not None
    assert (1 - found.unseen / 100) ** 200 == pytest.approx(0.05)


def test_the_bound_of_rows_in_clusters_is_on_clusters() -> None:
    """A share of clusters is no share of rows, let alone points: a cluster may hold half of the rows."""
    shared = {f"{i}": f"{min(i, 23)}" for i in range(60)}
    clustered = summary(15, n=60, clusters=shared)
    found = table(clustered, clustered)
    (note,) = [note for note in found.notes if note.startswith("= no row's")]
    assert note == (
        "= no row's score differs; up to 11.7 % of clusters like these 24, of 60 rows may differ (95 %)."
    )
    difference = found.rows[1].cells["a"].difference
    assert difference is not None and (1 - difference.unseen / 100) ** 24 == pytest.approx(0.05)


def test_compare_says_of_one_side_what_is_true_of_one(tmp_path: Path) -> None:
    scores = runs.Scores("run", [Column("a", "Alpha")], [], model="m")
    scores.entries = [
        runs.Entry("baseline", "baseline", "B", DIRECT, None, summaries={"a": summary(15, constant="B")}),
        runs.Entry("mine", "mine", "M", DIRECT, None, summaries={"a": summary(45)}),
    ]
    runs.save(scores, tmp_path)
    found = head_to_head.measure(*compared_variants.choose(str(tmp_path), None, ()))
    assert found.average.difference.mark == "**"
    assert "Alpha: A's score says little by itself (constant answer B)." in found.notes
    assert not any("cannot tell" in note for note in found.notes)


def test_compare_says_so_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from stic_eval.cli import compare

    scores = runs.Scores("run", [Column("a", "Alpha"), Column("b", "Beta")], [], model="m")
    scores.entries = [
        runs.Entry(name, name, name, DIRECT, None, summaries={"a": summary(50), "b": summary(right)})
        for name, right in (("baseline", 20), ("mine", 30))
    ]
    runs.save(scores, tmp_path)
    found = head_to_head.measure(*compared_variants.choose(str(tmp_path), None, ()))
    assert (
        "Alpha: such scores cannot tell A and B apart (A: at the ceiling; B: at the ceiling)." in found.notes
    )
    formats: list[compare.Format] = ["text", "md", "csv", "json"]
    for format_ in formats:
        compare.compare(str(tmp_path), None, None, None, "all", 0, format_)
        out = " ".join(capsys.readouterr().out.split())
        assert "[0.0, 0.0]" not in out
        if format_ in ("text", "md"):
            assert "no row's score differs; up to 5.8 % of rows like these 50" in out
