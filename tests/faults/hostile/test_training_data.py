"""What is trained on: preference pairs that are imported, or given as they are, and instruction data."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.faults.hostile.attempts import Place
from tests.faults.hostile.budget import explore, few, many
from tests.faults.hostile.pictures import ENCODED, PICTURES
from tests.faults.hostile.test_rows import as_table
from tests.faults.hostile.values import PATHS, changed, one_of, scalars, spoilt, texts, to_json, values

_TURN = [{"role": "user", "content": "<image>\nWhat?"}]
_GOOD, _BAD = ([{"role": "assistant", "content": text}] for text in ("A box.", "A disc."))
PAIRS: list[dict[str, Any]] = [
    {"image": "good.png", "chosen": _TURN + _GOOD, "rejected": _TURN + _BAD, "image_corruption": True},
    {
        "conversations": [{"from": "human", "value": "<image>What?"}],
        "chosen": {"from": "gpt", "value": "A"},
        "rejected": {"from": "gpt", "value": "B"},
        "images": ["good.png"],
    },
    {"instruction": "<image>What?", "input": "", "chosen": "A", "rejected": "B", "images": ["good.png"]},
    {
        "prompt": _TURN,
        "chosen": _GOOD,
        "rejected": _BAD,
        "images": ["good.png"],
        "image_sha256": "0" * 64,
        "source": "x",
        "negative": "blur",
        "seed": 1,
    },
    {"prompt": "What?", "chosen": "A", "rejected": "B", "image": "good.png"},
]
ITEM = {
    "id": "1",
    "image": "good.png",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat?"},
        {"from": "gpt", "value": "A box."},
    ],
}
# As a table can hold them.
words = texts.map(lambda text: text.encode("utf-8", "replace").decode()[:300])
cells = st.one_of(values, one_of([*PATHS, *PICTURES]), st.lists(one_of([*PATHS, *PICTURES]), max_size=3))


@st.composite
def files(draw: st.DrawFn, rows: list[dict[str, Any]]) -> tuple[str, bytes]:
    """The name of a file, and what it holds."""
    found: list[Any] = [rows[0]] if draw(st.booleans()) else []
    pictured = draw(st.booleans())  # only images are hostile, so that rows get further
    for _ in range(draw(st.integers(1, 5))):
        row = draw(one_of(rows))
        if pictured:
            name = "images" if "images" in row else "image"
            image = draw(one_of([*PATHS, *PICTURES, "good.png", "good.png"]))
            found.append({**row, "id": draw(scalars), name: [image] if name == "images" else image})
        else:
            found.append(draw(changed(row, cells)) if draw(st.integers(0, 9)) else draw(values))
    kind = draw(st.sampled_from(["json", "jsonl", "jsonl", "parquet"]))
    lines = [to_json(row) for row in found]
    if kind == "parquet":
        data = as_table([row for row in found if isinstance(row, dict)], kind)
    elif kind == "json":
        data = f"[{','.join(lines)}]".encode()
    else:
        more = ["", "", "{", "[" * 5_000, '{"a":' * 5_000 + "1" + "}" * 5_000, "null", "1"]
        data = "\n".join([*lines, draw(st.sampled_from(more))]).encode()
    return f"given.{kind}", draw(spoilt(data)) if draw(st.integers(0, 3)) == 0 else data


def import_pairs(place: Place, made: tuple[str, bytes]) -> None:
    """Imports a file of pairs; what comes of it is what a run takes."""
    name, data = made
    (place.work / name).write_bytes(data)
    done = place.attempt("import", "pairs", name, "--output", "out/pairs.parquet", "-q", codes=(0, 2, 3))
    if done.code in (0, 3):
        plan(place, "--method", "stic_stage1", "--pairs", "out/pairs.parquet", codes=(0,))
    shutil.rmtree(place.work / "out", ignore_errors=True)
    (place.work / name).unlink()


def tune(place: Place, made: tuple[str, bytes]) -> None:
    """Plans a run on a file of instruction data."""
    name, data = made
    (place.work / name).write_bytes(data)
    plan(place, "--method", "sft", "--sft-data", name)
    (place.work / name).unlink()


@st.composite
def parquets(draw: st.DrawFn) -> bytes:
    """Files of pairs that say that they are this program's own."""
    import pyarrow as pa
    from pyarrow import parquet

    from stic_eval.training.preference_pairs import features

    def row(image: bytes) -> dict[str, Any]:
        return {
            "prompt": [{"role": "user", "content": draw(words)}],
            "chosen": [{"role": "assistant", "content": draw(words)}],
            "rejected": [{"role": "assistant", "content": draw(words)}],
            "images": [{"bytes": image, "path": None}], "image_sha256": draw(words), "source": draw(words),
            "negative": draw(words), "seed": draw(st.integers(0, 9)),
        }  # fmt: skip

    odd: dict[str, Any] = {
        "prompt": [[], None, [{"role": "system", "content": None}], [{"role": None, "content": "x"}] * 2],
        "chosen": [None, []], "images": [[], None, [None], [{"bytes": None, "path": "../secret.png"}]],
        "image_sha256": [None], "seed": [None],
    }  # fmt: skip
    rows = [row(draw(spoilt(draw(one_of(ENCODED))))) for _ in range(draw(st.integers(0, 3)))]
    for one in rows:
        if draw(st.integers(0, 5)) == 0:
            name = draw(st.sampled_from(sorted(odd)))
            one[name] = draw(one_of(odd[name]))
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows, features().arrow_schema), sink)
    data = bytes(sink.getvalue())
    return draw(spoilt(data)) if draw(st.booleans()) else data


def give_pairs(place: Place, data: bytes) -> None:
    """Plans a run on a file of pairs, and exports nothing of it."""
    (place.work / "pairs.parquet").write_bytes(data)
    plan(place, "--method", "stic_stage1", "--pairs", "pairs.parquet")
    place.attempt("import", "pairs", "pairs.parquet", "--output", "out/pairs.parquet", "-q", codes=(0, 2, 3))
    shutil.rmtree(place.work / "out", ignore_errors=True)


def plan(place: Place, *argv: str, codes: tuple[int, ...] = (0, 2)) -> None:
    """Has a run read everything and compute nothing."""
    row = {"type": "human_test", "question": "q", "answer": "1", "image": "good.png"}
    (place.work / "rows.jsonl").write_text(json.dumps(row) + "\n")
    common = ("--benchmarks", "chartqa", "-o", "rows.chartqa=rows.jsonl", "--dry-run")
    place.attempt("run", *argv, *common, codes=codes)


def test_imported_pairs(place: Place) -> None:
    explore("imported pairs", place, files(PAIRS), import_pairs, few(8))


def test_given_pairs(place: Place) -> None:
    explore("given pairs", place, parquets(), give_pairs, few(5))


def test_instruction_data(place: Place) -> None:
    explore("instruction data", place, files([ITEM]), tune, few(8))


@pytest.mark.campaign
def test_many_imported_pairs(place: Place) -> None:
    explore("imported pairs", place, files(PAIRS), import_pairs, many(800))


@pytest.mark.campaign
def test_many_given_pairs(place: Place) -> None:
    explore("given pairs", place, parquets(), give_pairs, many(400))


@pytest.mark.campaign
def test_much_instruction_data(place: Place) -> None:
    explore("instruction data", place, files([ITEM]), tune, many(800))
