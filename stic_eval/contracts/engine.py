"""What the rest of the program needs from a vision-language model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from stic_eval.plugin_code import foreign
from stic_eval.store import content_key
from stic_eval.types import Likelihood, Request, Response


class VLM(Protocol):
    """Answers requests. `fingerprint` names weights and adapter by content, never by path."""

    fingerprint: str

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        """Yields every request with its response, in any order, as they are finished."""
        ...


class Scorer(Protocol):
    """Tells how likely it holds answers that are given."""

    def likelihoods(
        self, asked: Iterable[tuple[Request, str]]
    ) -> Iterator[tuple[tuple[Request, str], Likelihood]]:
        """Yields every (request, answer) with its likelihood, in any order."""
        ...


# What stages may ask of a model beside answers: how likely given answers are; to go on from a reply that has
# begun; answers to images with noise on the model's own input.
Ask = Literal["likelihoods", "going on", "pixel noise"]
Step = Callable[[str], AbstractContextManager[Any]]
ProgressUpdate = Callable[[int, int | None], None]  # items done, and in all
Answering = Callable[[Iterable[Request]], Iterator[tuple[Request, Response]]]


@dataclass(frozen=True)
class Estimate:
    """What work takes, roughly.

    Attributes:
        seconds: Of time.
        memory: Bytes.
        where: By what, in words: `cpu, 4.2 M parameters`.
    """

    seconds: float
    memory: float
    where: str


class Engine(ABC):
    """What answers requests, and tells likelihoods, with a base model and any adapter.

    A class of this one is made for a run's settings. It loads nothing, and sends nothing, before it is asked
    something. An adapter is a folder that training has written; where a run trains nothing (`trains_in`), it
    is the name that the engine has for it; None is the base model.

    Attributes:
        name: Registry name.
        trains: Whether adapters are trained with its model, in this process, whatever the settings.
        dtype: The type of the weights in memory; empty: nobody knows.
        adapter_dtype: The type that adapters have while the model answers, which is in keys; empty: the one
            that they are stored in, or nobody knows.
        model: The base model's content, or what else tells it from others.
        profile: How the model is asked; None: as its checkpoint, or the engine, has it.
        loaded: Whether answers cost no further loading.
    """

    name: ClassVar[str]
    trains: ClassVar[bool] = False
    dtype: str = ""
    adapter_dtype: str = ""
    model: str = ""
    profile: Any = None  # ConversationProfile of stic_eval.profiles
    loaded: bool = False

    @classmethod
    def settled(cls, config: Any, given: Mapping[str, Any], named: bool) -> Any:
        """A run's settings as the engine takes them.

        Args:
            config: `RunConfig` of `stic_eval.settings`.
            given: Settings that were given on the command line.
            named: Whether anybody has named a model.

        Raises:
            UserError: A setting would not be acted on, or one is missing.
        """
        return config

    @classmethod
    def trains_in(cls, config: Any) -> bool:
        """Whether adapters are trained in a run with these settings, in this process."""
        return cls.trains

    @classmethod
    def answering(cls, config: Any) -> Mapping[str, Any]:
        """What of the settings decides answers beside model and type of the weights, for the run's key."""
        return {"engine": [cls.name]}

    def __init__(self, config: Any, step: Step, answered: Callable[[], bool]) -> None:
        """Takes what it answers by, and does nothing yet.

        Args:
            step: Shows a piece of work while it is done: loading, say.
            answered: Whether the model has answered before, in this run or an earlier one.
        """
        self.config, self.step, self.answered = config, step, answered

    def computed_on(self, device: str, dtype: str) -> None:  # noqa: B027  most have no weights here
        """Takes in that its weights are on other machines, and what device and type they come to there.

        Args:
            device: `cuda`, `mps` or `cpu`.
            dtype: The type of the weights in memory.
        """

    @abstractmethod
    def check(self) -> None:
        """Looks at what is given, without loading or sending anything.

        Raises:
            UserError: Something is wrong with it.
        """

    @abstractmethod
    def identity(self, adapter: Any = None) -> str:
        """The model with an adapter by content, and all of the settings that its answers depend on."""

    def fingerprint(self, adapter: Any = None) -> str:
        """What answers are kept under: the identity; of a plug-in, with the content of its file."""
        own, theirs = self.identity(adapter), foreign(type(self))
        return content_key([own, *theirs]) if theirs else own

    @abstractmethod
    def answers(self, adapter: Any = None) -> VLM:
        """The model with an adapter."""

    def likelihoods(self, adapter: Any = None) -> Scorer | None:
        """The model with an adapter as it tells likelihoods; None: it does not."""
        return None

    def trainable(self, adapter: Any = None) -> Any:
        """The model with an adapter in memory, for trainers; None: it cannot be trained here."""
        return None

    def release(self) -> None:  # noqa: B027  most hold none
        """Gives back the memory that a model takes here; it is loaded again when it is asked something."""

    def alone(self, adapter: Any = None) -> Answering | None:
        """How the model answers one request at a time, where that may come out otherwise by rounding."""
        return None

    def described(self) -> str:
        """Who answers, in words for a log and for plans."""
        return f"{self.config.model} ({self.name})"

    def named(self, adapters: Iterable[Any]) -> None:  # noqa: B027  most have nothing to look up
        """Makes sure, before hours of work, that the adapters are there that somebody else has trained.

        Raises:
            UserError: One is not.
        """

    def prepare(self, asks: Collection[Ask], adapters: bool) -> None:  # noqa: B027  most can do all of it
        """Makes sure, before hours of work, that it can do what stages are going to ask.

        Args:
            asks: Beside answers to questions.
            adapters: Whether some answer that lie in folders, trained by then or given.

        Raises:
            UserError: It cannot.
        """

    def trained(self, adapter: Any) -> None:  # noqa: B027  most have nothing to remember
        """Is told of an adapter, while the model that it was trained with may still be in memory."""

    def plan_notes(self, asks: Collection[Ask], adapters: bool) -> list[str]:
        """What a plan says about what is not asked of the engine; as `prepare` has it."""
        return []

    def close(self) -> None:  # noqa: B027  most have nothing to end
        """Ends what it has begun: servers."""

    def notes(self, rows: Mapping[str, Any]) -> list[str]:
        """What a table says about where answers come from; row -> adapter, where it trains nothing."""
        return []

    def estimate(self, generations: int, steps: int) -> Estimate | None:
        """What so many generations and optimiser steps take; None: nobody knows."""
        return None

    def size(self) -> tuple[float, float] | None:
        """Parameters of its model, and bytes of each in memory; None: nobody knows."""
        return None
