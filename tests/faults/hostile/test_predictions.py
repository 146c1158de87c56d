"""Answers that were given elsewhere: `score` on files that nobody should have written."""

from __future__ import annotations

import io
import json
import zipfile
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.faults.hostile.attempts import Place
from tests.faults.hostile.budget import explore, few, many
from tests.faults.hostile.test_rows import ROWS
from tests.faults.hostile.values import changed, one_of, spoilt, texts, to_json, values

GIVEN: list[dict[str, Any]] = [
    {"id": "1", "response": "12.5"},
    {"question_id": 1, "text": "12.5", "prompt": "How tall?", "thinking": "", "unclosed": False},
    {
        "doc_id": 0,
        "filtered_resps": ["12.5"],
        "resps": [["12.5"]],
        "input": "How tall?",
        "doc": ROWS["chartqa"],
    },
    {"index": 1, "question": "How tall?", "answer": "12.5", "split": "test_human", "prediction": "12.5"},
    {"pid": "1", "response": "12.5", "extraction": "12.5", "meta": {"rows": "pocket"}},
]


@st.composite
def files(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """A benchmark, the name of a file, and what it holds."""
    row = draw(one_of(GIVEN))
    more = st.one_of(texts, values)
    rows: list[Any] = [row]
    for _ in range(draw(st.integers(0, 3))):
        rows.append(draw(changed(row, more)) if draw(st.integers(0, 5)) else draw(values))
    if draw(st.booleans()):
        rows[0] = draw(changed(row, more))
    kind = draw(st.sampled_from(["jsonl", "jsonl", "json", "tsv", "csv", "xlsx"]))
    if kind == "jsonl":
        data = "\n".join(to_json(row) for row in rows).encode()
    elif kind == "json":
        data = draw(st.sampled_from([to_json(rows), to_json({"logs": rows}), to_json(rows[0])])).encode()
    elif kind == "xlsx":
        data = _workbook(draw, rows)
    else:
        names = list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))
        sign = "\t" if kind == "tsv" else ","
        lines = [names, *([row.get(name, "") for name in names] for row in rows if isinstance(row, dict))]
        data = "\n".join(sign.join(_cell(cell, sign) for cell in line) for line in lines).encode(
            "utf-8", "surrogatepass"
        )
    return (
        draw(st.sampled_from(sorted(ROWS))),
        f"answers.{kind}",
        draw(spoilt(data)) if draw(st.booleans()) else data,
    )


def _cell(cell: Any, sign: str) -> str:
    text = cell if isinstance(cell, str) else to_json(cell)
    return text.replace("\n", " ").replace(sign, " ")


def _workbook(draw: st.DrawFn, rows: list[Any]) -> bytes:
    """A spreadsheet, or a ZIP that is none: entities that refer to each other, and a file of zeros."""
    import openpyxl

    buffer = io.BytesIO()
    what = draw(st.integers(0, 5))
    if what == 0:
        bomb = (
            '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
            + "".join(f'<!ENTITY {one} "{f"&{other};" * 10}">' for other, one in pairwise("abcdefghi"))
            + "]><worksheet>&i;</worksheet>"
        )
        outside = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><worksheet>&a;</worksheet>'
        _repack(draw(st.sampled_from([bomb, outside, "0" * 50_000_000])), buffer)
        return buffer.getvalue()
    book = openpyxl.Workbook()
    names = list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))
    for line in [names, *([row.get(name) for name in names] for row in rows if isinstance(row, dict))]:
        book.active.append([_sheet_cell(cell) for cell in line])  # type: ignore[union-attr]
    book.save(buffer)
    return buffer.getvalue()


def _sheet_cell(cell: Any) -> str:
    text = cell if isinstance(cell, str) else to_json(cell)
    return "".join(c for c in text if c.isprintable())[:32_000]


def _repack(sheet: str, buffer: io.BytesIO) -> None:
    import openpyxl

    whole = io.BytesIO()
    openpyxl.Workbook().save(whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, sheet if name.endswith("sheet1.xml") else old.read(name))


def attempt(place: Place, made: tuple[str, str, bytes]) -> None:
    """Scores the answers of a file."""
    benchmark, name, data = made
    (place.work / name).write_bytes(data)
    (place.work / "rows.jsonl").write_text(json.dumps(ROWS[benchmark]) + "\n")
    rows = (
        () if benchmark == "chartqa" and name.endswith(("tsv", "csv", "xlsx")) else ("--rows", "rows.jsonl")
    )
    place.attempt(
        "score",
        benchmark,
        "--predictions",
        name,
        *rows,
        "--offline",
        "--json",
        "out/scores.json",
        codes=(0, 2, 3),
    )
    (place.work / name).unlink()


def test_predictions(place: Place) -> None:
    explore("predictions", place, files(), attempt, few(15))


@pytest.mark.campaign
def test_many_predictions(place: Place) -> None:
    explore("predictions", place, files(), attempt, many(1_000))
