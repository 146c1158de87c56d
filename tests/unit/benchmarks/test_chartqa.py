"""ChartQA: rows of every layout, the published metric and the strict one."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError
from stic_eval.benchmarks.chartqa import Options, benchmark, vary

from stic_eval.benchmark_protocols import protocols, with_options
from stic_eval.errors import UserError
from stic_eval.evals.row_faults import faults
from stic_eval.evals.sources import samples
from stic_eval.types import Record, Sample, Score

ROW: dict[str, Any] = {
    "type": "human_test", "question": "How many bars?", "answer": "14", "image": Image.new("RGB", (8, 6))
}  # fmt: skip


def sample(**changes: Any) -> Sample:
    return benchmark.to_sample({**ROW, **changes})


def fault(row: Mapping[str, Any]) -> str:
    with pytest.raises(ValidationError) as raised:
        benchmark.to_sample(row)
    return str(faults(raised.value)[0])


# ---------------------------------------------------------------- variants


def test_variants_are_named_and_share_prompt_and_decoding() -> None:
    strict = with_options(benchmark, {"strict": True})
    assert protocols(benchmark) == ("lmms",)
    assert (benchmark.variant, strict.variant) == ("lmms", "lmms, strict")
    assert benchmark.protocol != strict.protocol
    assert strict.to_sample(ROW) == sample()
    assert strict.generation == benchmark.generation
    assert sample().question == "How many bars?\nAnswer the question with a single word."
    with pytest.raises(UserError, match=r"benchmarks\.chartqa\.protocol 'llava'"):
        with_options(benchmark, {"protocol": "llava"})


@pytest.mark.parametrize(
    ("response", "target", "published", "strict"),
    [
        (" 14.5\n", "14", 1, 1),
        ("45%", "45", 0, 1),
        ("45%", "0.45", 1, 0),
        ("1,000", "1000", 0, 1),
        ("0.0", "0", 0, 1),
        ("0.1", "0", 0, 0),
        ("yes", "Yes ", 1, 1),
        ("5 km", "5 miles", 0, 0),
    ],
)
def test_both_metrics(response: str, target: str, published: float, strict: float) -> None:
    made = sample(answer=target)
    assert benchmark.score(made, response) == Score(published, response.strip())
    assert vary(Options(strict=True)).score(made, response) == Score(strict, response.strip())


def test_the_breakdown_is_by_kind_of_question() -> None:
    made = [sample(type=kind) for kind in ("human_test", "augmented_test", "augmented_test")]
    records = [
        Record(str(i), "", (), "14", one.group, None, "", None, value, 1.0, None, 0.0, 0)
        for i, (one, value) in enumerate(zip(made, (0.0, 1.0, 0.0), strict=True))
    ]
    summary = benchmark.aggregate(records)
    assert summary.score == pytest.approx(100 / 3)
    assert summary.breakdown == {"questions/human": 0, "questions/augmented": 50}


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": ""}, 'column "question" is empty'),
        ({"question": ["x"]}, "column \"question\": input should be a valid string, not ['x']"),
        ({"answer": ""}, 'column "answer" is empty'),
        ({"answer": None}, 'column "answer" is empty'),
        ({"answer": ["a", "b"]}, 'column "answer": input should be a valid string'),
        ({"type": "val"}, "column \"type\" is 'val'; human_test and augmented_test are known"),
        ({"type": 1}, 'column "type": input should be a valid string, not 1'),
    ],
)
def test_a_row_that_does_not_fit_names_the_column(changes: dict[str, Any], message: str) -> None:
    assert fault({**ROW, **changes}).startswith(message)


@pytest.mark.parametrize("column", ["type", "question", "answer"])
def test_a_missing_column_is_named(column: str) -> None:
    row = {name: cell for name, cell in ROW.items() if name != column}
    assert fault(row) == f'column "{column}" is missing'


@pytest.mark.parametrize(
    ("cell", "target"),
    [
        (14, "14"), ("14", "14"), (["14"], "14"), ("['14']", "14"), ("[14]", "[14]"), ("['a", "['a"),
        ("['a', 'b']", "['a', 'b']"), ("[Red, Blue]", "[Red, Blue]"),
    ],
)  # fmt: skip
def test_answers_may_come_as_a_list_of_one(cell: Any, target: str) -> None:
    assert sample(answer=cell).target == target


@pytest.mark.parametrize("prefix", ["test", "ChartQA Dataset/test"])
def test_the_authors_files_are_read_in_the_hubs_order(prefix: str, tmp_path: Path) -> None:
    folder = tmp_path / prefix
    (folder / "png").mkdir(parents=True)
    for level, half in enumerate(("human", "augmented")):
        Image.new("RGB", (8, 6), (9 * level, 0, 0)).save(folder / "png" / f"{half}.png")
        row = {"imgname": f"{half}.png", "query": f"Which {half}?", "label": "14"}
        (folder / f"test_{half}.json").write_text(json.dumps([row]))
    found = samples(benchmark, tmp_path)
    assert [(one.question.split("\n")[0], one.group["questions"]) for one in found] == [
        ("Which human?", "human"), ("Which augmented?", "augmented")
    ]  # fmt: skip
    assert [one.images[0].load().getpixel((0, 0))[0] for one in found] == [0, 9]
    assert [one.id for one in found] == ["0", "1"]
    (folder / "test_augmented.json").write_text('[{"imgname": "a.png", "label": "1"}]')
    with pytest.raises(UserError, match=r'cannot be joined: column "query" is missing'):
        samples(benchmark, tmp_path)


def test_vlmevalkits_tsv(tmp_path: Path) -> None:
    rows = [
        {"index": "3", "question": "Which?", "answer": "14", "split": "test_human"},
        {"index": "4", "question": "What?", "answer": "['57%']", "split": "test_augmented"},
    ]
    with (tmp_path / benchmark.vlmeval).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    found = samples(benchmark, tmp_path / benchmark.vlmeval, images=False)
    assert [(one.id, one.target, one.group["questions"]) for one in found] == [
        ("3", "14", "human"), ("4", "57%", "augmented")
    ]  # fmt: skip
