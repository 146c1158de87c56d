"""Each question as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stic_eval.contracts.engine import VLM
from stic_eval.contracts.solver import Asking, NoOptions, Solved, Solver
from stic_eval.solvers.requests import match, question
from stic_eval.types import Sample


def solve(samples: Sequence[Sample], model: VLM, asking: Asking, options: NoOptions) -> Iterator[Solved]:
    """Asks each question as it is; yields samples in the order in which answers come."""
    asked = ((sample, question(sample, asking.generation)) for sample in samples)
    for sample, response in match(asked, model):
        yield sample, None, response


solver = Solver(name="direct", title="", suffix="", options=NoOptions, solve=solve)
