"""Rows of benchmarks: `data check`, `data prepare` and `score` on files that nobody should have written."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.faults.hostile.attempts import Place
from tests.faults.hostile.budget import explore, few, many
from tests.faults.hostile.pictures import PICTURES
from tests.faults.hostile.values import PATHS, changed, one_of, spoilt, to_json, values

IMAGE = "good.png"
ROWS: dict[str, dict[str, Any]] = {
    "chartqa": {"id": 1, "type": "human_test", "question": "How tall?", "answer": "12.5", "image": IMAGE},
    "textvqa": {
        "question_id": 34602,
        "image_id": "0a",
        "question": "what is written?",
        "image": IMAGE,
        "answers": ["stop"] * 9 + ["sign"],
        "ocr_tokens": ["STOP"],
    },
    "mmbench": {
        "index": 1,
        "question": "Which colour?",
        "hint": "nan",
        "answer": "A",
        "A": "red",
        "B": "green",
        "C": "blue",
        "D": "grey",
        "category": "attribute_recognition",
        "image": IMAGE,
        "split": "dev",
        "l2-category": "attribute_reasoning",
    },
    "scienceqa": {
        "id": "7",
        "image": IMAGE,
        "question": "Which?",
        "hint": "",
        "choices": ["a", "b"],
        "answer": 0,
        "subject": "natural science",
        "grade": "grade2",
    },
    "mmvet": {
        "question_id": "v1_0",
        "image": IMAGE,
        "question": "What?",
        "answer": "red<AND>blue",
        "capability": ["rec", "ocr"],
    },
    "llava_bench": {
        "question_id": 1,
        "image": IMAGE,
        "question": "What?",
        "caption": "A box.",
        "gpt_answer_content": "A box.",
        "category": "conv",
    },
    "mathvista": {
        "pid": "1",
        "question": "How many?",
        "query": "How many?",
        "image": IMAGE,
        "choices": [],
        "unit": "",
        "precision": 1.0,
        "answer": "3",
        "question_type": "free_form",
        "answer_type": "integer",
        "metadata": {"task": "figure question answering", "category": "general-vqa", "skills": []},
    },
}
cells = st.one_of(
    values, one_of([*PATHS, *PICTURES]), st.lists(one_of([IMAGE, *PICTURES, *PATHS]), max_size=3)
)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """A benchmark, the name of a file, and what it holds."""
    benchmark = draw(st.sampled_from(sorted(ROWS)))
    whole = {**ROWS[benchmark]}
    rows: list[Any] = [whole]
    for number in range(draw(st.integers(1, 4))):
        row = draw(changed(whole, cells)) if draw(st.booleans()) else {**whole}
        name = next(column for column in ("id", "question_id", "pid", "index") if column in whole)
        if draw(st.booleans()) and name in row:
            row[name] = f"{number}"
        rows.append(row if draw(st.integers(0, 9)) else draw(values))
    kind = draw(st.sampled_from(["jsonl", "jsonl", "json", "tsv", "parquet", "arrow"]))
    if kind in ("parquet", "arrow"):
        data = as_table([row for row in rows if isinstance(row, dict)], kind)
    elif kind == "tsv":
        columns = list(
            dict.fromkeys(["index", *(name for row in rows if isinstance(row, dict) for name in row)])
        )
        lines = [
            columns,
            *([row.get(name, "") if isinstance(row, dict) else row for name in columns] for row in rows),
        ]
        text = "\n".join("\t".join(_cell(cell) for cell in line) for line in lines)
        data = text.encode("utf-8", "surrogatepass")
    elif kind == "json":
        data = draw(
            st.sampled_from([to_json(rows), to_json({"data": rows}), to_json(dict(enumerate(rows)))])
        ).encode()
    else:
        lines_ = [to_json(row) for row in rows]
        lines_.insert(
            draw(st.integers(0, len(lines_))),
            draw(
                st.sampled_from(
                    [
                        "",
                        "{",
                        "[]",
                        "null",
                        "[" * 5_000,
                        '{"a":' * 5_000,
                        '{"id": 1, "id": 2}',
                        "\ufeff{}",
                        '"\\ud83d"',
                    ]
                )
            ),
        )
        data = "\n".join(lines_).encode()
    return benchmark, f"rows.{kind}", draw(spoilt(data)) if draw(st.booleans()) else data


def _cell(cell: Any) -> str:
    return re.sub(r"[\t\n\r]", " ", str(cell) if isinstance(cell, str) else to_json(cell))


def _shown(cell: Any) -> str:
    try:
        return ascii(cell)[:100]
    except ValueError as error:  # an integer of more digits than Python writes
        return str(error)


def as_table(rows: list[dict[str, Any]], kind: str) -> bytes:
    """Rows as a table with the columns that one can have, and as texts those that it cannot."""
    import pyarrow as pa
    from pyarrow import ipc, parquet

    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        given = [row.get(name) for row in rows]
        try:
            columns[str(name).encode("utf-8", "replace").decode()] = pa.array(given)
        except (pa.ArrowException, OverflowError, UnicodeError, TypeError, ValueError):
            columns[str(name).encode("utf-8", "replace").decode()] = pa.array(
                [_shown(cell) for cell in given]
            )
    sink = pa.BufferOutputStream()
    table = pa.table(columns)
    try:
        if kind == "parquet":
            parquet.write_table(table, sink)
        else:
            with ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
    except (pa.ArrowException, NotImplementedError):  # a mapping without keys
        return b"PAR1" + b"x" * 99 + b"PAR1"
    return bytes(sink.getvalue())


def attempt(place: Place, made: tuple[str, str, bytes]) -> None:
    """Checks, prepares, and scores by, a file of rows."""
    benchmark, name, data = made
    source = place.work / name
    source.write_bytes(data)
    report = place.attempt("data", "check", benchmark, "--from", source, "--json", "out/check.json", "-q")
    prepared = place.attempt(
        "data", "prepare", benchmark, "--from", source, "--to", "out/rows", "--skip-invalid", "-q"
    )
    if report.code in (0, 1):
        said = json.loads((place.work / "out" / "check.json").read_text())
        good = said["rows"] - len({problem["row"] for problem in said["problems"]})
        match = re.search(r"^(\d+) rows? in", prepared.out, re.M)
        assert (int(match[1]) if match else 0) == good, (report, prepared)
        assert prepared.code == (2 if not good else 3 if said["problems"] else 0), (report, prepared)
    else:
        assert prepared.code == 2
    answers = place.work / "answers.jsonl"
    answers.write_text('{"id": "1", "response": "12.5"}\n')
    place.attempt("score", benchmark, "--predictions", answers, "--rows", source, "-q")
    for path in (source, answers):
        path.unlink()
    shutil.rmtree(place.work / "out", ignore_errors=True)
    shutil.rmtree(place.root / "cache" / "datasets", ignore_errors=True)


def test_rows(place: Place) -> None:
    explore("rows", place, files(), attempt, few(8))


@pytest.mark.campaign
def test_many_rows(place: Place) -> None:
    explore("rows", place, files(), attempt, many(600))
