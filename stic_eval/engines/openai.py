"""A model at an OpenAI-compatible server that somebody runs.

Where `--model-id` says where its weights are, methods are trained on them in this process, and the server
loads their adapters. Else adapters are those that the server has, by its names for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from stic_eval import profiles, registry
from stic_eval.config_layers import read_preset
from stic_eval.contracts.engine import Ask, Engine, Estimate, Step
from stic_eval.documents import from_json
from stic_eval.engines.hf import HFEngine, refuse_of_vllm
from stic_eval.engines.stated_weights import notes_on_weights, weights_of
from stic_eval.errors import UserError, shorten
from stic_eval.printable import printable
from stic_eval.setting_paths import flag_of
from stic_eval.settings import RunConfig
from stic_eval.store import content_key

if TYPE_CHECKING:
    from stic_eval.engines.served import Expectations, Served
    from stic_eval.models.connection import Endpoint
    from stic_eval.models.server_model import ServerModel

# A list of models: seconds to wait for it, bytes of it that are read, and names that are shown.
_SECONDS, _BODY, _NAMED = 5.0, 1 << 20, 8
_SAID = 160  # characters of a reply that are quoted
# What says how several GPUs train, and means nothing where none does.
_OF_TRAINING = ("gpus", "nodes", "strategy")
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
        stated = server.model_id or ""
        if stated.startswith(("/", ".", "~")) and weights_of(config) is None:
            raise UserError(f"--model-id {stated}: no such folder")
        refuse_of_vllm(config)
        trains = cls.trains_in(config)
        for name in () if trains else _OF_TRAINING:
            if name in given or getattr(config, name) != RunConfig.model_fields[name].default:
                raise UserError(
                    f"{flag_of(name)}: nothing is trained here; leave it out, or say with --model-id where "
                    "the model's weights are"
                )
        for name in () if trains else _OF_LOADING:
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
    def trains_in(cls, config: RunConfig) -> bool:
        """Whether it is known where the model's weights are, and adapters have no names of the server's."""
        return weights_of(config) is not None and not config.server.adapters

    @classmethod
    def answering(cls, config: RunConfig) -> Mapping[str, Any]:
        """The server's address, or what its model is; its names for adapters; how weights here are packed."""
        server = config.server
        what = server.where if server.model_id is None else {"model": server.model_id}
        here = HFEngine.answering(config) if cls.trains_in(config) else {}
        return {"engine": [cls.name, what, server.adapters], **here}

    def __init__(self, config: RunConfig, step: Step, answered: Callable[[], bool]) -> None:
        super().__init__(config, step, answered)
        self._models: dict[str, ServerModel] = {}
        self._weights = weights_of(config)
        self.profile = profiles.in_force("none", config.conversation, config.processor)

    @cached_property
    def model(self) -> str:  # type: ignore[override]
        """The weights, where they are known; else the server's address and the model's name there."""
        return self.fingerprint() if self._weights is None else self.local.model

    @cached_property
    def local(self) -> HFEngine:
        """The same weights in this process, asked by the checkpoint's own template, as the server asks."""
        assert self._weights is not None
        own = self.config.conversation.model_copy(update={"profile": "none"})
        with_weights = {"engine": HFEngine.name, "model": self._weights, "conversation": own}
        return HFEngine(self.config.model_copy(update=with_weights), self.step, self.answered)

    @cached_property
    def served(self) -> Served:
        """What loads adapters that are trained here at the server."""
        from stic_eval.engines.served import Served

        return Served(self._endpoint(self.config.model), self.expectations, self._ask)

    @cached_property
    def expectations(self) -> Expectations:
        """What this process makes of adapters, which the server has to make of them, too."""
        from stic_eval.engines.served import Expectations

        return Expectations(self.local, self.local.answers)

    def computed_on(self, device: str, dtype: str) -> None:
        """Takes in what device and type of weights come to where adapters are trained."""
        if self._weights is not None:
            self.local.computed_on(device, dtype)

    def check(self) -> None:
        """Looks at the address, which may hold no secret."""
        from stic_eval.models.connection import check_url

        if self.config.adapters and not self.trains_in(self.config):
            raise UserError(
                "--adapter: the server loads adapters; name the one it has with --adapter-name, or say with "
                "--model-id where the model's weights are"
            )
        whole = _endpoint(self.config, self.config.model, None)
        for one in whole.each():
            check_url(one)
        if self._weights is not None:
            self.local.check()
            try:
                _ = self.local.model
            except UserError as error:
                raise UserError(str(error).replace("--model ", "--model-id ", 1)) from None

    def identity(self, adapter: Any = None) -> str:
        """Names a served model: by what it is, or by address and name; and by how it is asked.

        Where adapters are trained on its weights, by their type and packing here as well: they decide these.

        Args:
            adapter: A folder, or the server's name for one.
        """
        from stic_eval.models.fingerprint import adapter_fingerprint
        from stic_eval.models.server_model import server_fingerprint

        own, server = self.config.conversation, self.config.server
        url, stated = server.where or "", server.model_id
        folder = adapter if isinstance(adapter, Path) else None
        if stated is None:
            found = server_fingerprint(url, adapter or self.config.model, own.system_prompt or "")
        else:
            what = stated if self._weights is None else self.local.model
            what = self.local.identity() if self.trains_in(self.config) else what
            named = None if folder else adapter
            found = content_key([self.name, {"model": what, "adapter": named}, own.system_prompt or ""])
        found = content_key([found, own.stop]) if own.stop else found
        return adapter_fingerprint(found, folder)

    def answers(self, adapter: Any = None) -> ServerModel:
        """A model at the server; nothing is sent before it is asked something.

        Raises:
            UserError: The key's environment variable is not set, or holds no key; or there is no server.
            RunError: There was one, and it has gone, or has not applied an adapter that it was given.
        """
        trains = self.trains_in(self.config)
        for known in self.served.models if trains else self._models.values():
            if known.gone is not None:
                raise known.gone
        if trains:
            return self.served.answers(adapter)
        name = adapter or self.config.model
        if name not in self._models:
            self._models[name] = self._ask(self._endpoint(name))
        return self._models[name]

    likelihoods = answers

    def trainable(self, adapter: Path | None = None) -> Any:
        """The same weights in this process."""
        return self.local.trainable(adapter) if self.trains_in(self.config) else None

    def trained(self, adapter: Any) -> None:
        """Writes down what this process makes of an adapter, which the server has to make of it, too."""
        self.expectations.trained(adapter)

    def prepare(self, asks: Collection[Ask], adapters: bool) -> None:
        """Asks the server small questions, where its answers are going to be more than such."""
        from stic_eval.engines.served import check_alike

        whole = self._endpoint(self.config.model)
        if whole.others:
            check_alike([self._ask(one) for one in whole.each()])
        if self.trains_in(self.config) and (asks or adapters):
            self.served.check(asks, adapters)

    def plan_notes(self, asks: Collection[Ask], adapters: bool) -> list[str]:
        """What is done in this process."""
        return notes_on_weights(self.local, asks) if self.trains_in(self.config) else []

    def estimate(self, generations: int, steps: int) -> Estimate | None:
        """Nobody knows what a server takes."""
        return None

    def close(self) -> None:
        """Has the server forget the adapters that it has loaded for this run."""
        if "served" in self.__dict__:
            self.served.close()

    def _ask(self, endpoint: Endpoint, **more: Any) -> ServerModel:
        from stic_eval.models.server_model import ServerModel

        system, tags = self.config.conversation.system_prompt or "", self.config.thinking.more_thinking
        return ServerModel(endpoint, self.answered(), system, tags, **more)

    def _endpoint(self, name: str) -> Endpoint:
        return _endpoint(self.config, name, self._key())

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
        urls = self.config.server.base_urls
        for url in urls:
            _, names = list_models(url, self._key())
            missing = sorted(wanted - set(names or ()))
            if names and self.config.model in names and missing:
                there = ", ".join(printable(name) for name in names[:_NAMED])
                which = "the server" if len(urls) == 1 else f"the server at {url}"
                raise UserError(f"--adapter-name {missing[0]}: {which} has no such model; it has {there}")

    def described(self) -> str:
        """Who answers, in words for a log and for plans."""
        return f"{self.config.model} at {', '.join(self.config.server.base_urls)}"

    def notes(self, rows: Mapping[str, Any]) -> list[str]:
        """What a table says about who answers for a row."""
        names = ", ".join(f"{row} by {name or self.config.model}" for row, name in rows.items())
        urls = self.config.server.base_urls
        who = f"server at {urls[0]}" if len(urls) == 1 else f"servers at {', '.join(urls)}"
        return [f"Answered by the {who}{f': {names}' if names else ''}."]


def _endpoint(config: RunConfig, name: str, key: str | None) -> Endpoint:
    from stic_eval.models.connection import Endpoint

    server = config.server
    first, *others = server.base_urls or ("",)
    return Endpoint(
        first,
        name,
        api_key=key,
        timeout=server.timeout,
        attempts=server.attempts,
        concurrency=server.concurrency,
        flag="--model" if name == config.model else "--adapter-name",
        prefix="--",
        others=tuple(others),
    )


def list_models(base_url: str, key: str | None) -> tuple[str, list[str] | None]:
    """What a server answered, and what it calls its models; None if it does not say that.

    Args:
        key: Sent as a bearer token; None or empty: none.
    """
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
        return f"HTTP {reply.status_code}", [str(model["id"]) for model in from_json(data)["data"]]
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        return f"cannot be reached ({error})", None
    except (ValueError, KeyError, TypeError):
        return f"HTTP {reply.status_code}{_quoted(data)}", None


def _quoted(body: bytes) -> str:
    """What a server said, cut to a line."""
    text = shorten(" ".join(body[: 8 * _SAID].decode("utf-8", "replace").split()), _SAID)
    return f": {text}" if text else ""


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
