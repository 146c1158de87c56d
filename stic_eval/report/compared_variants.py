"""Which two variants are compared, of one run or of two, and what a variant is called."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stic_eval.errors import UserError
from stic_eval.registry import suggest
from stic_eval.report import runs
from stic_eval.report.table_rows import Column, EvaluatedVariant, setting
from stic_eval.types import Summary

DEFAULT = "default"  # names an ablation's default cell


@dataclass(frozen=True)
class Side:
    """One of the two: a variant of a run, with its seeds.

    Attributes:
        key: The variant, as it is named in commands, e.g. `stic+dar`.
        entries: The variant with each seed (one entry if it is not trained).
        unfinished: What of it has not been evaluated yet, in words; empty: all has.
    """

    run: Path
    key: str
    label: str
    model: str
    columns: Mapping[str, Column]
    entries: tuple[runs.Entry, ...]
    unfinished: str = ""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Training seeds; empty if it is not trained."""
        return tuple(entry.seed for entry in self.entries if entry.seed is not None)

    def summaries(self, benchmark: str) -> list[Summary]:
        """What each seed scored."""
        return [entry.summaries[benchmark] for entry in self.entries if benchmark in entry.summaries]


# ------------------------------------------------------------ what variants are called


def groups(scores: runs.Scores) -> dict[str, list[runs.Entry]]:
    """A run's variants by key, in the table's order: entries that differ by nothing but the seed together.

    A key is a folder's name without the seed. Cells that come to the same evaluation share a folder; all
    but the first of them are numbered: `...#2`.
    """
    keyed: dict[str, list[runs.Entry]] = {}
    for entries in scores.groups():
        first = entries[0]
        stem = key = first.folder if first.seed is None else first.folder.removesuffix(f"@seed{first.seed}")
        number = 1
        while key in keyed:
            number += 1
            key = f"{stem}#{number}"
        keyed[key] = entries
    return keyed


def label(entry: runs.Entry) -> str:
    """A variant as tables print it, e.g. `STIC + DaR, corruption=blur`."""
    return _variant(entry).label


def _variant(entry: runs.Entry) -> EvaluatedVariant:
    return EvaluatedVariant(entry.method, entry.title, entry.solver, (), {}, entry.settings)


def names(scores: runs.Scores) -> dict[str, str]:
    """Key of each variant -> the shortest name that a command takes for it, quoted for a shell.

    Of an ablation's cell what sets it apart: `default`, `stage1.beta=0.5`.
    """
    known = groups(scores)
    found = {}
    for key, entries in known.items():
        settings = entries[0].settings
        changed = {
            axis: value for axis, value in settings.items() if value != scores.axes.get(axis, [None])[0]
        }
        texts = [
            "+".join(f"{axis}={setting(value)}" for axis, value in some.items())
            for some in (changed, settings)
        ]
        tried = [DEFAULT, *texts] if settings else []
        found[key] = shlex.quote(
            next((text for text in tried if _keys_named(scores, known, text) == [key]), key)
        )
    return found


def pick(scores: runs.Scores, text: str, folder: Path) -> tuple[str, list[runs.Entry]]:
    """Finds a variant by any of its names.

    Args:
        text: A folder under `records/`, with the seed or without (then all seeds); a row's label in the
            table; settings that only one cell has (`corruption=blur`); or `default`, the default cell.
            Each may end in `@seed1`, for one seed.

    Returns:
        The variant's key, and its entries.

    Raises:
        UserError: There is none, or there are several; the message lists them.
    """
    known = groups(scores)
    plain, at, seed = text.rpartition("@seed")
    with_seed = bool(at) and seed.isdecimal()
    found = _keys_named(scores, known, text) or (_keys_named(scores, known, plain) if with_seed else [])
    if len(found) > 1:
        shown = names(scores)
        raise UserError(f'{folder}: "{text}" may be {" or ".join(shown[key] for key in found)}; give one')
    if not found:
        if text == DEFAULT and scores.without_default:
            axes = ", ".join(scores.without_default)
            raise UserError(f"{folder}: the grid has no default value of {axes}; name a cell: {_all(scores)}")
        close = suggest(text, [*names(scores).values(), *known])
        raise UserError(f'{folder}: no variant is called "{text}"{close} (there are {_all(scores)})')
    key = found[0]
    if not with_seed or _keys_named(scores, known, text):
        return key, known[key]
    chosen = [entry for entry in known[key] if entry.seed == int(seed)]
    if not chosen:
        seeds = ", ".join(str(entry.seed) for entry in known[key] if entry.seed is not None)
        there = f"there are {seeds}" if seeds else "it is not trained: leave @seed out"
        raise UserError(f"{folder}: {names(scores)[key]} has no seed {int(seed)} ({there})")
    return f"{key}@seed{int(seed)}", chosen


