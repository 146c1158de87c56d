"""The contract of a benchmark: where rows come from, what is asked, how an answer is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stic_eval.types import Generation, Record, Sample, Score, Summary


@dataclass(frozen=True)
class HubData:
    """A data set on the Hugging Face hub, pinned.

    Attributes:
        path: Its id.
        split: The split that is asked.
        name: Its configuration, if it has several.
        revision: Branch, tag or commit.
        rows: How many rows the split has, for plans; None: not known before it is downloaded.
    """

    path: str
    split: str
    name: str | None = None
    revision: str = "main"
    rows: int | None = None


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. Pure: nothing here reads the network, the environment or a file.

    Attributes:
        name: Registry name, e.g. `textvqa`.
        title: As printed in tables, e.g. `TextVQA`.
        version: Bumped whenever prompt, data or scoring changes.
        source: Where the real rows live; pocket rows come in the same schema under `name`.
        to_sample: A row of the real schema -> a `Sample` (images as `ImageRef`s). An empty id
            stands for the row's number.
        generation: Decoding of the answer.
        score: (sample, response text) -> `Score`. Pure and deterministic.
        aggregate: Records -> `Summary`.
        protocol: One line naming prompt and metric, printed under tables.
        judged: Whether the official metric needs a judge model.
        paper_column: Column name in the paper's table 1.
        unit: Row -> name of the unit that it is scored in, for rows that only count together
            (MMBench's rotations); a limit never splits a unit. None: each row is its own.
    """

    name: str
    title: str
    version: int
    source: HubData
    to_sample: Callable[[Mapping[str, Any]], Sample]
    generation: Generation
    score: Callable[[Sample, str], Score]
    aggregate: Callable[[Sequence[Record]], Summary]
    protocol: str
    judged: bool = False
    paper_column: str = ""
    unit: Callable[[Mapping[str, Any]], str] | None = None
