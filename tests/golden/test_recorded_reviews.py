"""The reader of LLaVA-Bench's judge gives the score pairs that were recorded with GPT-4's reviews."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stic_eval.evals.judge_replies import score_pair

HERE = Path(__file__).parent
# Its review says `Assistant 2: 4`, the pair recorded with it 2: entered by hand, not what was written.
CONTRADICTED = 70


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.parametrize(
    "row", rows(HERE / "llava_bench_reviews.jsonl"), ids=lambda row: str(row["question_id"])
)
def test_recorded_pair(row: dict[str, Any]) -> None:
    read = list(score_pair("\n\n".join([row["first_line"], *row.get("points", ())]) + "\n\nBecause."))
    if row["question_id"] == CONTRADICTED:
        assert (read, row["scores"]) == ([10, 4], [10, 2])
    else:
        assert read == row["scores"]


def test_the_golden_file_holds_all_of_them() -> None:
    kept = rows(HERE / "llava_bench_reviews.jsonl")
    assert [row["question_id"] for row in kept] == list(range(1, 81))
    assert sum("points" in row for row in kept) == 3  # the pair is not on the first line


def test_every_recorded_review_in_full(real_data: Path) -> None:
    reviews = rows(real_data / "llava_bench" / "gpt4_reviews_bard.jsonl")
    assert len(reviews) == 80
    differing = [row["question_id"] for row in reviews if list(score_pair(row["review"])) != row["scores"]]
    assert differing == [CONTRADICTED]