def _all(scores: runs.Scores) -> str:
    return ", ".join(names(scores).values())


def _keys_named(scores: runs.Scores, known: Mapping[str, list[runs.Entry]], text: str) -> list[str]:
    """Keys of the variants of that name, by the first kind of name that any has."""
    if text in known:
        return [text]
    wanted = text.casefold()
    firsts = {key: entries[0] for key, entries in known.items()}
    for of in (label, lambda entry: _variant(entry).name):
        if found := [key for key, entry in firsts.items() if of(entry).casefold() == wanted]:
            return found
    if wanted == DEFAULT and not scores.without_default:
        return [
            key
            for key, entry in firsts.items()
            if entry.settings
            and all(entry.settings.get(axis, values[0]) == values[0] for axis, values in scores.axes.items())
        ]
    if "=" in text:  # without a setting, words such as `stic` would be found in what is not meant
        words = _words(text)
        variants = {key: _variant(entry) for key, entry in firsts.items()}
        own = {key: " ".join([v.method, v.name, *v.settings_text()]) for key, v in variants.items()}
        return [key for key, named in own.items() if words <= _words(named)]
    return []


def _words(text: str) -> set[str]:
    """Words that labels, folders and settings consist of; numbers as numbers, so that 1 is 1.0."""
    found = set()
    for word in re.split(r"[,+\s]+", text.casefold()):
        axis, equals, value = word.partition("=")
        try:
            found.add(f"{axis}={float(value)}" if equals else word)
        except ValueError:
            found.add(word)
    return found - {""}


# ------------------------------------------------------------ the two that are compared


def choose(a: str, b: str | None, methods: Sequence[str]) -> tuple[Side, Side]:
    """Finds the two variants that a command names.

    Args:
        a: `RUN` or `RUN:VARIANT`.
        b: The same, or None: another variant of A's run.
        methods: Variants; of two runs, one for both or one for each; of one run, two, or one that is
            compared with the baseline. None: the run's method, as it answers without describing first.

    Raises:
        UserError: What is named is not there, or something has to be named.
    """
    if len(methods) > 2:
        raise UserError(f"--method: two are compared, not {len(methods)}")
    (run_a, name_a), (run_b, name_b) = _place(a), _place(a if b is None else b)
    scores_a = _load_evaluated(run_a)
    scores_b = scores_a if b is None else _load_evaluated(run_b)
    if b is None:
        given = [*([name_a] if name_a else []), *methods] or [_only(scores_a, _changed_keys(scores_a), run_a)]
        reference = [key for key, entries in groups(scores_a).items() if _is_baseline(entries[0])]
        given = [*reference[:1], *given] if len(given) == 1 else given
        if len(given) != 2:
            raise UserError(f"{a}: name two of {_all(scores_a)} with --method")
        name_a, name_b = given
    else:
        named = [*methods, *methods] if len(methods) == 1 else list(methods)
        if named and [name_a, name_b].count(None) < len(methods):
            raise UserError(f"--method {methods[-1]}: {a} and {b} say which already; give it once")
        if not named:
            named = [name_a or name_b or _common(scores_a, scores_b, run_a, run_b)] * 2
        name_a, name_b = name_a or named[0], name_b or named[-1]
    first, second = _side(scores_a, name_a, run_a), _side(scores_b, name_b, run_b)
    if first.run.resolve() == second.run.resolve() and first.entries == second.entries:
        raise UserError(f"{run_a}: {name_a} is compared with itself; name another with --method")
    return first, second


