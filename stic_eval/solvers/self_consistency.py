"""Self-consistency: several sampled answers, of which the commonest counts (Wang et al., ICLR 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

from stic_eval.contracts.engine import VLM
from stic_eval.contracts.solver import Asking, Solved, Solver
from stic_eval.solvers.requests import match, request_of, with_seed
from stic_eval.types import Request, Response, Sample


class Options(BaseModel):
    """How many answers are drawn, and how.

    Attributes:
        k: Answers a sample.
        temperature: Of the draws.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    k: int = Field(default=5, ge=1)
    temperature: float = Field(default=0.7, gt=0, allow_inf_nan=False)


def solve(samples: Sequence[Sample], model: VLM, asking: Asking, options: Options) -> Iterator[Solved]:
    """Draws `k` answers a sample, each with a seed of sample and draw, and yields the first of the majority.

    What counts is the answer as the benchmark reads it, not its wording. Tokens and seconds are those of all
    draws.
    """
    drawn = replace(asking.generation, temperature=options.temperature)

    def draws() -> Iterator[tuple[tuple[Sample, int], Request]]:
        for sample in samples:
            for draw in range(options.k):
                decoding = with_seed(drawn, f"{sample.id} draw {draw}")
                yield (sample, draw), request_of(sample.question, sample.images, decoding)

    answers: dict[str, dict[int, Response]] = {}
    for (sample, draw), response in match(draws(), model):
        found = answers.setdefault(sample.id, {})
        found[draw] = response
        if len(found) == options.k:
            yield sample, None, _majority(sample, answers.pop(sample.id), asking)


def _majority(sample: Sample, draws: Mapping[int, Response], asking: Asking) -> Response:
    """The first draw with the commonest answer; of equally common ones that which was drawn first."""
    ordered = [draws[draw] for draw in sorted(draws)]
    failed = next((response for response in ordered if response.finish_reason == "failed"), None)
    if failed is not None:  # the others may be no majority: the next start asks for it again
        return failed
    votes: dict[str, list[Response]] = {}
    for response in ordered:
        answer = None if response.unclosed else asking.read(sample, response.text)
        if answer is not None:
            votes.setdefault(answer, []).append(response)
    whole = [response for response in ordered if not response.unclosed] or ordered
    best = max(votes.values(), key=len, default=whole)[0]
    tokens, seconds = sum(r.n_tokens for r in ordered), sum(r.seconds for r in ordered)
    return replace(best, n_tokens=tokens, seconds=seconds)


solver = Solver(
    name="self_consistency",
    title="SC",
    suffix="sc",
    options=Options,
    solve=solve,
    requests=lambda options: options.k,
)
