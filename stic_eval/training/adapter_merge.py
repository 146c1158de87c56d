"""A base model with an adapter's changes added to its weights, as a folder that transformers loads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from stic_eval.errors import UserError, first_line
from stic_eval.models import tower_names
from stic_eval.models.fingerprint import BESIDE, local_model
from stic_eval.models.hf_model import HFModel
from stic_eval.models.loading import wrap

_TYPES = ("float32", "bfloat16", "float16")


def merge(
    model: str,
    adapter: Path,
    out: Path,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> str:
    """Writes a merged model; gives the type of its weights.

    The base's weights are never packed for it, whatever the adapter was trained on.

    Args:
        dtype: Of the weights; `auto` is the type that the base is stored in.
        trust_remote_code: Lets transformers execute code from the model's repository.

    Raises:
        UserError: There is no such model, its weights do not fit in memory, or the adapter does not fit
            it or has values that are no numbers.
    """
    from transformers import AutoConfig

    source = str(local_model(model) or model)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # the hub's client and transformers raise a dozen kinds
        raise UserError(f"--merge: the base model {model} cannot be loaded: {first_line(error)}") from error
    dtype = _stored_dtype(config) if dtype == "auto" else dtype
    try:
        # Into the CPU's memory: nothing is computed but the sums.
        hf = HFModel.load(
            model, revision=revision, device="cpu", dtype=dtype, trust_remote_code=trust_remote_code
        )
    except UserError as error:
        message, too_large, _ = str(error).partition("; try ")
        raise UserError(f"--merge: {message}" if too_large else str(error)) from error
    try:
        merged: Any = wrap(hf.model, adapter, as_stored=True).merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise UserError(f"--merge: adapter {adapter} cannot be merged: {first_line(error)}") from error
    merged.save_pretrained(str(out), max_shard_size="5GB")
    if tower_names.is_new(out):
        tower_names.rename(out)
    for weights in out.glob("*.safetensors"):
        shutil.copymode(out / "config.json", weights)  # they are written for nobody else to read
    # Its own was replaced for decoding here; where the base has one, that is copied.
    (out / "generation_config.json").unlink(missing_ok=True)
    folder = _beside(model, revision)
    for pattern in BESIDE:  # taken over byte for byte
        for path in folder.glob(pattern):
            target = out / path.relative_to(folder)
            if path.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    return dtype


def _stored_dtype(config: Any) -> str:
    """The type that a checkpoint is stored in."""
    for part in (config, config.get_text_config()):
        name = str(getattr(part, "dtype", None)).removeprefix("torch.")
        if name in _TYPES:
            return name
    return "float32"


def _beside(model: str, revision: str | None) -> Path:
    """The folder of a model's files; of one on the hub the local copy, of small files alone."""
    folder = local_model(model)
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, revision=revision, allow_patterns=list(BESIDE)))
