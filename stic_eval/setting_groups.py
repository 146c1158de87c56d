"""Groups of a run's settings: how it trains, who judges, which server is asked, what a model thinks."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from stic_eval.contracts.method import TrainingImages
from stic_eval.thinking_tags import ANSWER, THINKING, TagPair


def _is_a_name(value: str) -> str:
    """Refuses what can only be the key itself, before it is written anywhere."""
    if value and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError("give the name of an environment variable that holds the key, not the key")
    return value


_Variable = Annotated[str, AfterValidator(_is_a_name)]


class TrainingConfig(BaseModel):
    """What holds for all training of a run, whatever the method.

    Attributes:
        images: How images are shown to a model that is trained: `as_generated`, as its processor gives them
            when it answers; `single_tile`, as LLaVA's and STIC's trainers do: padded to a square with the
            processor's mean colour and resized to one tile, with one feature a patch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    images: TrainingImages = "as_generated"


class JudgeConfig(BaseModel):
    """Who grades what rules leave open, and how it is reached.

    Attributes:
        model: Its name at the server; None: no judge.
        base_url: Of an OpenAI-compatible server, up to and without `/chat/completions`.
        api_key_env: Environment variable that holds the key; it is read when a request is sent and
            never written anywhere.
        protocol: `official` asks in the benchmarks' published words, which the installed lmms-eval
            brings; `stic-eval-1` in this project's; `auto` is official where lmms-eval is installed.
        samples: Replies a sample: their mean counts, their spread is recorded.
        max_requests: Cap on requests that are sent in a run, repetitions included; None: none.
        concurrency: Requests in flight.
        timeout: Seconds for one request, from sending to the end of its reply.
        attempts: Times that a request is sent before it counts as failed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: str | None = None
    base_url: str = "https://api.openai.com/v1"
    api_key_env: _Variable = "OPENAI_API_KEY"
    protocol: Literal["auto", "official", "stic-eval-1"] = "auto"
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    max_requests: int | None = Field(default=None, ge=0)
    concurrency: int = Field(default=8, ge=1, le=512)
    timeout: float = Field(default=60.0, gt=0)
    attempts: int = Field(default=6, ge=1)

    @property
    def grading(self) -> dict[str, Any]:
        """The settings that decide verdicts; empty without a judge."""
        names = ("model", "protocol", "samples", "temperature")
        return {name: getattr(self, name) for name in names} if self.model else {}


class ServerConfig(BaseModel):
    """Where the engine `openai` asks, what the engine `vllm` starts, and how patiently they are asked.

    Attributes:
        base_url: Of an OpenAI-compatible server, up to and without `/chat/completions`; of several that are
            one model with commas between.
        model_id: What the server's model is: `pocket`, a folder or a hub id of its weights, on which adapters
            are then trained here; or any other text. Answers count as this model's, wherever it is served.
        api_key_env: Environment variable that holds the key; it is read when a request is sent and
            never written anywhere. Empty: the server asks for none.
        adapters: Method, or `<method>@seed<seed>`, -> the model name under which the server has its adapter.
        command: What starts a server for the engine `vllm`, to which model and flags are appended; None: the
            `vllm` that is found, with `serve`.
        tensor_parallel: GPUs that a server of the engine `vllm` splits the model over.
        concurrency: Requests in flight, for each server.
        timeout: Seconds for one request, from sending to the end of its reply.
        attempts: Times that a request is sent before it counts as failed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    base_url: str | None = None
    model_id: str | None = None
    api_key_env: _Variable = ""
    adapters: dict[str, str] = Field(default_factory=dict)
    command: str | None = None
    tensor_parallel: int = Field(default=1, ge=1)
    concurrency: int = Field(default=16, ge=1, le=512)
    timeout: float = Field(default=300.0, gt=0)
    attempts: int = Field(default=6, ge=1)

    @field_validator("base_url", mode="before")
    @classmethod
    def _without_slashes(cls, value: object) -> object:
        several = value.split(",") if isinstance(value, str) else value
        if not isinstance(several, (list, tuple)) or not all(isinstance(one, str) for one in several):
            return value
        return ",".join(dict.fromkeys(one.strip().rstrip("/") for one in several if one.strip())) or None

    @property
    def base_urls(self) -> tuple[str, ...]:
        """The addresses."""
        return tuple((self.base_url or "").split(",")) if self.base_url else ()

    @property
    def where(self) -> str | None:
        """The addresses as keys have them, in whatever order they were given; None: there is none."""
        return ",".join(sorted(self.base_urls)) or None


class ThinkingConfig(BaseModel):
    """How what a model thinks is told from what it answers, and what room it has for it.

    Attributes:
        tags: Pairs of tags around what is thought; none: all that a model writes is its answer.
        answer_tags: Pairs of tags around the answer. Where one such pair stands in it, what is between is the
            answer; of several the tags alone are taken away.
        opened: Every prompt ends with an opening tag, so that an answer without any tag is cut thinking. A
            model in this process shows that itself, and of a server it is concluded from answers that only
            close a tag.
        max_new_tokens: Added to the bound on the tokens of every answer; there is one bound for both.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    tags: tuple[TagPair, ...] = THINKING
    answer_tags: tuple[TagPair, ...] = ANSWER
    opened: bool = False
    max_new_tokens: int = Field(default=0, ge=0)

    @field_validator("tags", "answer_tags")
    @classmethod
    def _check_tags(cls, value: tuple[TagPair, ...]) -> tuple[TagPair, ...]:
        for open_, close in value:
            if not open_.strip() or not close.strip() or open_ == close:
                raise ValueError("a pair is two different tags, e.g. [<think>, </think>]")
        return value

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that differ from the defaults."""
        fresh = ThinkingConfig().model_dump(mode="json")
        return {name: value for name, value in self.model_dump(mode="json").items() if value != fresh[name]}

    @property
    def more_tags(self) -> tuple[TagPair, ...]:
        """Tags that are no known ones."""
        return (*self.more_thinking, *self.more_answer)

    @property
    def more_thinking(self) -> tuple[TagPair, ...]:
        """Tags of what is thought that are no known ones."""
        return tuple(pair for pair in self.tags if pair not in (*THINKING, *ANSWER))

    @property
    def more_answer(self) -> tuple[TagPair, ...]:
        """Tags around answers that are no known ones."""
        return tuple(pair for pair in self.answer_tags if pair not in (*THINKING, *ANSWER))
