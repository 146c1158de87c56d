"""Entry points of installed packages: their order, their objects, and what went wrong in importing one."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from importlib import metadata
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stic_eval import plugins
from stic_eval.errors import headline


def is_own(point: EntryPoint) -> bool:
    """Whether it is one of this package."""
    return point.module.partition(".")[0] == "stic_eval"


def load(point: EntryPoint) -> Any:
    """Loads an entry point's object; what a plug-in prints while it is imported goes to standard error."""
    with redirect_stdout(sys.stderr):  # standard output is the command's own
        return point.load()


def roots(point: EntryPoint) -> list[Path]:
    """The file of a plug-in's module, or the folder of the package that it lies in."""
    try:
        spec = find_spec(point.module.partition(".")[0])
    except (ImportError, ValueError, AttributeError):
        return []
    if spec is None:
        return []
    places = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
    return [Path(place) for place in places if place]


def explain(error: BaseException, point: EntryPoint) -> str:
    """One line about what a plug-in's import raised, by its file rather than its package's folder."""
    own = roots(point)
    if plugins.locate(error, own) is None:
        file = getattr(sys.modules.get(point.module), "__file__", None)
        if file:  # imported, but without what the entry point names
            return f"{plugins.display_path(Path(file))}, line 1: {headline(error)}"
        return headline(error)
    return plugins.explain(error, *own)


def of_group(group: str) -> list[EntryPoint]:
    """The entry points of a group, in the order in which people see them."""
    # Definition order of pyproject.toml is lost in metadata files that sort; the order of the
    # paper's table is kept for what it has, then the alphabet.
    order = ["scienceqa", "textvqa", "chartqa", "llava_bench", "mmbench", "mmvet", "mathvista"]
    order += ["baseline", "stic", "stic_stage1", "positive_only", "sft"]
    order += ["direct", "describe_and_respond", "self_consistency", "hf", "openai"]
    order += ["seva", "sima", "csr", "rlaif_v_lite"]
    rank = {name: index for index, name in enumerate(order)}
    return sorted(metadata.entry_points(group=group), key=lambda p: (rank.get(p.name, len(rank)), p.name))
