"""Counts of the campaign, from which its report is made."""

from __future__ import annotations

import json
import os
from pathlib import Path


def write_counts(part: str, **counts: int | str) -> None:
    """Writes what a part of the campaign comes to, where `STIC_EVAL_CAMPAIGN` names a folder for it."""
    if folder := os.environ.get("STIC_EVAL_CAMPAIGN"):
        path = Path(folder) / "campaign" / f"{part.replace(' ', '-').replace(':', '')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"part": part, **counts}, indent=1) + "\n")
