"""The contract of a method: a plan of content-addressed stages, then a solver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from stic_eval.contracts.curves import Curves
from stic_eval.contracts.engine import VLM, Ask
from stic_eval.store import content_key
from stic_eval.types import ImageRef, Likelihood, Request

Prompt = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Turns = tuple[tuple[str, str], ...]
TrainingImages = Literal["as_generated", "single_tile"]  # how images are shown to a model that is trained


class PromptSet(BaseModel):
    """What STIC asks for descriptions with.

    Attributes:
        step_by_step: x_g of the paper: asks for a careful description; its answers are preferred.
        plain: P of the paper: short requests; what is trained on and asked at inference.
        misleading: P_hallu of the paper: invite what is not there; their answers are dispreferred.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    step_by_step: Prompt
    plain: Annotated[tuple[Prompt, ...], Field(min_length=1)]
    misleading: Annotated[tuple[Prompt, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class SFTItem:
    """A conversation about an image.

    Attributes:
        id: As the data has it; for people.
        turns: (role, text); starts with the user (after a system turn, if any), ends with the
            assistant. Holds no image token: the chat template puts it in front.
    """

    id: str
    image: ImageRef
    turns: Turns


def items_key(items: Iterable[SFTItem]) -> str:
    """Content key of items in their order: images by hash and turns, without ids and paths."""
    return content_key([[item.image.sha256, item.turns] for item in items])


@dataclass(frozen=True)
class Data:
    """The inputs of self-training, by content.

    Attributes:
        images: Unlabeled images in a fixed order, skipped files already left out.
        sft_items: The model's own instruction data (only items with an image), fixed order.
        images_key: Content key of `images`: of the list of their hashes.
        sft_key: Content key of `sft_items`, by `items_key`.
        prompts: The prompt set. A method puts what it uses of it into its stages' parameters, so that
            keys depend on the wording; `plan` stays pure, for the file was read before.
        pairs: Preference pairs that were made elsewhere (a file as `write_pairs` writes it): they take
            the place of the first ones that a method would make.
        pairs_key: Content hash of that file; empty without one.
        pairs_rows: How many it holds.
        separator: Between a description and what it is put in front of, in training as at inference:
            describe-and-respond's, by the run or by the method's plan.
        training_images: How images are shown to a model that is trained: `training.images` of the run.
    """

    images: tuple[ImageRef, ...]
    sft_items: tuple[SFTItem, ...]
    images_key: str
    sft_key: str
    prompts: PromptSet
    pairs: Path | None = None
    pairs_key: str = ""
    pairs_rows: int = 0
    separator: str = "\n"
    training_images: TrainingImages = "as_generated"
    _keys: dict[tuple[str, int], str] = field(default_factory=dict, init=False, compare=False, repr=False)

    def key(self, kind: Literal["images", "sft"], count: int | None = None) -> str:
        """Content key of the first so many images or items (None, or more than there are: of all).

        What lies behind them, because another method reads more, makes no difference.
        """
        whole = self.images_key if kind == "images" else self.sft_key
        if count is None or count >= len(self.images if kind == "images" else self.sft_items):
            return whole
        if (kind, count) not in self._keys:
            self._keys[kind, count] = (
                content_key([image.sha256 for image in self.images[:count]])
                if kind == "images"
                else items_key(self.sft_items[:count])
            )
        return self._keys[kind, count]


class Progress(Protocol):
    """One piece of work whose progress is shown."""

    def update(self, done: int, total: int | None = None) -> None:
        """Sets the number of items done, and their total if it has become known."""
        ...


class Report(Protocol):
    """Where a running plan tells what it does (`stic_eval.experiment.progress.Reporter`, for one)."""

    def step(self, name: str, total: int | None = None) -> AbstractContextManager[Progress]:
        """Shows a piece of work while the block runs."""
        ...

    def log(self, line: str) -> None:
        """A line for the log file."""
        ...

    def line(self, line: str) -> None:
        """A line for the log file and the terminal."""
        ...


@dataclass(frozen=True)
class StageContext:
    """What a stage's `run` may touch.

    Attributes:
        out: Folder to write into; renamed into the cache when `run` returns. Survives a kill, so
            trainers leave their checkpoints here and resume from them.
        needs: Stage name -> finished folder, one for each stage in `Stage.needs`.
        model: Gives the model in memory with an adapter folder attached (or the base for None): for
            training. Loads it if it is not loaded yet. Where several processes train, what has them do it
            (`stic_eval.training.gang.Gang`): `train_preferences` and `train_sft` take either.
        vlm: Gives a model that answers requests, with an adapter folder or as it is: for generation.
            Answers are kept as they come and never computed twice, so a stage that is started again
            just asks everything again. The model is loaded only for what was never asked before.
        likelihoods: (adapter folder or None, (request, answer) pairs) -> how likely the model holds these
            answers, in the same order. Kept like answers.
        device: What the run's settings name: `auto`, `cuda:1`. Nothing is loaded for it.
        log: Writes a line to the run's log and, with -v, to the terminal.
        progress: (name, total or None) -> a context manager that gives the `Progress` to update.
    """

    out: Path
    needs: Mapping[str, Path]
    model: Callable[[Path | None], Any]  # as the engine has it: HFModel of stic_eval.models.hf_model
    vlm: Callable[[Path | None], VLM]
    likelihoods: Callable[[Path | None, Sequence[tuple[Request, str]]], Iterator[Likelihood]]
    data: Data
    seed: int
    log: Callable[[str], None]
    progress: Callable[[str, int | None], AbstractContextManager[Progress]]
    device: str = "auto"


@dataclass(frozen=True)
class Stage:
    """A step with content-addressed output: same inputs, same key, computed once.

    Attributes:
        name: e.g. `pairs`, `preference`, `descriptions`, `infused_sft`.
        version: Bumped when the code changes what comes out.
        run: Does the work; writes into `ctx.out`.
        params: Everything that changes the output (JSON values), nothing that does not.
        needs: Stages whose output this one reads.
        reads: Which inputs enter the key: any of `images`, `sft`. A stage that takes only so many of
            them, from the front, says so by an integer parameter, `images` or `items`: the key then
            depends on these alone. Otherwise it depends on all.
        generations: How many responses it asks the model for (for the plan).
        steps: How many optimiser steps it takes (for the plan).
        rows: How many pairs it makes at most, if it makes pairs (for the plan).
        code: Functions that decide its output, beside `run`. Of those that are no part of this program the
            file's content enters the key: whoever works on a method need not think of its version.
        trains: Whether it trains on images, so that how these are shown (`Data.training_images`) enters
            the key.
        kind: What it is to a reader of reports: `pairs` (leaves pairs.parquet), `descriptions` (leaves
            descriptions.jsonl), `pair_training`, `item_training` (on instruction data), or one's own.
        curves: What is drawn of its `log.jsonl`; None: the loss, if it leaves one.
        loss: What it minimises, for people, where that is not the default.
        asks: What it asks of the model beside answers to questions; not every engine can do it.
    """

    name: str
    version: int
    run: Callable[[StageContext], None]
    params: Mapping[str, Any]
    needs: tuple[Stage, ...] = ()
    reads: tuple[Literal["images", "sft"], ...] = ()
    generations: int = 0
    steps: int = 0
    rows: int = 0
    code: tuple[Callable[..., Any], ...] = ()
    trains: bool = False
    kind: str = ""
    curves: Curves | None = None
    loss: str = ""
    asks: tuple[Ask, ...] = ()

    def takes(self, kind: Literal["images", "sft"]) -> int | None:
        """How many images or items the stage takes, from the front; None: all."""
        count = self.params.get("images" if kind == "images" else "items")
        return count if isinstance(count, int) and not isinstance(count, bool) else None


@dataclass(frozen=True)
class Plan:
    """What a method amounts to: an adapter (a stage whose folder holds `adapter/`) or none, and a solver."""

    adapter: Stage | None
    solver: str = "direct"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: Registry name, e.g. `stic`.
        title: As printed in tables, e.g. `STIC`.
        plan: (config, data) -> `Plan`. Pure.
        config: Pydantic model of its constants; unknown keys are errors.
        paper: Citation.
        notes: More about it, for `stic-eval show`: heading -> text.
        presets: Preset -> options under it, where the preset's own file has none of this method.
    """

    name: str
    title: str
    plan: Callable[[Any, Data], Plan]
    config: type[BaseModel]
    paper: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
