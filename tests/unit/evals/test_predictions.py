"""Answers in the formats that evaluation tools write find their rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from stic_eval.errors import UserError
from stic_eval.evals.predictions import match, read_predictions
from stic_eval.types import Sample


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sample(name: str, question: str = "What is it?", **meta: Any) -> Sample:
    return Sample(name, (), question, "A", meta=meta)


def answers(path: Path, *names: str) -> dict[str, str]:
    found = match([sample(name) for name in names], read_predictions(path))
    return {name: item.response for name, item in found.items()}


@pytest.mark.parametrize("column", ["id", "question_id", "pid", "index"])
@pytest.mark.parametrize("text", ["response", "text", "prediction"])
def test_plain_jsonl_in_any_usual_columns(tmp_path: Path, column: str, text: str) -> None:
    path = jsonl(tmp_path / "a.jsonl", {column: 7, text: "a cat"}, {column: "x", text: ""})
    assert answers(path, "7", "x", "unanswered") == {"7": "a cat", "x": ""}


def test_unicode_line_separators_do_not_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1, "response": "a\u2028b\x85c"}\r\n\n', encoding="utf-8")
    assert answers(path, "1") == {"1": "a\u2028b\x85c"}


def test_null_is_no_answer_and_an_extraction_is_one(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "a.jsonl",
        {"id": 1, "response": None},
        {"id": 2, "response": None, "extraction": "B"},
        {"id": 3, "extraction": 5},
    )
    items = read_predictions(path).items
    assert [(item.id, item.response, item.extraction) for item in items] == [("2", "B", "B"), ("3", "5", "5")]


def test_own_records_tell_where_their_rows_are(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "r.jsonl", {"id": "a", "response": "x", "score": 1.0, "meta": {"rows": "pocket"}})
    assert read_predictions(path).source == "pocket"


def test_a_json_object_of_answers(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"v1_0": "one", "v1_1": "two"}))
    assert answers(path, "v1_0", "v1_1") == {"v1_0": "one", "v1_1": "two"}


def test_llava_answers_to_mmvet_are_numbered(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"question_id": 12, "prompt": "?", "text": "a cat", "model_id": "m"})
    assert answers(path, "v1_1", "v1_12") == {"v1_12": "a cat"}


def test_llava_answers_to_textvqa_are_filed_under_the_image(tmp_path: Path) -> None:
    rows = [
        sample("34602", "What brand?\nReference OCR token: X\nAnswer briefly.", image_id="003a"),
        sample("34603", "What year?\nAnswer briefly.", image_id="003a"),
    ]
    prompt = "what year?\nReference OCR token: Y\nAnswer the question using a single word or phrase."
    path = jsonl(tmp_path / "a.jsonl", {"question_id": "003a", "prompt": prompt, "text": "1999"})
    assert {name: item.response for name, item in match(rows, read_predictions(path)).items()} == {
        "34603": "1999"
    }


SUFFIX = "Answer the question with a single word."


def logged(number: int, asked: str, response: Any, **more: Any) -> dict[str, Any]:
    return {"doc_id": number, "target": "A", "input": asked, "filtered_resps": response, **more}


def test_lmms_eval_logs_count_rows(tmp_path: Path) -> None:
    rows = [sample("q7", "What colour is it?\nBe brief."), sample("q8", "How many are there?\nBe brief.")]
    path = jsonl(
        tmp_path / "samples.jsonl",
        logged(1, "How many are there?\nAnswer.", "two"),
        logged(0, "What  colour is it? Answer.", ["red"], resps=[["red "]]),
    )
    found = match(rows, read_predictions(path))
    assert {name: item.response for name, item in found.items()} == {"q8": "two", "q7": "red"}


def test_lmms_eval_logs_of_other_rows_are_refused(tmp_path: Path) -> None:
    rows = [sample("q7", "What colour is it?\nBe brief."), sample("q8", "How many are there?\nBe brief.")]
    path = jsonl(tmp_path / "samples.jsonl", logged(0, "How many are there?", "two"))
    with pytest.raises(UserError, match=r"line 1: was asked something other than row 1; .*--rows"):
        match(rows, read_predictions(path))


def test_the_suffix_that_all_rows_have_tells_nothing(tmp_path: Path) -> None:
    rows = [sample(f"q{i}", f"How tall is bar {i}?\n{SUFFIX}") for i in range(6)]
    path = jsonl(
        tmp_path / "samples.jsonl", *(logged(i, f"How tall is bar {5 - i}?\n{SUFFIX}", "2") for i in range(6))
    )
    with pytest.raises(UserError, match="line 1: was asked something other than row 1"):
        match(rows, read_predictions(path))


def test_rows_of_a_log_go_with_their_answers_in_any_order(tmp_path: Path) -> None:
    docs = [{"question": f"Bar {i}?", "answer": str(i), "type": "human_test"} for i in range(6)]
    path = jsonl(tmp_path / "s.jsonl", *(logged(i, "?", str(i), doc=docs[i]) for i in (5, 3, 4)))
    found = read_predictions(path)
    assert [row["id"] for row in found.rows] == ["5", "3", "4"]
    matched = match([sample(str(row["id"])) for row in found.rows], found, own=True)
    assert {name: item.response for name, item in matched.items()} == {"5": "5", "3": "3", "4": "4"}
    named = jsonl(tmp_path / "n.jsonl", logged(0, "?", "b", doc={"question_id": "q2"}))
    assert match([sample("q1"), sample("q2")], read_predictions(named))["q2"].response == "b"


def test_a_table_row_cut_short_is_refused_and_an_empty_extraction_is_none(tmp_path: Path) -> None:
    table = tmp_path / "m.tsv"
    table.write_text("index\tprediction\textraction\n1\ta\t\n")
    assert read_predictions(table).items[0].extraction is None
    for row in ("1\ta", "1\ta\tb\tc"):
        table.write_text(f"index\tprediction\textraction\n{row}\n")
        with pytest.raises(UserError, match="row 2: has more or fewer cells than columns"):
            read_predictions(table)
    empty = jsonl(tmp_path / "a.jsonl", {"id": 1, "response": "a", "extraction": ""})
    assert read_predictions(empty).items[0].extraction == ""


def test_nan_is_no_answer(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"id": 1, "response": float("nan")}, {"id": 2, "response": "a"})
    assert [item.id for item in read_predictions(path).items] == ["2"]


def test_the_same_question_twice_on_an_image_is_answered_in_order(tmp_path: Path) -> None:
    rows = [sample(name, "What brand?\nBriefly.", image_id="a") for name in ("1", "2")]
    path = jsonl(
        tmp_path / "a.jsonl", *({"question_id": "a", "prompt": "What brand?", "text": text} for text in "xy")
    )
    found = match(rows, read_predictions(path))
    assert {name: item.response for name, item in found.items()} == {"1": "x", "2": "y"}


def test_lmms_eval_logs_with_documents_bring_their_rows(tmp_path: Path) -> None:
    doc = {"question": "How many?", "answer": "2", "type": "human_test"}
    path = jsonl(tmp_path / "samples.jsonl", logged(0, "How many?", "2", doc=doc | {"image": "<PIL>"}))
    found = read_predictions(path)
    assert found.rows == ({"id": "0", **doc},)
    assert match([sample("0")], found, own=True)["0"].response == "2"


def test_vlmevalkit_spreadsheets_bring_their_rows(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["index", "question", "answer", "split", "prediction"])
    sheet.append([1, "How many?", 2, "test_human", "2"])
    sheet.append([2, "What?", "a cat", "test_augmented", None])
    book.save(tmp_path / "m.xlsx")
    (tmp_path / "m.tsv").write_text(
        "index\tquestion\tanswer\tsplit\tprediction\n1\tHow many?\t2\ttest_human\t2\n"
        '2\tWhat?\ta cat\ttest_augmented\t""\n'
    )
    for name in ("m.xlsx", "m.tsv"):
        found = read_predictions(tmp_path / name)
        assert [(item.id, item.response) for item in found.items] == [("1", "2"), ("2", "")]
        assert [row["answer"] for row in found.rows] == ["2", "a cat"]
        assert found.rows[1]["split"] == "test_augmented"


@pytest.mark.parametrize(("length", "cut"), [(32_766, ""), (32_767, "prediction"), (40_000, "prediction")])
def test_an_answer_that_a_spreadsheet_has_cut_is_marked(tmp_path: Path, length: int, cut: str) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["index", "question", "answer", "prediction"])
    sheet.append([1, "Which?", "B", "so " * length])  # which the writer cuts at the limit
    sheet["D2"].value = ("x" * length)[:32_767]
    sheet.append([2, "Which?", "B", "B"])
    book.save(tmp_path / "m.xlsx")
    items = read_predictions(tmp_path / "m.xlsx").items
    assert [item.cut for item in items] == [cut, ""]
    # What was made of it is cut as well; JSON has no such limit.
    text = items[0].response
    (tmp_path / "m.tsv").write_text(f"index\tprediction\n1\t{text}\n")
    assert [item.cut for item in read_predictions(tmp_path / "m.tsv").items] == [cut]
    path = jsonl(tmp_path / "m.jsonl", {"index": 1, "prediction": text})
    assert [item.cut for item in read_predictions(path).items] == [""]


def test_a_spreadsheet_program_counts_units_of_utf_16(tmp_path: Path) -> None:
    for text, cut in (("\U0001f600" * 16_383 + "x", "prediction"), ("\U0001f600" * 16_383, "")):
        (tmp_path / "m.csv").write_text(f"index,prediction\n1,{text}\n", encoding="utf-8")
        assert [item.cut for item in read_predictions(tmp_path / "m.csv").items] == [cut]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 1}], r"line 1: has no answer \(column response, text or prediction\)"),
        ([{"response": "a"}], r"line 1: has no id \(column id, question_id, pid or index\)"),
        ([{"id": 1, "response": ["a"]}], r'line 1: column response is \["a"\], not a text'),
        ([["a"]], "line 1: not a JSON object"),
        ([], "holds no answers"),
        ([logged(0, "?", ["a", "b"])], "line 1: filtered_resps holds no text"),
        ([logged(-1, "?", "a")], "doc_id -1 is not the number of a row"),
    ],
)
def test_what_is_no_answer_is_named_by_its_line(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_predictions(jsonl(tmp_path / "a.jsonl", *rows))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b'{"id": 1'),
        ("a.json", b"[1"),
        ("a.xlsx", b"PK no"),
        ("a.jsonl", b"\xff\xfe\x00"),
        ("a.tsv", b"\xff"),
    ],
)
def test_damaged_files_are_one_line(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=name) as raised:
        read_predictions(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_an_array_of_names_is_no_file_of_answers(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text('["a", "b"]')
    with pytest.raises(UserError, match="entry 1: 'a' is no answer; give objects with id and response"):
        read_predictions(path)


def test_an_answer_given_twice_or_to_no_row_is_refused(tmp_path: Path) -> None:
    twice = jsonl(tmp_path / "a.jsonl", {"id": 1, "response": "a"}, {"id": "1", "response": "b"})
    with pytest.raises(UserError, match=r"line 2: answers 1, as does .*line 1"):
        answers(twice, "1")
    stray = jsonl(tmp_path / "b.jsonl", {"id": 1, "response": "a"}, {"id": 5, "response": "b"})
    with pytest.raises(
        UserError, match=r"line 2: 1 of 2 answers fit no row \(5\); rows have ids such as 1, 2"
    ):
        answers(stray, "1", "2")
