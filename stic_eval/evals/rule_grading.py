"""Grading of open answers.

LLaVA-Bench and MM-Vet are graded by a judge model. Without one, the embedded pocket rows are graded
by an exact rule on their key facts, which every verdict and the tables name `rule`; any other row
stays unscored, because no rule can stand in for the judge.
"""

from __future__ import annotations

from stic_eval.evals.scoring.keyfacts import Facts, named_facts
from stic_eval.types import Sample, Score

_RULE = "rule: "
RULE_NOTE = "graded by exact rule on key facts, no judge"


def rules_decide(sample: Sample) -> bool:
    """Whether the sample is one of the embedded rows, for which rules are the last word."""
    return sample.meta.get("rows") == "pocket"


def rule_score(response: str, facts: Facts) -> Score:
    """The share of key facts that the answer names: whole words, of the right subject, not negated."""
    found = named_facts(response, facts)
    return Score(
        value=len(found) / len(facts),
        answer=", ".join(found) or None,
        why=f"{_RULE}{len(found)} of {len(facts)} key facts named",
    )


def open_score() -> Score:
    """The verdict on an answer that only a judge can grade, as long as none is configured."""
    return Score(value=None, why="needs a judge (--judge MODEL)", open=True)
