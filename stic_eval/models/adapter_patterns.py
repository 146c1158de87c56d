"""Whether the patterns of an adapter's configuration can be compared with a model's names. Without torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stic_eval.documents import from_json, read_bytes
from stic_eval.errors import UserError, quote
from stic_eval.store import content_key

_SECONDS = 20.0  # for what takes milliseconds: the machine may be busy
_REPEATS = re.compile(r"[(|*+{].*[*+{]", re.DOTALL)  # one repeat alone is soon done
_compared: set[str] = set()
# As PEFT compares them: whole names, or their ends. An invalid pattern is told when it is loaded.
_COMPARE = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    for name in names:
        try:
            re.match(rf"(.*\\.)?({pattern})$", name)
        except (re.error, OverflowError, RecursionError):
            break
"""


def check_patterns(adapter: Path, names: Sequence[str], where: str) -> None:
    """Refuses patterns for which Python would look for hours: two repeats in each other are enough.

    Nothing stops Python's `re` in this process, so that another one compares them first.

    Args:
        adapter: PEFT folder.
        names: Of the model's modules.
        where: What the message begins with.

    Raises:
        UserError: Names a pattern.
    """
    try:
        data = from_json(read_bytes(adapter / "adapter_config.json"))
    except (OSError, ValueError):
        return  # told when it is loaded
    given = sorted({one for one in _patterns(data) if _REPEATS.search(one)})
    content = content_key([given, list(names)])
    if not given or content in _compared:
        return
    command = [sys.executable, "-I", "-S", "-c", _COMPARE]
    try:
        subprocess.run(
            command, input=json.dumps([given, list(names)]).encode(), timeout=_SECONDS, check=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{where}: adapter_config.json: comparing {quote(given[0])} with the model's names takes far too "
            "long; name the modules in a list"
        ) from None
    _compared.add(content)


def _patterns(data: Any) -> Iterator[str]:
    """What PEFT compares with names: texts in these fields are patterns, keys of mappings as well."""
    if not isinstance(data, Mapping):
        return
    for field in ("target_modules", "exclude_modules"):  # names, where they are in a list
        if isinstance(data.get(field), str):
            yield data[field]
    for field in ("rank_pattern", "alpha_pattern", "layers_pattern"):
        given = data.get(field)
        parts: Iterable[Any] = [given] if isinstance(given, str) else given or ()
        if isinstance(parts, (list, Mapping)):
            yield from (part for part in parts if isinstance(part, str))
