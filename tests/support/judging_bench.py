"""A small benchmark whose answers only a judge can grade, in both wordings, for tests."""

from __future__ import annotations

from typing import Any

from stic_eval.contracts.benchmark import Benchmark, Grader, HubData, Judging
from stic_eval.evals.judge_replies import fence, fraction, numbers, own_verdict
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.setting_groups import JudgeConfig
from stic_eval.types import Generation, Sample, Score


def judge_settings(model: str, url: str, protocol: str = "stic-eval-1", **more: Any) -> JudgeConfig:
    """A judge at a server that asks for no key."""
    given = {"model": model, "base_url": url, "api_key_env": "", "protocol": protocol, **more}
    return JudgeConfig.model_validate(given)


def own_read(sample: Sample, response: str, reply: str) -> Score:
    (value,) = numbers(own_verdict(reply), 1, 0, 1)
    return Score(value, answer=sample.id)


OWN = Grader(lambda s, r: f"Grade {s.id}.\n{fence(r)}\nEnd with `Verdict: x`.", own_read, max_tokens=64)
OFFICIAL = Grader(lambda s, r: f"{s.id} | {r} |", lambda s, r, reply: Score(fraction(reply)), max_tokens=32)


def bench(own: Grader = OWN, official: Grader = OFFICIAL) -> Benchmark:
    return Benchmark(
        name="graded",
        title="Graded",
        version=1,
        source=HubData("nobody/graded", "test"),
        to_sample=lambda row: sample(row["id"]),
        generation=Generation(),
        score=lambda sample, text: Score(None, why="needs a judge", open=True),
        aggregate=summarize,
        protocol="graded",
        judged=True,
        judging=Judging(own, official),
    )


def sample(name: object) -> Sample:
    return Sample(str(name), (), "What is it?", "a cat")


def cases(n: int) -> list[tuple[Sample, str]]:
    return [(sample(number), f"answer {number}") for number in range(n)]
