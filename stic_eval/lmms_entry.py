"""What lmms-eval reads behind its entry point `lmms_eval.models`.

It stands apart from `stic_eval.lmms_model`, which imports lmms-eval: whoever imported that module first would
have lmms-eval look for the manifest in the half of it that is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """What lmms-eval registers."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("stic_eval", simple_class_path="stic_eval.lmms_model.SticEval")
