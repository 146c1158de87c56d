"""Preference pairs of a run, read from the cache of stages that it was trained in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stic_eval.errors import UserError, first_line
from stic_eval.images import CORRUPTIONS, corrupt, load_bytes
from stic_eval.printable import printable
from stic_eval.report.runs import Scores
from stic_eval.report.table_rows import setting
from stic_eval.stage_store import StageStore
from stic_eval.types import ImageRef

_COLUMNS = ["prompt", "chosen", "rejected", "images", "image_sha256", "source", "negative", "seed"]


@dataclass(frozen=True)
class PairExample:
    """One pair.

    Attributes:
        prompt: What is trained on beside the image.
        negative: How the dispreferred answer was got: `misleading`, or a kind of corruption.
        image: The clean one, which is trained on.
        spoilt: What the dispreferred answer describes; None where that is the clean image, or where a
            plug-in spoilt it, which is not executed for a report.
    """

    prompt: str
    chosen: str
    rejected: str
    negative: str
    source: str
    image: ImageRef
    spoilt: ImageRef | None


@dataclass(frozen=True)
class PairSet:
    """The first pairs of one stage.

    Attributes:
        label: Seed, round, and the methods that learnt from them.
    """

    label: str
    total: int
    pairs: tuple[PairExample, ...]


def read(scores: Scores, stages: Path, n: int) -> tuple[list[PairSet], list[str]]:
    """Reads the first pairs of every stage of pairs that a run's adapters came from.

    Args:
        stages: The cache's folder of finished stages.

    Returns:
        What there is, and lines on the stages that are not in this cache or cannot be read.
    """
    found: list[PairSet] = []
    missing: list[str] = []
    elsewhere: list[str] = []
    for (name, key), label in _stage_labels(scores).items():
        path = stages / f"{name}-{key[:16]}" / "pairs.parquet"
        if StageStore(stages).first_damaged(name, key):
            missing.append(f"{label}: {path} does not match what was trained on; run it again.")
            continue
        try:
            found.append(_read_pairs(path, label, n))
        except FileNotFoundError:
            elsewhere.append(label)
        except (OSError, ValueError, KeyError, TypeError, IndexError, UserError) as error:
            missing.append(f"{label}: {path} cannot be read ({first_line(error)}).")
    if elsewhere:
        missing.append(f"Pairs that are not in this cache ({stages}): {_few(elsewhere, '; ')}.")
    return found, missing


def _stage_labels(scores: Scores) -> dict[tuple[str, str], str]:
    """Name and key of each stage of pairs -> whose it is."""
    users: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for entry in scores.entries:
        keys = [(stage.name, stage.key) for stage in entry.stages if stage.kind == "pairs"]
        for number, key in enumerate(keys, start=1):
            when = f"seed {entry.seed}" + (f", round {number}" if len(keys) > 1 else "")
            own = [(axis, value) for axis, value in entry.settings.items() if axis != "dar"]  # not trained on
            cell = ", ".join(f"{axis}={setting(value)}" for axis, value in own)
            title = f"{entry.title} ({cell})" if cell else entry.title
            titles = users.setdefault(key, (when, []))[1]
            if title not in titles:
                titles.append(title)
    return {key: printable(f"{when}: {_few(titles)}") for key, (when, titles) in users.items()}


def _few(titles: list[str], between: str = ", ") -> str:
    return between.join(titles[:3]) + (f" and {len(titles) - 3} more" if len(titles) > 3 else "")


def _read_pairs(path: Path, label: str, n: int) -> PairSet:
    import pyarrow.parquet as pq

    # Opened here: what pyarrow makes of a missing file depends on its version.
    with open(path, "rb") as file, pq.ParquetFile(file) as table:
        batches = table.iter_batches(batch_size=max(1, n), columns=_COLUMNS)
        rows = next(batches).to_pylist() if n and table.metadata.num_rows else []
        return PairSet(label, table.metadata.num_rows, tuple(_pair(row) for row in rows[:n]))


def _pair(row: dict[str, Any]) -> PairExample:
    data, source, negative = row["images"][0]["bytes"], str(row["source"]), str(row["negative"])
    # The corruption's draws depend on the hash that the image had then, not on the bytes' that are kept.
    image = ImageRef(str(row["image_sha256"]), source, partial(load_bytes, data, source))
    spoilt = corrupt(image, negative, int(row["seed"])) if negative in CORRUPTIONS else None
    prompt, chosen, rejected = (printable(row[name][-1]["content"]) for name in _COLUMNS[:3])
    return PairExample(prompt, chosen, rejected, printable(negative), printable(source), image, spoilt)
