"""The contract of a benchmark: where rows come from, what is asked, how an answer is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from stic_eval.types import Generation, Record, Sample, Score, Summary


@dataclass(frozen=True)
class HubId:
    """Where a data set lies on the Hugging Face hub, pinned.

    Attributes:
        path: Its id.
        revision: Branch, tag or commit.
    """

    path: str
    revision: str = "main"


@dataclass(frozen=True)
class HubData:
    """A data set on the Hugging Face hub, pinned.

    Attributes:
        path: Its newest id.
        split: The split that is asked.
        name: Its configuration, if it has several.
        revision: Branch, tag or commit under the newest id.
        rows: How many rows the split has, for plans; None: not known before it is downloaded.
        former: Ids that it had before, the newest first, each pinned by itself.
    """

    path: str
    split: str
    name: str | None = None
    revision: str = "main"
    rows: int | None = None
    former: tuple[HubId, ...] = ()

    @property
    def ids(self) -> tuple[HubId, ...]:
        """All ids that it can be had under, the newest first."""
        return (HubId(self.path, self.revision), *self.former)


@dataclass(frozen=True)
class FolderLayout:
    """Files in which the benchmark's authors, or LLaVA's scripts, hand it out.

    Attributes:
        name: For people: `LLaVA's eval layout`.
        files: Role -> pattern of a JSON or JSONL file below the folder, e.g. `{"questions":
            "questions.jsonl"}`. A folder has the layout if every pattern finds exactly one file.
        images: Folder of images below it.
        join: Role -> rows, in: rows of the benchmark's own schema, out. `image` is then a path
            below `images`. An object of objects comes as rows with the key under `id`.
    """

    name: str
    files: Mapping[str, str]
    images: str
    join: Callable[[Mapping[str, Sequence[Mapping[str, Any]]]], Iterable[Mapping[str, Any]]]


class Unreadable(ValueError):
    """A judge's reply from which no verdict can be read: the sample stays unscored, never 0."""


@dataclass(frozen=True)
class Grader:
    """One wording in which a judge is asked.

    Attributes:
        prompt: (sample, response) -> what the judge is asked.
        read: (sample, response, reply) -> the verdict, `open` False. Strict: raises `Unreadable` with the
            reason. The response is there to tell what the judge merely quotes.
        max_tokens: Bound on the reply.
        verdict_first: Whether the verdict stands on the first line, so that a reply which was cut at
            its bound can be read if that line is whole.
    """

    prompt: Callable[[Sample, str], str]
    read: Callable[[Sample, str, str], Score]
    max_tokens: int = 512
    verdict_first: bool = False


@dataclass(frozen=True)
class Judging:
    """How a judge decides what rules leave open.

    Attributes:
        own: This project's wording, protocol `stic-eval-1`.
        official: The benchmark's published wording, taken from the installed lmms-eval when it is used.
    """

    own: Grader
    official: Grader


@dataclass(frozen=True)
class Departure:
    """Where scoring differs, on purpose, from lmms-eval's functions.

    Attributes:
        what: What differs.
        why: Why it is right.
        example: One answer that shows it, with both verdicts.
    """

    what: str
    why: str
    example: str


@dataclass(frozen=True)
class Benchmark:
    """One benchmark under one protocol. Pure: nothing here reads the network, the environment or a file.

    Attributes:
        name: Registry name, e.g. `textvqa`.
        title: As printed in tables, e.g. `TextVQA`.
        version: Bumped whenever prompt, data or scoring changes.
        source: Where the real rows live; pocket rows come in the same schema under `name`.
        to_sample: A row of the real schema -> a `Sample` (images as `ImageRef`s). An empty id
            stands for the row's number. Raises pydantic's `ValidationError`, `KeyError`,
            `ValueError` or `TypeError` on a row that does not fit.
        generation: Decoding of the answer.
        score: (sample, response text) -> `Score`. Pure and deterministic.
        aggregate: Records -> `Summary`.
        protocol: One line naming prompt and metric, printed under tables.
        variant: Short name of the protocol and of what was changed in it, e.g. `lmms, ocr`.
        options: What may be chosen (a frozen pydantic model that forbids extra keys); None: nothing.
            A field `protocol` is what `--protocol` sets.
        vary: Options -> the benchmark under them; given with `options`.
        judged: Whether the official metric needs a judge model.
        judging: How a judge decides what `score` leaves open; None: no judge is ever asked.
        extraction: (sample, extracted answer) -> `Score`, for answers that somebody else extracted;
            None: `score` reads them like a response.
        images: Whether every row has an image.
        keep: Row -> whether it belongs to the variant (ScienceQA's part with images); None: all do.
            Of image columns it may only ask whether they are None.
        unit: Row -> name of the unit that it is scored in, for rows that only count together
            (MMBench's rotations); a limit never splits a unit. None: each row is its own.
        layouts: Other layouts than the hub's that it is handed out in.
        vlmeval: File name of VLMEvalKit's TSV, looked for in the folder `LMUData`.
        paper_column: Column name in the paper's table 1.
        rows_like: Name of the benchmark whose embedded rows, and choice of rows under a limit, it shares: of
            the one that it is a variation of. Empty: its own.
        metric: The metric in a few words, for the documentation.
        sources: Papers and code that protocol and metric come from.
        departures: Differences to lmms-eval's scoring.
        cluster: Record -> name of what it shares with others (a document, a scene): rows with one name are
            resampled and exchanged together. None: rows that share an image are one cluster.
        statistic: Records -> the score in percent, of a benchmark whose score is no `sum(value) /
            sum(weight)` of its units (a macro-F1). Pure, and a number for any choice of the rows, repeated
            ones included: differences and their intervals are made of it. None: the units' ratio.
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
    variant: str = ""
    options: type[BaseModel] | None = None
    vary: Callable[[Any], Benchmark] | None = None
    judged: bool = False
    judging: Judging | None = None
    extraction: Callable[[Sample, str], Score] | None = None
    images: bool = True
    keep: Callable[[Mapping[str, Any]], bool] | None = None
    unit: Callable[[Mapping[str, Any]], str] | None = None
    layouts: tuple[FolderLayout, ...] = ()
    vlmeval: str = ""
    paper_column: str = ""
    rows_like: str = ""
    metric: str = ""
    sources: tuple[str, ...] = ()
    departures: tuple[Departure, ...] = ()
    cluster: Callable[[Record], str] | None = None
    statistic: Callable[[Sequence[Record]], float] | None = None