def choose_of(scores: runs.Scores, folder: Path, a: str, b: str) -> tuple[Side, Side]:
    """Two variants of results that are at hand.

    Args:
        scores: The results.
        folder: The run's, where records lie.
        a: One variant.
        b: Another one.

    Raises:
        UserError: What is named is not there, nothing has been evaluated, or the two are one.
    """
    scores = replace(scores, entries=_with_summaries(scores, folder))
    first, second = _side(scores, a, folder), _side(scores, b, folder)
    if first.entries == second.entries:
        raise UserError(f"{folder}: {a} is compared with itself; name another variant")
    return first, second


def _place(text: str) -> tuple[Path, str | None]:
    """`RUN` or `RUN:VARIANT` -> the run's folder, and the variant if one is named."""
    for at in (len(text), *(at for at in reversed(range(len(text))) if text[at] == ":")):
        try:
            return runs.find(text[:at]), text[at + 1 :] or None
        except UserError:
            continue
    run, _, name = text.rpartition(":")
    return runs.find(run or name), name  # which says that there is none


def _load_evaluated(folder: Path) -> runs.Scores:
    """A run without what has not been evaluated at all."""
    scores = runs.load(folder)
    scores.entries = _with_summaries(scores, folder)
    return scores


def _with_summaries(scores: runs.Scores, folder: Path) -> list[runs.Entry]:
    entries = [entry for entry in scores.entries if entry.summaries]
    if not entries:
        raise UserError(f"{folder}: nothing has been evaluated yet; run it again to go on")
    return entries


def _is_baseline(entry: runs.Entry) -> bool:
    return entry.method == "baseline" and entry.solver.plain and not entry.settings


def _changed_keys(scores: runs.Scores) -> list[str]:
    return [key for key, entries in groups(scores).items() if not _is_baseline(entries[0])]


def _common(one: runs.Scores, other: runs.Scores, *folders: Path) -> str:
    """The variant that two runs have in common."""
    changed = [key for key in _changed_keys(one) if key in _changed_keys(other)]
    if not changed and not _changed_keys(one) and not _changed_keys(other):
        return next(iter(groups(one)))  # nothing but baselines, e.g. of two models
    if not changed:
        there = "; ".join(
            f"{folder} has {_all(scores)}" for folder, scores in zip(folders, (one, other), strict=True)
        )
        raise UserError(
            f"these runs share no variant but the baseline; name one of each with --method, twice: {there}"
        )
    return _only(one, changed, *folders)


def _only(scores: runs.Scores, keys: Sequence[str], *folders: Path) -> str:
    """The variant that is meant where none is named: the only one, or the one that is the run's method."""
    where = " and ".join(map(str, folders))
    if len(keys) > 1:
        firsts = {key: groups(scores)[key][0] for key in keys}
        methods = [key for key, entry in firsts.items() if entry.method != "baseline"]
        plain = [key for key in methods if firsts[key].solver.plain]
        keys = plain if len(plain) == 1 else methods if len(methods) == 1 else keys
    if not keys:
        raise UserError(f"{where}: it has no two variants to compare; name them as RUN:VARIANT")
    if len(keys) > 1:
        shown = names(scores)
        raise UserError(f"{where}: choose with --method among {', '.join(shown[key] for key in keys)}")
    return keys[0]


def _side(scores: runs.Scores, name: str, folder: Path) -> Side:
    """A variant by its name; of seeds that are not finished, the ones that are furthest."""
    key, entries = pick(scores, name, folder)
    most = max(len(entry.summaries) for entry in entries)
    complete = sorted((e for e in entries if len(e.summaries) == most), key=lambda entry: entry.seed or 0)
    columns = {column.name: column for column in scores.columns}
    missing = [c.title for c in scores.columns if any(c.name not in e.summaries for e in complete)]
    left_out = [str(entry.seed) for entry in entries if len(entry.summaries) < most]
    parts = [f"not evaluated yet: {', '.join(missing)}"] if missing else []
    parts += [f"left out, as less of it is there: seed {', '.join(left_out)}"] if left_out else []
    return Side(folder, key, label(entries[0]), scores.model, columns, tuple(complete), "; ".join(parts))
