"""The paper's figures: as printed there, and only where they belong."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from statistics import mean

import pytest

from stic_eval import registry
from stic_eval.report import paper_scores
from stic_eval.report.table_rows import Column


def test_every_table_is_as_wide_as_its_head() -> None:
    data = paper_scores.paper()
    for name, table in data.items():
        if name.startswith("table"):
            width = len(table.get("labels") or table.get("benchmarks") or data["benchmarks"])
            rows = {k: v for k, v in table.items() if k not in ("labels", "benchmarks", "benchmark", "group")}
            assert rows
            for label, row in rows.items():
                scores = row["scores"] if isinstance(row, dict) else row
                assert len(scores) == width, (name, label)
                assert all(score is None or 0 <= score <= 100 for score in scores), (name, label)


def test_its_columns_are_benchmarks_of_ours() -> None:
    assert set(paper_scores.paper()["benchmarks"]) <= set(registry.benchmarks().names())


def test_printed_averages_agree_with_the_printed_figures() -> None:
    for label, row in paper_scores.paper()["table2"].items():
        assert mean(row["scores"]) == pytest.approx(row["average"], abs=0.051), label


def test_tables_that_repeat_each_other_agree_but_for_the_noted_figure() -> None:
    data = paper_scores.paper()
    one, two = data["table1"]["LLaVA-v1.6-7B+STIC"], data["table2"]["STIC+DaR"]["scores"]
    other = [data["benchmarks"][at] for at, (a, b) in enumerate(zip(one, two, strict=True)) if a != b]
    assert other == ["mmvet"]
    assert any("45.0" in note and "45.2" in note for note in paper_scores.notes("table1"))
    assert data["table1"]["LLaVA-v1.6-7B"] == data["table2"]["base"]["scores"]


def test_rows_say_model_method_and_that_they_are_published() -> None:
    labels = [row.label for row in paper_scores.main_result()]
    assert labels[0] == "InstructBLIP-7B (published)" and labels[-1] == "LLaVA-v1.6-7B+STIC (published)"
    dar = paper_scores.describe_and_respond()
    assert [(row.name, row.dar) for row in dar] == [
        ("Baseline (published)", False), ("Baseline + DaR (published)", True),
        ("STIC (published)", False), ("STIC + DaR (published)", True),
    ]  # fmt: skip
    assert [row.label for row in paper_scores.breakdown("mmvet", "capability")] == [
        "LLaVA-v1.6-7B (published)", "LLaVA-v1.6-7B+STIC (published)",
    ]  # fmt: skip
    assert paper_scores.breakdown("mmvet", "combination") == []


def test_figures_by_a_judge_come_with_a_word_on_the_judge() -> None:
    columns = [Column(name, name.upper(), "", "judge mine (stic-eval-1)") for name in ("mmbench", "mmvet")]
    (note,) = paper_scores.judge_note(columns)
    assert note.startswith(f"{paper_scores.JUDGE}: MMVET by gpt-4-0613, as far as the paper's code tells; ")
    assert "measured here: judge mine (stic-eval-1); " in note
    assert paper_scores.judge_note(columns[:1]) == []
    judged = {name for name in registry.benchmarks().names() if registry.benchmarks().get(name).judged}
    assert set(paper_scores.paper()["judges"]) == judged & set(paper_scores.paper()["benchmarks"])


def test_an_average_is_over_the_tables_columns_or_there_is_none() -> None:
    povid = next(row for row in paper_scores.main_result() if row.method == "POVID")
    names = paper_scores.paper()["benchmarks"]
    assert paper_scores.row(povid, names, names, ("x",)).cells["average"].score is None
    both = ["scienceqa", "mmbench"]
    assert paper_scores.row(povid, both, both, ("x",)).cells["average"].score == pytest.approx(
        (68.8 + 64.9) / 2
    )
    assert paper_scores.row(povid, names, [], ("x",)).cells["average"].score is None


def test_it_is_read_from_the_package_wherever_one_stands(tmp_path: object) -> None:
    code = "from stic_eval.report.paper_scores import paper; print(len(paper()['table1']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=str(tmp_path), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "7"
    assert (files("stic_eval.results") / "paper.yaml").is_file()
