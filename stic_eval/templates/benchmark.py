"""My benchmark: questions about images of one's own, one JSON object a line.

    {"id": "1", "image": "images/1.png", "question": "What color is it?", "answer": ["red", "dark red"]}

    stic-eval data check ./my_benchmark.py --from my_benchmark.jsonl      # what is wrong with which row
    stic-eval eval --benchmarks ./my_benchmark.py -o rows.my_benchmark=my_benchmark.jsonl
    stic-eval run --method stic --benchmarks ./my_benchmark.py,chartqa -o rows.my_benchmark=my_benchmark.jsonl

`image` is a path from the file's folder on. JSON, parquet and TSV files with these columns will do as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stic_eval.contracts.benchmark import Benchmark, HubData
from stic_eval.evals.columns import FilledText, Number, Text
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.evals.sources import images_of
from stic_eval.types import Generation, Sample, Score

SUFFIX = "Answer the question using a single word or phrase."


class Row(BaseModel):
    """A row. What does not fit is named with its line and column, before anything is asked."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # other columns may be there

    id: Number = ""  # empty: the row's number
    image: Any = None  # a reference by now: pixels are read when they are needed
    question: FilledText
    answer: tuple[str, ...] = Field(min_length=1)
    kind: Text = ""  # optional: scores are broken down by it

    @field_validator("answer", mode="before")
    @classmethod
    def _several(cls, cell: Any) -> Any:
        """One answer is as good as a list of one."""
        return cell if isinstance(cell, (list, tuple)) else [str(cell)]


def to_sample(row: Mapping[str, Any]) -> Sample:
    """What is asked, and what is right."""
    read = Row.model_validate(row)
    return Sample(
        id=read.id,
        images=images_of(read.image, f"my_benchmark/{read.id}"),
        question=f"{read.question}\n{SUFFIX}",
        target=list(read.answer),
        group={"kind": read.kind} if read.kind else {},
    )


def _plain(text: str) -> str:
    """Text without case, punctuation at its ends and articles."""
    words = text.strip().strip(".,;:!?\"'").lower().split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def score(sample: Sample, response: str) -> Score:
    """Right if the answer, or what stands behind `answer is`, is one of the accepted ones.

    Pure: a verdict depends on these two alone. `Score(None, why=...)` leaves a sample unscored; it is then
    counted and left out, and never taken for wrong.
    """
    lines = response.strip().splitlines()
    first = re.sub(r"^.*\banswer(?: is:?|:)\s+", "", lines[0], flags=re.IGNORECASE) if lines else ""
    answer = _plain(first)
    return Score(value=float(answer in map(_plain, sample.target)), answer=answer)


benchmark = Benchmark(
    name="my_benchmark",  # what -o, config files and folders of results call it
    title="My benchmark",  # what tables print
    version=1,  # bump it with every change of prompt, data or scoring: old and new scores never mix
    source=HubData("your-name/my_benchmark", "test"),  # where `--rows hub` looks, once it lies there
    to_sample=to_sample,
    generation=Generation(max_new_tokens=32),  # greedy; give a temperature and top_p to sample
    score=score,
    aggregate=summarize,  # the mean over rows, and by `group`; name another number (an F1) as `statistic`
    protocol="question, single word or phrase asked for; exact match with an accepted answer",
    images=True,  # every row has one: a row without is an error
)
