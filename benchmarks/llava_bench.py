"""LLaVA-Bench (in the wild): 60 open questions on 24 images.

A judge gives 1 to 10 points to a reference answer and to ours; the score is ours divided by the
reference's, over all questions. Rows whose caption reads `key facts: a<AND>b` need no judge: they are
graded by rule (see `stic_eval.evals.judge`). Data: Liu et al., 2023, arXiv 2304.08485.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stic_eval.evals.benchmark import Benchmark, HubData
from stic_eval.evals.judge import rule_score, unjudged
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.evals.scoring.keyfacts import parse_facts
from stic_eval.evals.sources import images_of, row_id
from stic_eval.types import Generation, Sample, Score

KEY_FACTS = "key facts:"


def to_sample(row: Mapping[str, Any]) -> Sample:
    """The bare question; the target is the reference answer."""
    name = row_id(row, "question_id")
    captions = row["caption"]
    caption = captions if isinstance(captions, str) else "\n".join(captions or ())
    meta: dict[str, Any] = {"caption": caption}
    if caption.startswith(KEY_FACTS):
        meta["key_facts"] = parse_facts(caption.removeprefix(KEY_FACTS))
    reference = row["gpt_answer_content"] if "gpt_answer_content" in row else row["gpt_answer"]
    return Sample(
        id=name,
        images=images_of(row["image"], f"llava_bench/{name}"),
        question=str(row["question"]),
        target=str(reference),
        group={"category": str(row["category"]).removeprefix("llava_bench_")},
        meta=meta,
    )


def score(sample: Sample, response: str) -> Score:
    """The share of key facts named where a row lists them; else unscored until a judge grades it."""
    facts = sample.meta.get("key_facts")
    return rule_score(response, facts) if facts else unjudged()


benchmark = Benchmark(
    name="llava_bench",
    title="LLaVA-Bench",
    version=1,
    source=HubData("lmms-lab/llava-bench-in-the-wild", "train", rows=60),
    to_sample=to_sample,
    generation=Generation(max_new_tokens=1024),
    score=score,
    aggregate=summarize,
    protocol="LLaVA-1.5: bare question; the judge's points relative to the reference answer's",
    judged=True,
    paper_column="LLaVA-Bench",
)
