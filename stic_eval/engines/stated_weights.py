"""Where the weights are that a server has: what `--model-id` states, and what is done with them here."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING

from stic_eval.contracts.engine import Ask
from stic_eval.errors import UserError
from stic_eval.settings import RunConfig

if TYPE_CHECKING:
    from stic_eval.engines.hf import HFEngine


def weights_of(config: RunConfig) -> str | None:
    """The folder or hub id of the weights that a server has; None: nobody has said where they are.

    Names of hosted models look like ids of the hub. One that is not found there is a name, unless something
    is trained or given that needs the weights: then looking it up fails later, and says so.
    """
    from stic_eval.models.fingerprint import local_model

    stated = config.server.model_id or ""
    if not stated or local_model(stated) is not None:
        return stated or None
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", stated) is None:
        return None
    needed = bool(config.adapters) or any(method != "baseline" for method in config.methods)
    return stated if needed or _is_on_hub(stated, config.revision, config.offline) else None


@cache
def _is_on_hub(model: str, revision: str | None, offline: bool | None) -> bool:
    from stic_eval import hub_access
    from stic_eval.models.fingerprint import commit_of

    with hub_access.restore_afterwards():
        hub_access.go_offline(offline)
        try:
            commit_of(model, revision)
        except UserError:
            return False
    return True


def notes_on_weights(local: HFEngine, asks: Collection[Ask]) -> list[str]:
    """What a plan says about what is done in this process beside a server."""
    found = [f"trained in this process: {local.described()}"]
    if "pixel noise" in asks:
        found.append(
            "answered in this process, by hf: questions about images with noise on the model's own input, "
            "which no server can be given"
        )
    return found
