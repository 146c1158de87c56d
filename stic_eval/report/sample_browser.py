"""A run's records as the page's browser of samples reads them: columns of numbers into tables of texts.

A benchmark has one block of rows (id, question, target, images), and one block of answers for each
evaluated entry, aligned with it. Blocks are read one at a time, there and here: a run may have millions
of answers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stic_eval.printable import printable
from stic_eval.report import fact_marks
from stic_eval.report.compared_variants import groups, label
from stic_eval.report.runs import Entry, Scores, records_of
from stic_eval.store import read_jsonl

NO_TEXT, NO_RECORD = -1, -2  # in place of the number of a text: there is none; nothing was recorded
_ROW = ("ids", "brief", "question", "target", "group", "images")
_FEW = 5  # columns that are shown side by side at first, where there are no more
_ANSWER_TEXTS = ("response", "answer", "description", "why")


@dataclass(frozen=True)
class BrowserColumn:
    """A variant as a column of the browser: what stands side by side.

    Attributes:
        key: In addresses and commands, e.g. `stic+dar`; unique in the run.
        baseline: Whether it is the one that others are compared with.
        seeds: Training seed (empty: not trained) -> the entry's folder.
    """

    key: str
    label: str
    baseline: bool
    seeds: dict[str, str] = field(default_factory=dict)


def sides(scores: Scores) -> list[BrowserColumn]:
    """The run's variants, entries that differ by nothing but the seed together, in the table's order."""
    found: list[BrowserColumn] = []
    for key, entries in groups(scores).items():
        first = entries[0]
        plain = first.method == "baseline" and first.solver.plain
        baseline = plain and not any(side.baseline for side in found)
        seeds = {"" if e.seed is None else str(e.seed): printable(e.folder) for e in entries}
        found.append(BrowserColumn(printable(key), printable(label(first)), baseline, seeds))
    return found


def opening(scores: Scores) -> tuple[str | None, list[str]]:
    """What the browser shows unless something else is chosen, by the sides' keys.

    Returns:
        What flips are of: an ablation's default cell, or a run's last method, which controls precede; None
        if there is nothing beside the baseline. And the columns, that one among them: all where they are
        few, else the baseline with that method, of an ablation with the first cells.
    """
    known = sides(scores)
    methods = [entries[0].method for entries in groups(scores).values()]
    others = [(side.key, method) for side, method in zip(known, methods, strict=True) if not side.baseline]
    cells = [other for other in others if other[1] != "baseline"] or others
    if not others:
        return None, [side.key for side in known]
    compared, main = cells[0] if scores.axes else others[-1]
    if len(known) <= _FEW:
        return compared, [side.key for side in known]
    beside = [key for key, method in cells if method == main]
    chosen = {compared, *(beside[: _FEW - 2] if scores.axes else beside[1 - _FEW :])}
    return compared, [side.key for side in known if side.baseline or side.key in chosen]


def compared_folders(sides: Sequence[BrowserColumn], compared: str | None) -> list[str]:
    """Entries that flips are between at first, with the first seed: the reference's, and the other's."""
    reference = next((side for side in sides if side.baseline), sides[0] if sides else None)
    other = next((side for side in sides if side.key == compared), None)
    return [next(iter(side.seeds.values())) for side in (reference, other) if side is not None]


def first_listed(
    benchmarks: Sequence[str], scores: Mapping[str, Sequence[Sequence[float | None]]]
) -> dict[str, str]:
    """What is listed at first: the first benchmark with rows that changed; all rows where there is none.

    Args:
        benchmarks: In the table's order.
        scores: Benchmark -> the scores of the entries that are compared, those that were evaluated.
    """
    for benchmark in benchmarks:
        both = scores.get(benchmark, ())
        pairs = zip(*both, strict=False) if len(both) == 2 else ()
        if any(None not in pair and pair[0] != pair[1] for pair in pairs):
            return {"benchmark": benchmark, "rows": "changed"}
    return {"benchmark": benchmarks[0] if benchmarks else "", "rows": "all"}


def blocks(
    folder: Path,
    benchmark: str,
    entries: Sequence[Entry],
    pictures: MutableMapping[str, int],
    known: Mapping[str, fact_marks.Truth] = MappingProxyType({}),
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields a benchmark's blocks, `rows:<benchmark>` last, for it holds the rows of all the others.

    Args:
        entries: What was evaluated; entries without records of this benchmark have no block.
        pictures: Content hash of an image -> its number on the page; new ones are added.
        known: Content hash of an image -> what there is to say of it, where that is known.

    Yields:
        Name, and columns of equal length. Texts are numbers into `strings`, or `NO_TEXT`, `NO_RECORD`.

    Raises:
        UserError: A file of records is damaged.
    """
    numbers: dict[str, int] = {}
    texts: dict[str, int] = {}
    rows: dict[str, list[Any]] = {name: [] for name in _ROW}
    for entry in entries:
        path = records_of(folder, entry, benchmark)
        mine: dict[str, int] = {}
        answers: dict[str, list[Any]] = {
            name: [] for name in (*_ANSWER_TEXTS, "judge", "score", "tokens", "facts")
        }
        for record in read_jsonl(path):
            key = _text(record.get("id"))
            if key not in numbers:
                numbers[key] = len(numbers)
                rows["ids"].append(key)
                rows["brief"].append(_number(texts, _brief(record)))
                rows["question"].append(_number(texts, record.get("question")))
                rows["target"].append(_number(texts, record.get("target")))
                rows["group"].append(_number(texts, _group(record)))
                hashes = record.get("images")
                named = [str(sha) for sha in hashes] if isinstance(hashes, list) else []
                rows["images"].append([pictures.setdefault(sha, len(pictures)) for sha in named])
            _put(answers, mine, numbers[key], record)
            answers["facts"][numbers[key]] = fact_marks.of_record(record, known)
        if answers["score"]:
            yield f"answers:{benchmark}:{printable(entry.folder)}", {**answers, "strings": list(mine)}
    yield f"rows:{benchmark}", {**rows, "strings": list(texts)}


