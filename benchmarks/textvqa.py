"""TextVQA (validation, 5,000 questions): reading text in photographs.

Prompt as in LLaVA-1.5's `llava_textvqa_val_v051_ocr.jsonl`: the question, the OCR tokens that the
data set comes with (no such line if it has none), the request for a short answer. Metric: VQA
accuracy over ten annotators. Data: Singh et al., 2019, arXiv 1904.08920.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stic_eval.evals.benchmark import Benchmark, HubData
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.evals.scoring.vqa import evalai, vqa_accuracy
from stic_eval.evals.sources import images_of, row_id
from stic_eval.types import Generation, Sample, Score

SUFFIX = "Answer the question using a single word or phrase."


def to_sample(row: Mapping[str, Any]) -> Sample:
    """Question and OCR tokens; the target is the annotators' answers."""
    answers = tuple(str(answer) for answer in row["answers"] or ())
    if not answers:
        raise ValueError("column answers is empty (the test split has no answers)")
    tokens = row.get("ocr_tokens") or ()
    ocr = f"\nReference OCR token: {', '.join(tokens)}" if tokens else ""
    name = row_id(row, "question_id")
    return Sample(
        id=name,
        images=images_of(row["image"], f"textvqa/{name}"),
        question=f"{str(row['question']).capitalize()}{ocr}\n{SUFFIX}",
        target=answers,
    )


def score(sample: Sample, response: str) -> Score:
    """VQA accuracy of the answer in EvalAI's normal form."""
    return Score(vqa_accuracy(response, sample.target), evalai(response))


benchmark = Benchmark(
    name="textvqa",
    title="TextVQA",
    version=1,
    source=HubData(
        "lmms-lab/textvqa", "validation", revision="9c0699cd19768ac5ab97568f6b3cbac4c0062884", rows=5000
    ),
    to_sample=to_sample,
    generation=Generation(max_new_tokens=128),
    score=score,
    aggregate=summarize,
    protocol="LLaVA-1.5: question with the rows' OCR tokens, short answer asked for; VQA accuracy",
    paper_column="TextVQA",
)
