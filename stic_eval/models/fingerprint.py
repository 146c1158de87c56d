"""Models and adapters by content: what answers and trained stages are filed under. Never imports torch."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from stic_eval.digests import digest
from stic_eval.errors import UserError, headline
from stic_eval.models.adapter_values import check_adapter_values
from stic_eval.store import content_key, file_digests

# What decides a local model's answers: what lies beside its weights, and these with their configuration.
BESIDE = (
    "generation_config.json", "tokenizer*", "vocab*", "merges.txt", "added_tokens.json",
    "special_tokens_map.json", "*.model", "*processor*.json", "chat_template*",
    "additional_chat_templates/*", "*.py",
)  # fmt: skip
_PATTERNS = ("config.json", "*.safetensors", "*.safetensors.index.json", *BESIDE)


def local_model(model: str) -> Path | None:
    """The folder that a `--model` stands for; None for one on the hub."""
    if model == "pocket":
        # As package data, because models know nothing of the pocket world's code.
        return Path(str(files("stic_eval.pocket"))) / "model"
    path = Path(model).expanduser()
    return path if path.is_dir() else None


def model_fingerprint(model: str, revision: str | None) -> str:
    """A model by content (64 hex digits): of its files, or of the commit that a hub id comes to.

    Args:
        model: `pocket`, a folder, or a hub id.
        revision: Branch, tag or commit on the hub; means nothing for a folder.

    Raises:
        UserError: The folder holds no model, or the hub (or its local cache) does not know the id.
    """
    folder = local_model(model)
    if folder is None:
        return content_key(["hub", model, commit_of(model, revision)])
    found = sorted({path for pattern in _PATTERNS for path in folder.glob(pattern) if path.is_file()})
    if not (folder / "config.json").is_file() or not any(p.suffix == ".safetensors" for p in found):
        raise UserError(f"--model {model}: {folder} holds no config.json with weights in safetensors")
    digests = file_digests(found)
    return content_key(
        [[path.relative_to(folder).as_posix(), digest] for path, digest in zip(found, digests, strict=True)]
    )


def checkpoint_file(model: str, revision: str | None, name: str) -> Path | None:
    """A file of a checkpoint, from its folder, or the hub or its local cache; None: it has none.

    Raises:
        UserError: The hub cannot be asked for it; of `config.json` that is left to whoever loads the model.
    """
    folder = local_model(model)
    if folder is not None:
        return path if (path := folder / name).is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(model, name, revision=revision))
    except EntryNotFoundError:  # neither there nor, offline, in the cache
        return None
    except Exception as error:  # the hub's client raises a dozen kinds
        if name == "config.json":  # its fingerprint, or loading it, tells what is wrong
            return None
        raise UserError(
            f"--model {model}: {name} cannot be looked up ({headline(error)}); give a folder, or try again"
        ) from error


def adapter_fingerprint(base: str, adapter: Path | None, dtype: str = "") -> str:
    """The fingerprint of a base model with an adapter: the base's own without one.

    Args:
        adapter: PEFT folder; its `adapter_*` files count.
        dtype: As `Engine.adapter_dtype`.

    Raises:
        UserError: The folder holds no adapter, or one with values that no adapter has: nothing is ever filed
            under it.
    """
    if adapter is None:
        return base
    found = sorted(adapter.glob("adapter_*"))
    if not found:
        raise UserError(f"adapter {adapter}: holds no adapter_config.json; give a PEFT adapter folder")
    check_adapter_values(adapter, f"adapter {adapter}")
    own = [content_key([base, {"adapter_dtype": dtype}]) if dtype else base]
    return content_key([*own, *([path.name, digest(path)] for path in found)])


def commit_of(model: str, revision: str | None) -> str:
    """The commit of a hub id's revision: the hub's, or the local cache's when offline or unreachable."""
    from huggingface_hub import hf_hub_download

    try:
        config = hf_hub_download(model, "config.json", revision=revision)
    except Exception as error:  # the hub's client raises a dozen kinds
        at = f" (revision {revision})" if revision else ""
        raise UserError(
            f"--model {model}{at}: neither a folder nor found on the hub or in its local cache: "
            f"{headline(error)}"
        ) from error
    return Path(config).parent.name  # <cache>/models--x--y/snapshots/<commit>/config.json
