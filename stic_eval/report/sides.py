"""Which two variants are compared, of one run or of two."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stic_eval.errors import UserError
from stic_eval.registry import suggest
from stic_eval.report import runs
from stic_eval.report.tables import Column, Variant
from stic_eval.types import Summary


@dataclass(frozen=True)
class Side:
    """One of the two: a variant of a run, with its seeds.

    Attributes:
        run: The run's folder.
        key: The variant, as it is named in commands, e.g. `stic+dar`.
        label: As printed.
        model: What was evaluated.
        columns: The run's benchmarks.
        entries: The variant with each seed (one entry if it is not trained).
    """

    run: Path
    key: str
    label: str
    model: str
    columns: Mapping[str, Column]
    entries: tuple[runs.Entry, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Training seeds; empty if it is not trained."""
        return tuple(entry.seed for entry in self.entries if entry.seed is not None)

    def summaries(self, benchmark: str) -> list[Summary]:
        """What each seed scored."""
        return [entry.summaries[benchmark] for entry in self.entries if benchmark in entry.summaries]


def choose(a: str, b: str | None, methods: Sequence[str]) -> tuple[Side, Side]:
    """Finds the two variants that a command names.

    Args:
        a: `RUN` or `RUN:VARIANT`.
        b: The same, or None: another variant of A's run.
        methods: Variants; of two runs, one for both or one for each; of one run, two, or one that is
            compared with the baseline.

    Raises:
        UserError: What is named is not there, or something has to be named.
    """
    if len(methods) > 2:
        raise UserError(f"--method: two are compared, not {len(methods)}")
    (run_a, key_a), (run_b, key_b) = _place(a), _place(a if b is None else b)
    known_a, known_b = _sides(run_a), _sides(run_b)
    if b is None:
        names = [*([key_a] if key_a else []), *methods]
        if not names:
            names = [_only([key for key, side in known_a.items() if not _is_baseline(side)], run_a)]
        if len(names) == 1:
            names.insert(0, next((key for key, side in known_a.items() if _is_baseline(side)), ""))
        if len(names) != 2 or not names[0]:
            raise UserError(f"{a}: name two of {', '.join(known_a)} with --method")
        key_a, key_b = names
    else:
        both = [key for key in known_a if key in known_b]
        named = [*methods, *methods] if len(methods) == 1 else list(methods)
        free = [key for key in (key_a, key_b) if key is None]
        if named and len(free) < len(methods):
            raise UserError(f"--method {methods[-1]}: {a} and {b} say which already; give it once")
        if not named:
            given = key_a or key_b
            changed = [key for key in both if not _is_baseline(known_a[key])]
            one = given or _only(changed or both, run_a, run_b)
            named = [one, one]
        key_a, key_b = key_a or named[0], key_b or named[-1]
    first, second = _pick(known_a, key_a, run_a), _pick(known_b, key_b, run_b)
    if first.run.resolve() == second.run.resolve() and first.entries == second.entries:
        raise UserError(f"{run_a}: {key_a} is compared with itself; name another with --method")
    return first, second


def _place(text: str) -> tuple[Path, str | None]:
    """`RUN` or `RUN:VARIANT` -> the run's folder, and the variant if one is named."""
    try:
        return runs.find(text), None
    except UserError:
        run, colon, key = text.rpartition(":")
        if not colon:
            raise
        return runs.find(run), key


def _sides(folder: Path) -> dict[str, Side]:
    """The variants of a run, seeds together; of seeds that are not finished, the ones that are furthest."""
    scores = runs.load(folder)
    groups: dict[tuple[str, bool, str], list[runs.Entry]] = {}
    for entry in scores.entries:
        cell = json.dumps(entry.settings, sort_keys=True, default=str)
        groups.setdefault((entry.method, entry.dar, cell), []).append(entry)
    columns = {column.name: column for column in scores.columns}
    sides: dict[str, Side] = {}
    for entries in groups.values():
        first = entries[0]
        key = first.folder if first.seed is None else first.folder.removesuffix(f"@seed{first.seed}")
        most = max(len(entry.summaries) for entry in entries)
        kept = sorted((e for e in entries if len(e.summaries) == most), key=lambda e: e.seed or 0)
        label = Variant(first.method, first.title, first.dar, (), {}, first.settings).label
        if most:
            sides.setdefault(key, Side(folder, key, label, scores.model, columns, tuple(kept)))
    if not sides:
        raise UserError(f"{folder}: nothing has been evaluated yet; run it again to go on")
    return sides


def _is_baseline(side: Side) -> bool:
    return side.entries[0].method == "baseline" and not side.entries[0].dar


def _only(keys: Sequence[str], *folders: Path) -> str:
    where = " and ".join(map(str, folders))
    if not keys:
        raise UserError(f"{where}: there are no two variants to compare; name them as RUN:VARIANT")
    if len(keys) > 1:
        raise UserError(f"{where}: choose with --method among {', '.join(keys)}")
    return keys[0]


def _pick(sides: Mapping[str, Side], key: str, folder: Path) -> Side:
    """A variant by its key, or one of its seeds by its folder's name."""
    if key in sides:
        return sides[key]
    for side in sides.values():
        for entry in side.entries:
            if entry.folder == key:
                return replace(side, key=key, entries=(entry,))
    raise UserError(
        f'{folder}: no variant is called "{key}"{suggest(key, sides)} (there are {", ".join(sides)})'
    )
