"""A model at an OpenAI-compatible server that somebody runs, which has names of its own for adapters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from stic_eval import profiles, registry
from stic_eval.config import flag_of
from stic_eval.config_layers import read_preset
from stic_eval.contracts.engine import Engine, Step
from stic_eval.errors import UserError
from stic_eval.printable import printable
from stic_eval.settings import RunConfig
from stic_eval.store import content_key

if TYPE_CHECKING:
    from stic_eval.models.connection import Endpoint
    from stic_eval.models.server_model import ServerModel

# A list of models: seconds to wait for it, bytes of it that are read, and names that are shown.
_SECONDS, _BODY, _NAMED = 5.0, 1 << 20, 8
# What says how a model is loaded, and means nothing where a server has it.
_OF_LOADING = (
    "revision", "trust_remote_code", "device", "dtype", "batch_size", "attn", "load_in_4bit", "load_in_8bit",
    "gradient_checkpointing",
)  # fmt: skip


class OpenAIEngine(Engine):
    """A model at a server; an adapter is the server's name for it."""

    config: RunConfig

    name: ClassVar[str] = "openai"

    @classmethod
    def settled(cls, config: RunConfig, given: Mapping[str, Any], named: bool) -> RunConfig:
        """Refuses what the server decides; a preset's conversation profile is left out."""
        server = config.server
        if not server.base_url:
            raise UserError(
                "--base-url: --engine openai needs the server's address, e.g. http://localhost:8000/v1"
            )
        if not named:
            raise UserError("--model: --engine openai needs the model's name at the server")
        for name in _OF_LOADING:
            if name in given or (name.startswith("load_in") and getattr(config, name)):
                flag = flag_of(name)
                raise UserError(f"{flag}: the server decides that; leave it out with --engine openai")
        for name, model in server.adapters.items():
            method, _, seed = name.partition("@seed")
            if method not in config.methods:
                advice = registry.suggest(method, config.methods)
                raise UserError(f'--adapter-name {name}={model}: this run has no method "{method}"{advice}')
            if not model or ("@" in name and not seed.isdecimal()):
                raise UserError(f"--adapter-name {name}={model}: give METHOD=NAME, or METHOD@seed0=NAME")
        return _leave_to_server(config)

    @classmethod
    def answering(cls, config: RunConfig) -> Mapping[str, Any]:
        """The server's address, and its names for adapters."""
        return {"engine": [cls.name, config.server.base_url, config.server.adapters]}

    def __init__(self, config: RunConfig, step: Step, answered: Callable[[], bool]) -> None:
        super().__init__(config, step, answered)
        self._models: dict[str, ServerModel] = {}
        self.profile = profiles.in_force("none", config.conversation, config.processor)

    @cached_property
    def model(self) -> str:  # type: ignore[override]
        """The server's address and the model's name there."""
        return self.fingerprint()

    def check(self) -> None:
        """Looks at the address, which may hold no secret."""
        from stic_eval.models.connection import check_url

        if self.config.adapters:
            raise UserError("--adapter: the server loads adapters; name the one it has with --adapter-name")
        check_url(_endpoint(self.config, self.config.model, None))

    def identity(self, adapter: str | None = None) -> str:
        """Names a served model: by the server's address, the model's name there, and how it is asked."""
        from stic_eval.models.server_model import server_fingerprint

        own, url = self.config.conversation, self.config.server.base_url or ""
        found = server_fingerprint(url, adapter or self.config.model, own.system_prompt or "")
        return content_key([found, own.stop]) if own.stop else found

    def answers(self, adapter: str | None = None) -> ServerModel:
        """A model at the server; nothing is sent before it is asked something.

        Raises:
            UserError: The key's environment variable is not set, or holds no key; or there is no server.
            RunError: There was one, and it has gone.
        """
        from stic_eval.models.server_model import ServerModel

        for known in self._models.values():
            if known.gone is not None:
                raise known.gone
        config, name = self.config, adapter or self.config.model
        if name not in self._models:
            system = config.conversation.system_prompt or ""
            endpoint = _endpoint(config, name, self._key())
            tags = config.thinking.more_thinking
            self._models[name] = ServerModel(endpoint, self.answered(), system, tags)
        return self._models[name]

    def _key(self) -> str | None:
        variable = self.config.server.api_key_env
        key = os.environ.get(variable, "").strip() if variable else None
        if key == "":
            raise UserError(f"--api-key-env {variable}: that environment variable is not set")
        return key

    def named(self, adapters: Iterable[Any]) -> None:
        """Asks a server for its models' names, where they are looked for among others.

        Some list nothing, or not all of it: only one that lists the base model is taken at its word.
        """
        wanted = set(adapters) - {None, self.config.model}
        if not wanted:
            return
        _, names = list_models(self.config.server.base_url or "", self._key())
        missing = sorted(wanted - set(names or ()))
        if names and self.config.model in names and missing:
            there = ", ".join(printable(name) for name in names[:_NAMED])
            raise UserError(f"--adapter-name {missing[0]}: the server has no such model; it has {there}")

    def described(self) -> str:
        """Who answers, in words for a log and for plans."""
        return f"{self.config.model} at {self.config.server.base_url}"

    def notes(self, rows: Mapping[str, Any]) -> list[str]:
        """What a table says about who answers for a row."""
        names = ", ".join(f"{row} by {name or self.config.model}" for row, name in rows.items())
        return [f"Answered by the server at {self.config.server.base_url}: {names}."]


def _endpoint(config: RunConfig, name: str, key: str | None) -> Endpoint:
    from stic_eval.models.connection import Endpoint

    server = config.server
    return Endpoint(
        server.base_url or "",
        name,
        api_key=key,
        timeout=server.timeout,
        attempts=server.attempts,
        concurrency=server.concurrency,
        flag="--model" if name == config.model else "--adapter-name",
        prefix="--",
    )


def list_models(base_url: str, key: str | None) -> tuple[str, list[str] | None]:
    """What a server calls its models; None, and why, if it does not say.

    Args:
        key: Sent as a bearer token; None or empty: none.
    """
    import json

    import httpx2

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    data = b""
    try:
        url = f"{base_url.rstrip('/')}/models"
        with httpx2.stream("GET", url, headers=headers, timeout=_SECONDS) as reply:
            for chunk in reply.iter_bytes():
                data += chunk
                if len(data) > _BODY:
                    break
        return f"HTTP {reply.status_code}", [str(model["id"]) for model in json.loads(data)["data"]]
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        return f"cannot be reached ({error})", None
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"HTTP {reply.status_code}", None


def _leave_to_server(config: RunConfig) -> RunConfig:
    """The configuration of a run whose conversations and pixels are the server's, but for a system prompt.

    A preset's profile is left out: `auto` is none there.

    Raises:
        UserError: It names a profile, a template or a processor's argument, which only the server could use.
    """
    own = config.conversation
    shipped: Mapping[str, Any] = read_preset(config.preset) if config.preset else {}
    shipped = shipped.get("conversation") or {}
    flag = f"--profile {own.profile}" if own.profile not in ("auto", "none", shipped.get("profile")) else ""
    flag = flag or ("--chat-template" if own.chat_template is not None else "")
    flag = flag or next((f"-o processor.{name}" for name in config.processor), "")
    if flag:
        raise UserError(
            f"{flag}: the server writes conversations and prepares images itself; leave it out with --engine "
            "openai, which sends --system-prompt alone"
        )
    return config.model_copy(update={"conversation": own.model_copy(update={"profile": "auto"})})


engine = OpenAIEngine
