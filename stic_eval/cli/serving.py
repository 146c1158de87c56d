"""Where answers come from: a model at a server, or one in this process; and how tables say so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stic_eval.cli import machine, plan
from stic_eval.errors import UserError
from stic_eval.printable import printable
from stic_eval.store import content_key

if TYPE_CHECKING:
    from stic_eval.cli.plan import Variant
    from stic_eval.models.api import Endpoint
    from stic_eval.models.server import ServerModel
    from stic_eval.settings import RunConfig

# A list of models: seconds to wait for it, bytes of it that are read, and names that are shown.
_SECONDS, _BODY, _NAMED = 5.0, 1 << 20, 8


def fingerprint(config: RunConfig, name: str) -> str:
    """Of a served model, by the server's address, the model's name there, and how it is asked."""
    from stic_eval.models.server import server_fingerprint

    own = config.conversation
    found = server_fingerprint(config.server.base_url or "", name, own.system_prompt or "")
    return content_key([found, own.stop]) if own.stop else found


def model(config: RunConfig, name: str, known: bool) -> ServerModel:
    """A model at the run's server; nothing is sent before it is asked something.

    Args:
        config: The run.
        name: The model's name at the server.
        known: Whether the server has answered before, in this run or an earlier one.

    Raises:
        UserError: The key's environment variable is not set, or holds no key.
    """
    from stic_eval.models.server import ServerModel

    variable = config.server.api_key_env
    key = os.environ.get(variable, "").strip() if variable else None
    if key == "":
        raise UserError(f"--api-key-env {variable}: that environment variable is not set")
    system = config.conversation.system_prompt or ""
    return ServerModel(_endpoint(config, name, key), known, system, config.thinking.more_thinking)


def check(config: RunConfig) -> None:
    """Looks at where answers are to come from: a server's address, or the device and how weights are packed.

    Raises:
        UserError: The address is none, or may hold a secret; or this machine lacks what is asked for.
    """
    from stic_eval.models.memory import check_packing
    from stic_eval.models.wire import checked_url

    if config.engine == "openai":
        checked_url(_endpoint(config, config.model, None))
        return
    machine.check_device(config.device)
    if config.quantization:
        check_packing(config.quantization)


def _endpoint(config: RunConfig, name: str, key: str | None) -> Endpoint:
    from stic_eval.models.api import Endpoint

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


def check_names(config: RunConfig, variants: Sequence[Variant]) -> None:
    """Asks a server for its models' names, where they are looked for among others.

    Some list nothing, or not all of it: only one that lists the base model is taken at its word.

    Raises:
        UserError: The server lists its models, and an adapter is none of them.
    """
    if config.engine != "openai":
        return
    wanted = {plan.served(config, variant) for variant in variants} - {config.model}
    if not wanted:
        return
    variable = config.server.api_key_env
    _, names = listed(
        config.server.base_url or "", os.environ.get(variable, "").strip() if variable else None
    )
    missing = sorted(wanted - set(names or ()))
    if names and config.model in names and missing:
        there = ", ".join(printable(name) for name in names[:_NAMED])
        raise UserError(f"--adapter-name {missing[0]}: the server has no such model; it has {there}")


def listed(base_url: str, key: str | None) -> tuple[str, list[str] | None]:
    """What a server calls its models; None, and why, if it does not say.

    Args:
        base_url: Of an OpenAI-compatible server.
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


def described(config: RunConfig, dtype: str) -> str:
    """Who answers, in words for a log."""
    if config.engine == "openai":
        return f"{config.model} at {config.server.base_url}"
    return (
        f"{config.model} in {config.quantization or dtype} on {machine.device_of(config.device)}, attention "
        f"{config.attn or 'as transformers chooses'}, batch size {config.batch_size}"
    )


def notes(config: RunConfig, variants: Sequence[Variant], dtype: str) -> list[str]:
    """What a table says about where answers come from; nothing of a model in this process in float32."""
    if config.engine == "openai":
        names: dict[str, None] = {}
        for variant in variants:
            seed = "" if variant.seed is None else f", seed {variant.seed}"
            names[f"{variant.method.title}{seed} by {plan.served(config, variant)}"] = None
        return [f"Answered by the server at {config.server.base_url}: {', '.join(names)}."]
    bits = {"4bit": "4 bits (NF4)", "8bit": "8 bits"}.get(config.quantization or "")
    if bits:
        return [f"The model's weights in {bits}, by bitsandbytes."]
    attention = f", attention {config.attn}" if config.attn else ""
    return [f"The model's weights in {dtype}{attention}."] if dtype != "float32" or attention else []
