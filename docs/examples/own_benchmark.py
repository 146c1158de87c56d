"""A benchmark of one's own as an object: yes-or-no questions, from rows in a file to scores and answers.

    python docs/examples/own_benchmark.py MODEL ROWS.jsonl

Every row of the file has `id`, `image` (a path beside it), `question` and `answer`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import stic_eval as se
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.evals.sources import images_of


def to_sample(row: Mapping[str, Any]) -> se.Sample:
    """A row as it is asked."""
    return se.Sample(
        id=str(row["id"]),
        images=images_of(row["image"], f"presence/{row['id']}"),
        question=f"{row['question']}\nAnswer with yes or no.",
        target=row["answer"],
    )


def score(sample: se.Sample, response: str) -> se.Score:
    """Right if the answer is the row's."""
    answer = response.strip().lower().removesuffix(".")
    return se.Score(value=float(answer == sample.target), answer=answer)


PRESENCE = se.Benchmark(
    name="presence",
    title="Presence",
    version=1,
    source=se.HubData("your-name/presence", "test"),
    to_sample=to_sample,
    generation=se.Generation(max_new_tokens=8),
    score=score,
    aggregate=summarize,
    protocol="question, yes or no asked for; accuracy",
)


def main(model: str, rows: Path) -> se.RunResult:
    """Evaluates a model on the rows of a file, and prints its table and the first answer."""
    try:
        result = se.evaluate(
            model, benchmark=PRESENCE, dar=False, options={"rows.presence": rows}, quiet=True
        )
    except se.UserError as error:
        sys.exit(f"own_benchmark: {error}")
    print(result.table)
    first: se.Record = result.records("baseline", "presence")[0]
    print(f"{first.question!r} -> {first.response!r}: {first.score}")
    return result


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
