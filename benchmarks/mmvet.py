"""MM-Vet (test, 218 open questions): integrated capabilities.

A judge gives 0.0 to 1.0 points by the annotated answer, in which `<AND>` joins what must be named
and `<OR>` alternatives. The embedded pocket rows are graded by rule on exactly that notation; real
answers are often sentences, for which only a judge will do. Data: Yu et al., 2023, arXiv 2308.02490.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stic_eval.evals.benchmark import Benchmark, HubData
from stic_eval.evals.judge import is_pocket, rule_score, unjudged
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.evals.scoring.keyfacts import parse_facts
from stic_eval.evals.sources import images_of, row_id
from stic_eval.types import Generation, Record, Sample, Score, Summary

# The order in which the benchmark names its capabilities.
CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")


def to_sample(row: Mapping[str, Any]) -> Sample:
    """The bare question; the target is the annotated answer with its `<AND>` and `<OR>`."""
    name = row_id(row, "question_id")
    cell = row["capability"]
    tags = [tag.strip() for tag in (cell.split(",") if isinstance(cell, str) else cell)]
    order = [c for c in CAPABILITIES if c in tags] + sorted(set(tags) - set(CAPABILITIES))
    return Sample(
        id=name,
        images=images_of(row["image"], f"mmvet/{name}"),
        question=str(row["question"]),
        target=str(row["answer"]),
        group={"capability": ",".join(order), "combination": "+".join(order)},
    )


def score(sample: Sample, response: str) -> Score:
    """The share of key facts named on pocket rows; else unscored until a judge grades it."""
    return rule_score(response, parse_facts(sample.target)) if is_pocket(sample) else unjudged()


def aggregate(records: Sequence[Record]) -> Summary:
    """Mean points; a question counts under each of its capabilities and under their combination."""
    return summarize(records, several=("capability",))


benchmark = Benchmark(
    name="mmvet",
    title="MM-Vet",
    version=1,
    source=HubData("lmms-lab/MMVet", "test", revision="b310d12d0d9e765db953da28a7ef7ff43620dc83", rows=218),
    to_sample=to_sample,
    generation=Generation(max_new_tokens=1024),
    score=score,
    aggregate=aggregate,
    protocol="LLaVA-1.5: bare question; the judge's mean points",
    judged=True,
    paper_column="MM-Vet",
)
