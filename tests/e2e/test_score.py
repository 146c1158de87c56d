"""`stic-eval score` as people call it: answers from elsewhere, rows in any format, one number out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stic_eval.cli.app import invoke
from stic_eval.evals.runner import encode, evaluate
from tests.support.scripted import solving

CHART = {"question": "How many bars are there?", "answer": "4", "type": "human_test"}
PROBLEM = {
    "pid": "1", "question": "How many?", "choices": None, "question_type": "free_form",
    "answer_type": "integer", "precision": None, "answer": "3", "unit": None, "image": "images/1.jpg",
    "metadata": {
        "task": "math word problem", "skills": ["arithmetic reasoning"], "context": "table",
        "grade": "college",
    },
}  # fmt: skip


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def score(*argv: Any, out: Path | None = None) -> int:
    return invoke(["score", *map(str, argv), "--quiet", *(["--json", str(out)] if out else [])])


@pytest.fixture
def charts(tmp_path: Path) -> Path:
    return jsonl(
        tmp_path / "rows.jsonl",
        {**CHART, "id": "a"},
        {**CHART, "id": "b", "answer": "red", "type": "augmented_test"},
    )


def test_a_dry_run_says_how_far_answers_and_rules_get(
    tmp_path: Path, charts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = jsonl(tmp_path / "p.jsonl", {"id": "a", "response": "4.1"})
    argv = ("chartqa", "--predictions", given, "--rows", charts, "--dry-run")
    assert score(*argv, out=tmp_path / "o.json") == 0
    assert capsys.readouterr().out == (
        "ChartQA: 2 rows, 1 answer; rules score 1 and leave 0 to a judge\nunscored: 1\n"
    )
    assert not (tmp_path / "o.json").exists()


def test_score_breakdown_and_every_verdict(
    tmp_path: Path, charts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = jsonl(tmp_path / "p.jsonl", {"id": "b", "response": "blue"}, {"id": "a", "response": "4.1"})
    assert score("chartqa", "--predictions", given, "--rows", charts, out=tmp_path / "o.json") == 0
    data = json.loads((tmp_path / "o.json").read_text())
    assert {name: data[name] for name in ("benchmark", "n", "scored", "unscored", "score")} == {
        "benchmark": "chartqa", "n": 2, "scored": 2, "unscored": 0, "score": 50.0,
    }  # fmt: skip
    assert data["breakdown"] == {"questions/augmented": 0.0, "questions/human": 100.0}
    assert [(row["id"], row["score"], row["answer"]) for row in data["per_sample"]] == [
        ("a", 1.0, "4.1"),
        ("b", 0.0, "blue"),
    ]
    assert "lmms" in data["protocol"]
    printed = capsys.readouterr().out
    assert "ChartQA: 50.00 (n = 2)" in printed
    assert "questions/human" in printed


def test_what_has_no_answer_is_unscored_and_exit_code_3(
    tmp_path: Path, charts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = jsonl(tmp_path / "p.jsonl", {"id": "a", "response": "4"})
    assert score("chartqa", "--predictions", given, "--rows", charts, out=tmp_path / "o.json") == 3
    data = json.loads((tmp_path / "o.json").read_text())
    assert (data["score"], data["scored"], data["unscored"]) == (100.0, 1, 1)
    assert data["per_sample"][1]["score"] is None
    said = capsys.readouterr()
    assert "100.00° (n = 2, 1 unscored)" in said.out
    assert "unscored: 1 x no answer in p.jsonl (e.g. b)" in said.err


def test_an_answer_that_a_spreadsheet_has_cut_is_unscored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["index", "question", "answer", "split", "type", "prediction"])
    for index, answer in ((1, "4"), (2, "4 " * 20_000)):
        sheet.append([index, "How many?", "4", "test", "human_test", answer])
    book.save(tmp_path / "m.xlsx")
    assert score("chartqa", "--predictions", tmp_path / "m.xlsx", out=tmp_path / "o.json") == 3
    data = json.loads((tmp_path / "o.json").read_text())
    assert (data["scored"], data["unscored"], data["score"]) == (1, 1, 100.0)
    assert [row["score"] for row in data["per_sample"]] == [1.0, None]
    said = capsys.readouterr().err
    assert "unscored: 1 x column prediction was cut in m.xlsx: a spreadsheet's cell ends at 32,767" in said


def test_an_extraction_is_used_as_the_extracted_answer(tmp_path: Path) -> None:
    rows = jsonl(tmp_path / "rows.jsonl", PROBLEM)
    read = jsonl(tmp_path / "p.jsonl", {"pid": "1", "response": "7, no: 8", "extraction": "3.0"})
    assert score("mathvista", "--predictions", read, "--rows", rows, out=tmp_path / "o.json") == 0
    assert json.loads((tmp_path / "o.json").read_text())["score"] == 100
    unread = jsonl(tmp_path / "q.jsonl", {"pid": "1", "response": "7, no: 8"})
    assert score("mathvista", "--predictions", unread, "--rows", rows) == 3


def test_a_protocol_and_an_option_change_the_reading(tmp_path: Path) -> None:
    row = {
        "id": "1", "image": "1.png", "question": "Which?", "choices": ["a", "b"], "answer": 1, "hint": "",
        "subject": "natural science", "grade": "grade4",
    }  # fmt: skip
    rows = jsonl(tmp_path / "rows.jsonl", row)
    given = jsonl(tmp_path / "p.jsonl", {"id": "1", "response": "b"})
    out = tmp_path / "o.json"
    found = {}
    for protocol in ("llava", "lmms"):
        assert (
            score("scienceqa", "--predictions", given, "--rows", rows, "--protocol", protocol, out=out) == 0
        )
        data = json.loads(out.read_text())
        found[data["protocol"]] = data["score"]
    assert found == {"llava": 0.0, "lmms": 100.0}
    assert score("scienceqa", "--predictions", given, "--rows", rows, "-o", "subset=full", out=out) == 0
    assert json.loads(out.read_text())["protocol"] == "llava, full"


def test_answers_outside_of_the_variant_and_rows_without_answer_can_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "question": "Which?", "A": "red", "B": "blue", "answer": "A", "hint": "nan",
        "category": "image_scene",
        "L2-category": "coarse_perception",
    }  # fmt: skip
    rows = jsonl(tmp_path / "r.jsonl", *({"index": i, **row} for i in (1, 1_000_001, 2, 1_000_002)))
    given = jsonl(tmp_path / "p.jsonl", *({"index": i, "response": "A"} for i in (1, 1_000_001)))
    out = tmp_path / "o.json"
    common = ("mmbench", "--predictions", given, "--rows", rows)
    assert score(*common, out=out) == 3
    assert json.loads(out.read_text())["unscored"] == 1
    assert score(*common, "--answered-only", out=out) == 0
    assert json.loads(out.read_text())["n"] == 1
    capsys.readouterr()
    assert score(*common, "--answered-only", "-o", "evaluation=vanilla", out=out) == 0
    assert "1 answers to rows outside of the variant llava, vanilla are left out" in capsys.readouterr().err
    assert (json.loads(out.read_text())["n"], json.loads(out.read_text())["score"]) == (1, 100)


def test_answers_that_bring_their_rows_need_no_others(tmp_path: Path) -> None:
    table = tmp_path / "model_ChartQA_TEST.tsv"
    table.write_text("index\tquestion\tanswer\tsplit\tprediction\n1\tHow many?\t4\ttest_human\t4\n")
    assert score("chartqa", "--predictions", table, out=tmp_path / "o.json") == 0
    assert json.loads((tmp_path / "o.json").read_text())["score"] == 100


GIVEN = ("--predictions", "{p}", "--rows", "{r}")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["chartqu", *GIVEN], 'no benchmark is called "chartqu"; did you mean "chartqa"?'),
        (["chartqa", "--predictions", "nothing.jsonl"], "--predictions nothing.jsonl: no such file"),
        (["chartqa", "--predictions", "{p}", "--rows", "nothing"], "nothing: no such file or folder"),
        (["chartqa", *GIVEN, "--json", "."], "--json .: is a folder"),
        (["chartqa", *GIVEN, "-o", "strictt=1"], "strictt"),
        (["chartqa", *GIVEN, "--protocol", "x"], "none of the benchmarks has it"),
        (["mathvista", *GIVEN], 'row 1: column "'),
        (["chartqa", *GIVEN, "--judge", "m", "--judge-base-url", "x"], "--judge-base-url x"),
        (["chartqa", *GIVEN, "--judge", "m", "--judge-samples", "0"], "--judge-samples 0"),
        (["chartqa", *GIVEN, "--judge", "m", "--judge-api-key-env", "sk-proj-1"], "not the key"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, charts: Path, capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    given = jsonl(tmp_path / "p.jsonl", {"id": "a", "response": "4"})
    assert score(*(part.format(p=given, r=charts) for part in argv)) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "sk-proj-1" not in err
    assert len(err.splitlines()) == 1


def test_a_runs_own_records_score_as_in_the_run(tmp_path: Path) -> None:
    from stic_eval import registry
    from stic_eval.evals.sources import samples
    from tests.support.fake import FakeVLM

    benchmark = registry.benchmarks().get("mmvet")
    rows = samples(benchmark, "pocket", limit=30)
    records, summary = evaluate(
        benchmark,
        rows,
        FakeVLM(lambda request: "It is a day scene with a yellow ring and a blue star."),
        **solving(),
        progress=lambda done, total: None,
    )
    (tmp_path / "mmvet.jsonl").write_bytes(encode(records))
    out = tmp_path / "o.json"
    assert score("mmvet", "--predictions", tmp_path / "mmvet.jsonl", out=out) == 3  # 170 rows have no answer
    data = json.loads(out.read_text())
    assert data["scored"] == 30
    assert data["score"] == pytest.approx(summary.score)
    assert summary.score not in (0, 100)


def test_what_others_wrote_cannot_drive_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b]0;title\x07[bold]a"
    rows = jsonl(tmp_path / "r.jsonl", {**CHART, "id": evil}, {**CHART, "id": "b"})
    given = jsonl(tmp_path / "p.jsonl", {"id": "b", "response": evil})
    assert score("chartqa", "--predictions", given, "--rows", rows) == 3
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "[bold]a" in said.err
