"""The contract of a solver: how an answer is obtained from a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from stic_eval.contracts.engine import VLM
from stic_eval.contracts.method import PromptSet
from stic_eval.types import Generation, Response, Sample, SolverLabel

Solved = tuple[Sample, str | None, Response]  # sample, description (if one was asked for), answer


class NoOptions(BaseModel):
    """Of a solver that has nothing to choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Asking:
    """What a solver asks by, beside its own options.

    Attributes:
        generation: Decoding of the answer, as the benchmark has it.
        read: (sample, response text) -> the answer as the benchmark reads it; None: it cannot be read.
        prompts: The run's prompt set.
    """

    generation: Generation
    read: Callable[[Sample, str], str | None]
    prompts: PromptSet


@dataclass(frozen=True)
class Solver:
    """One way to obtain answers. Pure: nothing here reads the network, the environment or a file.

    Attributes:
        name: Registry name, e.g. `describe_and_respond`.
        title: What a table's row adds to the method, e.g. `DaR`; empty: nothing.
        suffix: What a row's folder and its name in commands add, e.g. `dar` in `stic+dar`; empty: nothing.
        options: What may be chosen: a frozen pydantic model that forbids extra keys and has a default for
            each.
        solve: (samples, model, asking, options) -> every sample once, with its description and answer, in
            any order. Randomness is seeded from the sample: `stic_eval.solvers.requests.with_seed`.
        version: Raised when other answers come out.
        requests: Options -> how many requests a sample takes (for the plan).
        key: (options, prompt set) -> what of both the answers depend on, in the key of an evaluation; None:
            all options.
    """

    name: str
    title: str
    suffix: str
    options: type[BaseModel]
    solve: Callable[[Sequence[Sample], VLM, Asking, Any], Iterator[Solved]]
    version: int = 1
    requests: Callable[[Any], int] = lambda options: 1
    key: Callable[[Any, PromptSet], Any] | None = None

    @property
    def label(self) -> SolverLabel:
        """How the rows of tables name it."""
        return SolverLabel(self.name, self.title, self.suffix)
