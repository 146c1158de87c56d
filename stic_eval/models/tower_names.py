"""Names of a CLIP tower's weights: as transformers 5 saves them, and as vLLM and transformers 4 know them.

transformers 5 saves `vision_tower.encoder...` and reads `vision_tower.vision_model.encoder...` as well; vLLM
reads the latter alone. So what is for both has the latter.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from stic_eval.store import read_object

_NEW = re.compile(r"(^|\.)vision_tower\.(embeddings|encoder|pre_layrnorm|post_layernorm)\b")
_INDEX = ".safetensors.index.json"


def known_to_all(name: str) -> str:
    """A weight's name as both know it."""
    return _NEW.sub(r"\1vision_tower.vision_model.\2", name)


def is_new(folder: Path) -> bool:
    """Whether a checkpoint has a CLIP tower, under the names that vLLM does not know."""
    vision: Any = read_object(folder / "config.json").get("vision_config")
    if not isinstance(vision, dict) or vision.get("model_type") != "clip_vision_model":
        return False
    return any(_NEW.search(name) for file in folder.glob("*.safetensors") for name in _names(file))


def copy_renamed(folder: Path, target: Path) -> None:
    """Writes a checkpoint's weights under the names that all know; its other files are linked to."""
    for path in folder.iterdir():
        if path.suffix == ".safetensors":
            _rename(path, target / path.name)
        elif path.name.endswith(_INDEX):
            _rename_index(path, target / path.name)
        else:
            (target / path.name).symlink_to(path.absolute())


def rename(folder: Path) -> None:
    """Gives a checkpoint's weights the names that all know, where they lie."""
    for path in folder.iterdir():
        if path.suffix == ".safetensors" or path.name.endswith(_INDEX):
            work = path.with_name(f".{path.name}.new")
            (_rename_index if path.name.endswith(_INDEX) else _rename)(path, work)
            os.replace(work, path)


def _rename(source: Path, target: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(source, framework="pt") as opened:
        weights = {known_to_all(name): opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        save_file(weights, target, metadata=opened.metadata() or {"format": "pt"})


def _rename_index(source: Path, target: Path) -> None:
    index = dict(read_object(source))
    index["weight_map"] = {known_to_all(name): file for name, file in index.get("weight_map", {}).items()}
    target.write_text(json.dumps(index, indent=2), encoding="utf-8")


def _names(file: Path) -> list[str]:
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        return list(json.loads(opened.read(size)))
