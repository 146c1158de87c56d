"""ChartQA (test, 2,500 questions: half written by people, half generated): questions on charts.

The paper's scripts have none for ChartQA; prompt and metric are lmms-eval's, which are Qwen-VL's.
Data: Masry et al., 2022, arXiv 2203.10244.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stic_eval.evals.benchmark import Benchmark, HubData
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.evals.scoring.relaxed import relaxed_match
from stic_eval.evals.sources import images_of, row_id
from stic_eval.types import Generation, Sample, Score

SUFFIX = "Answer the question with a single word."


def to_sample(row: Mapping[str, Any]) -> Sample:
    """The question; the target is the annotated answer."""
    name = row_id(row, "id", "question_id")
    return Sample(
        id=name,
        images=images_of(row["image"], f"chartqa/{name}"),
        question=f"{row['question']}\n{SUFFIX}",
        target=str(row["answer"]),
        group={"questions": str(row["type"]).removesuffix("_test")},
    )


def score(sample: Sample, response: str) -> Score:
    """Relaxed accuracy: a number within 5 %, or the same text ignoring case."""
    answer = response.strip()
    return Score(float(relaxed_match(answer, sample.target)), answer)


benchmark = Benchmark(
    name="chartqa",
    title="ChartQA",
    version=1,
    source=HubData(
        "lmms-lab/ChartQA", "test", revision="9e63b7df1592a1c2158e735cc1725454aef0d6d9", rows=2500
    ),
    to_sample=to_sample,
    generation=Generation(max_new_tokens=128),
    score=score,
    aggregate=summarize,
    protocol="question, single word asked for; relaxed accuracy (numbers within 5 %)",
    paper_column="ChartQA",
)
