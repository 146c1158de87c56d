"""From records to a benchmark's summary."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from stic_eval.types import Record, Summary

_Pair = tuple[float, float]  # value, weight
ROUNDING = 0.05  # points by which a score may be rounded: what is printed has one decimal


def percent(pairs: Iterable[_Pair]) -> float | None:
    """`100 * sum(value) / sum(weight)`; None without any weight."""
    value = weight = 0.0
    for v, w in pairs:
        value += v
        weight += w
    return 100 * value / weight if weight else None


def odd(summary: Summary) -> str | None:
    """Why a score is not what its units say, where it should be; None: it is.

    Differences are made of units: were the score anything else, a table would show two numbers of one name.
    """
    if summary.resampled is not None:
        return None
    score, units = summary.score, percent(summary.units.values())
    if (score is None) == (units is None) and (
        score is None or units is None or abs(score - units) <= ROUNDING + 1e-9
    ):
        return None
    texts = ["none" if value is None else f"{value:.2f}" for value in (score, units)]
    return (
        f"its score ({texts[0]}) is not what its rows come to ({texts[1]}), of which differences are made; "
        "name what computes it (`statistic` of a Benchmark), or make it their mean"
    )


def _labels(record: Record, several: Collection[str]) -> Iterable[str]:
    for name, value in record.group.items():
        for part in value.split(",") if name in several else (value,):
            if part:
                yield f"{name}/{part}"


def _breakdown(pairs: Iterable[tuple[Record, _Pair]], several: Collection[str]) -> dict[str, float]:
    by_label: dict[str, list[_Pair]] = {}
    for record, pair in pairs:
        for label in _labels(record, several):
            by_label.setdefault(label, []).append(pair)
    results = {label: percent(by_label[label]) for label in sorted(by_label)}
    return {label: value for label, value in results.items() if value is not None}


def summarize(records: Sequence[Record], several: Collection[str] = ()) -> Summary:
    """Every record is a unit: accuracy, a mean of points, or a ratio where weights differ from 1.

    Args:
        several: Names of group labels that hold several values, separated by commas; such a record
            counts under each of them.
    """
    scored = [(r.score, r.weight) for r in records if r.score is not None]
    labelled = (r for r in records if r.score is not None)
    return Summary(
        score=percent(scored),
        n=len(records),
        unscored=len(records) - len(scored),
        units={record.id: pair for record, pair in zip(labelled, scored, strict=True)},
        breakdown=_breakdown(zip((r for r in records if r.score is not None), scored, strict=True), several),
    )


def all_right(records: Sequence[Record], unit: Callable[[Record], str]) -> Summary:
    """A unit is a group of records and right only if each of them is (circular evaluation).

    A group with an unscored record is unscored, even if another of its records is wrong: were such
    groups counted, what is left out would be right ones alone. The breakdown also has `vanilla`, the
    accuracy of all records.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(unit(record), []).append(record)
    verdicts: dict[str, tuple[Record, _Pair]] = {}
    for name, members in groups.items():
        scores = [r.score for r in members if r.score is not None]
        if len(scores) == len(members):
            verdicts[name] = members[0], (float(min(scores) >= 1), 1.0)
    breakdown = _breakdown(verdicts.values(), ())
    vanilla = percent((r.score, r.weight) for r in records if r.score is not None)
    if vanilla is not None:
        breakdown["vanilla"] = vanilla
    return Summary(
        score=percent(pair for _, pair in verdicts.values()),
        n=len(groups),
        unscored=len(groups) - len(verdicts),
        units={name: pair for name, (_, pair) in verdicts.items()},
        breakdown=breakdown,
    )