def _put(answers: dict[str, list[Any]], texts: dict[str, int], place: int, record: Mapping[str, Any]) -> None:
    """Puts a record at its row's place; rows that this entry lacks stay without a record."""
    while len(answers["score"]) <= place:
        for name, column in answers.items():
            column.append(
                NO_RECORD if name == "response" else None if name in ("score", "facts") else NO_TEXT
            )
    for name in _ANSWER_TEXTS:
        answers[name][place] = _number(texts, record.get(name))
    answers["judge"][place] = _number(texts, _judge(record.get("judge")))
    answers["score"][place] = _share(record)
    tokens = record.get("n_tokens")
    answers["tokens"][place] = tokens if isinstance(tokens, int) else NO_TEXT


def _share(record: Mapping[str, Any]) -> float | None:
    """The score, as a share of the row's weight, that the benchmark's percentage divides by; or None."""
    score, weight = record.get("score"), record.get("weight", 1.0)
    if not isinstance(score, int | float) or not isinstance(weight, int | float) or not math.isfinite(score):
        return None
    return round(score / weight, 4) if weight > 0 and math.isfinite(weight) else None


def _brief(record: Mapping[str, Any]) -> object:
    """The bare question without the prompt around it, where the record has it: for a list of rows."""
    meta = record.get("meta")
    brief = meta.get("question") if isinstance(meta, dict) else None
    return brief if isinstance(brief, str) and brief.strip() else record.get("question")


def _group(record: Mapping[str, Any]) -> str | None:
    """Labels of a row, e.g. `subject: natural science`; of a rotation, the unit it belongs to."""
    group, meta = record.get("group"), record.get("meta")
    labels = dict(group) if isinstance(group, dict) else {}
    if isinstance(meta, dict) and meta.get("unit") not in (None, record.get("id")):
        labels["unit"] = meta["unit"]
    return " · ".join(f"{name}: {value}" for name, value in labels.items()) or None


def _judge(judge: object) -> str | None:
    """What a judge said, as text: who, then each reply; and what was noticed about the answer."""
    if not isinstance(judge, dict):
        return None
    replies = judge.get("replies")
    lines = [f"{judge.get('model', '?')} ({judge.get('protocol', '?')})"]
    lines += [f"suspect: {judge['suspect']}"] if judge.get("suspect") else []
    lines += [str(reply) for reply in replies] if isinstance(replies, list) else []
    return "\n\n".join(lines)


def _number(texts: dict[str, int], value: object) -> int:
    """The number of a text in the block's table of them."""
    if value is None:
        return NO_TEXT
    return texts.setdefault(_text(value), len(texts))


def _text(value: object) -> str:
    """A value as text without control characters; a list of ten equal answers is one answer ten times."""
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        counts = {item: value.count(item) for item in value}
        value = ", ".join(item if n == 1 else f"{item} ({n} times)" for item, n in counts.items())
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)
    return printable(value)
