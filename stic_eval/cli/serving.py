"""Where answers come from: a model at a server, or one in this process; and how tables say so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stic_eval.cli import machine, plan
from stic_eval.errors import UserError

if TYPE_CHECKING:
    from stic_eval.cli.plan import Variant
    from stic_eval.models.api import Endpoint
    from stic_eval.models.server import ServerModel
    from stic_eval.settings import RunConfig


def fingerprint(config: RunConfig, name: str) -> str:
    """Of a served model, by the server's address and the model's name there."""
    from stic_eval.models.server import server_fingerprint

    return server_fingerprint(config.server.base_url or "", name)


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
    return ServerModel(_endpoint(config, name, key), known)


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


def notes(config: RunConfig, variants: Sequence[Variant]) -> list[str]:
    """What a table says about where answers come from; nothing of a model in this process as it is."""
    if config.engine == "openai":
        names: dict[str, None] = {}
        for variant in variants:
            seed = "" if variant.seed is None else f", seed {variant.seed}"
            names[f"{variant.method.title}{seed} by {plan.served(config, variant)}"] = None
        return [f"Answered by the server at {config.server.base_url}: {', '.join(names)}."]
    bits = {"4bit": "4 bits (NF4)", "8bit": "8 bits"}.get(config.quantization or "")
    return [f"The model's weights in {bits}, by bitsandbytes."] if bits else []
