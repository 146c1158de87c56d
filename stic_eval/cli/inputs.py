"""What a run is given: checked before anything is computed, counted where something is left out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stic_eval import registry
from stic_eval.errors import UserError

if TYPE_CHECKING:
    from stic_eval.cli.progress import Reporter
    from stic_eval.config import RunConfig
    from stic_eval.images import Skipped
    from stic_eval.selftrain.method import Data

# Any of these in config.json says that a model takes images.
_VISION_KEYS = {
    "vision_config",
    "vq_config",
    "visual",
    "mm_vision_tower",
    "image_token_id",
    "image_token_index",
}


def unwritable(folder: Path) -> str:
    """Why nothing can be written into a folder (made if missing); empty if it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"{folder} cannot be written to ({error.strerror})"


def check_model(model: str) -> None:
    """Refuses early, without importing torch, what transformers would refuse late.

    Raises:
        UserError: A folder that is missing or holds no configuration, no weights, or no model that
            takes images.
    """
    path = Path(model).expanduser()
    if model == "pocket" or (
        not path.exists() and model.count("/") <= 1 and not model.startswith((".", "/", "~"))
    ):
        return
    if not path.is_dir():
        raise UserError(f"--model {model}: no such folder")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"--model {model}: holds no config.json; give the folder of a transformers model"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"--model {model}: config.json cannot be read: {error}") from error
    if not any(path.glob("*.safetensors")):
        other = next((p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in path.glob(pattern)), None)
        found = f" ({other} is not loaded: convert it to safetensors)" if other else ""
        raise UserError(f"--model {model}: holds no weights (*.safetensors){found}")
    if not _VISION_KEYS & set(config) and not any(path.glob("*processor_config.json")):
        kind = config.get("model_type", "of unknown type")
        raise UserError(f"--model {model}: {kind} takes no images; give a vision-language model")


def check_adapter(folder: Path) -> None:
    """Refuses a folder that is no PEFT adapter in safetensors.

    Raises:
        UserError: Says what is missing.
    """
    missing = [
        name for name in ("adapter_config.json", "adapter_model.safetensors") if not (folder / name).is_file()
    ]
    if missing:
        raise UserError(f"--adapter {folder}: holds no {missing}; give a PEFT adapter folder")


@dataclass(frozen=True)
class Inputs:
    """The data of self-training, and what was left out of it."""

    data: Data
    skipped: tuple[Skipped, ...]


def needs(config: RunConfig) -> set[str]:
    """Which inputs the selected methods read: any of `images`, `sft`."""
    from stic_eval.cli.plan import stages
    from stic_eval.selftrain.method import Data

    found: set[str] = set()
    for name in config.methods:
        method = registry.methods().get(name)
        plan = method.plan(
            method.config.model_validate(config.method_options.get(name, {})), Data((), (), "", "")
        )
        for stage in stages(plan.adapter):
            found.update(stage.reads)
    return found


def describe_prompt(config: RunConfig) -> str:
    """What describe-and-respond asks first."""
    return config.dar.prompt or "Describe the image."


def load(config: RunConfig, report: Reporter) -> Inputs:
    """Reads what the selected methods need, and nothing that they do not.

    Raises:
        UserError: A method needs images or instruction data and none are given or usable.
    """
    from stic_eval.images import ImageRef, scan_images
    from stic_eval.selftrain.method import Data
    from stic_eval.store import content_key

    wanted = needs(config)
    images: Sequence[ImageRef] = ()
    if "images" in wanted and config.images is not None:
        with report.step(f"scan {config.images}") as step:
            images, skipped = scan_images(config.images, progress=step.update)
    return Inputs(Data(tuple(images), (), content_key([i.sha256 for i in images]), ""), ())
