"""`stic-eval board`: every run is on it or named with its reason, and nobody's text is more than text."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from stic_eval.cli.app import invoke
from stic_eval.printable import printable
from tests.support.board_runs import HOSTILE, build, put


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return build(tmp_path / "results")


def test_all_runs_are_on_it_or_named(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["board"]) == 3
    said = capsys.readouterr()
    assert said.out == "results/board.html, .csv, .json (3 runs)\n"
    assert said.err.startswith("not on the board: torn: ") and said.err.count("\n") == 1
    data = json.loads((results / "board.json").read_text())
    assert [found["run"] for found in data["unreadable"]] == ["torn"]
    assert "cannot be read" in data["unreadable"][0]["reason"]
    assert {line["run"] for line in data["lines"]} == {"first", "second #2", "inner/third"}
    # A second time the same comes out: what the command wrote is no run.
    before = (results / "board.html").read_bytes()
    assert invoke(["board", "results/"]) == 3
    assert (results / "board.html").read_bytes() == before


def test_runs_of_train_are_counted_and_are_no_failure(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(results / "torn")
    (results / "trained").mkdir()
    (results / "trained" / "config.yaml").write_text("model: x\n")
    (results / "trained" / "manifest.json").write_text('{"seconds": 2.5}')
    assert invoke(["board"]) == 0
    assert capsys.readouterr().err == "not on the board: 1 run was trained, not evaluated\n"
    assert json.loads((results / "board.json").read_text())["trained"] == ["trained"]
    assert "; 1 more was trained, not evaluated</p>" in (results / "board.html").read_text()
    assert invoke(["compare", "results/trained"]) == 2
    assert capsys.readouterr().err == (
        "stic-eval: results/trained: was trained, not evaluated; `stic-eval run` with the same options "
        "evaluates it\n"
    )


def test_scores_come_with_intervals_costs_and_what_they_are_of(results: Path) -> None:
    put(results, "fourth", "other", (5, 7), 8)  # the same rows as the first
    invoke(["board", str(results)])
    data = json.loads((results / "board.json").read_text())
    lines = {(line["run"], line["variant"]): line for line in data["lines"]}
    stic = lines["first", "stic"]
    assert stic["model"] == "pocket" and stic["method"] == "STIC first" and stic["seeds"] == [0]
    one, average = stic["scores"]["one"], stic["scores"]["average"]
    assert one["score"] == 80 and one["score_low95"] < 80 < one["score_high95"] and one["delta"] == 30
    assert average["score"] == pytest.approx(75) and average["score_low95"] < 75 < average["score_high95"]
    assert stic["training"] == {"generations": 300, "steps": 6, "seconds": 12.5, "known": True}
    assert lines["first", "baseline"]["training"] is None
    assert stic["report"] == "first/report.html" and lines["fourth", "stic"]["report"] is None
    # Rows tell which scores may be compared.
    letters = {run: line["rows"] for (run, _), line in lines.items()}
    assert letters["first"] == letters["fourth"] == letters["second #2"] != letters["inner/third"]
    assert [row["name"] for row in data["rows"]] == ["A", "B"]
    # Of the same rows the best average is first.
    same = [line["scores"]["average"]["score"] for line in data["lines"] if line["rows"] == "A"]
    assert same == sorted(same, reverse=True)


def test_a_table_of_all_is_safe_for_spreadsheets(results: Path) -> None:
    invoke(["board"])
    rows = list(csv.DictReader((results / "board.csv").read_text().splitlines()))
    assert {row["benchmark"] for row in rows} == {"one", "two", "average"}
    hostile = [row for row in rows if row["run"] == "second #2"]
    assert hostile and all(row["model"] == f"'{printable(HOSTILE)}" for row in hostile)
    assert all(
        not (text or "").startswith(("=", "@", "+"))
        for row in rows
        for key, text in row.items()
        if key != "delta"
    )


def test_texts_are_escaped_and_links_lead_to_files_alone(results: Path, tmp_path: Path) -> None:
    (results / "second #2" / "report.html").write_text("")
    out = tmp_path / "elsewhere" / "all.html"
    assert invoke(["board", str(results), "--out", str(out)]) == 3
    page = out.read_text(encoding="utf-8")
    assert "<img" not in page and page.count("<script>") == 1 and "\u202e" not in page
    assert 'href="./../results/second%20%232/report.html"' in page
    assert out.with_suffix(".csv").is_file() and out.with_suffix(".json").is_file()
    assert not (results / "board.html").exists()


def test_a_folder_that_is_a_run_is_on_its_own_board(results: Path) -> None:
    assert invoke(["board", "results/first"]) == 0
    data = json.loads((results / "first" / "board.json").read_text())
    assert {line["run"] for line in data["lines"]} == {"first"}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nowhere"], "nowhere: there is no such folder"),
        (["."], "holds no run"),
        (["results", "--out", "board.csv"], "must end in .html"),
    ],
)
def test_mistakes_are_one_line(
    argv: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    assert invoke(["board", *argv]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
