"""How far two judges agree on the same answers, from what `score --json` or a run has written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stic_eval.documents import from_json, read_text
from stic_eval.errors import UserError

_SHOWN = 10


@dataclass(frozen=True)
class Verdict:
    """One sample's points and their denominator; `score` None: unscored."""

    score: float | None
    weight: float


@dataclass(frozen=True)
class Grading:
    """What one file holds: id -> verdict, and the benchmark if it says which."""

    benchmark: str | None
    verdicts: Mapping[str, Verdict]


@dataclass(frozen=True)
class Disagreement:
    """A sample on which the two differ; `difference` is b minus a."""

    id: str
    a: float
    b: float
    difference: float


@dataclass(frozen=True)
class Agreement:
    """How far two gradings agree.

    Attributes:
        common: Samples that are in both.
        n: Of these, the ones that both scored; everything below is over them.
        only_a_scored: In both, scored by the first alone.
        only_b_scored: In both, scored by the second alone.
        neither_scored: In both, scored by none.
        missing_in_a: Samples that only the second has.
        missing_in_b: Samples that only the first has.
        mean_a: Percent, `100 * sum(score) / sum(weight)`.
        difference: `mean_b - mean_a`, in percentage points.
        exact: Share of samples with the same score and weight.
        kappa: Cohen's kappa of right and wrong; None unless all scores are 0 or 1.
        pearson: Correlation of the scores; like the next two None if either is constant.
        spearman: Of their ranks.
        kendall: Tau-b, which allows for ties.
        disagreements: The largest ones, at most ten.
    """

    common: int
    n: int
    only_a_scored: int
    only_b_scored: int
    neither_scored: int
    missing_in_a: int
    missing_in_b: int
    mean_a: float | None
    mean_b: float | None
    difference: float | None
    exact: float | None
    kappa: float | None
    pearson: float | None
    spearman: float | None
    kendall: float | None
    disagreements: tuple[Disagreement, ...]


def read(path: Path) -> Grading:
    """Reads the output of `score --json`, or records.

    Raises:
        UserError: There is no such file, or it is neither; the row is named.
    """
    try:
        text = read_text(path)
    except UnicodeDecodeError:
        raise UserError(
            f"{path}: is not text; give the output of `stic-eval score --json` or records"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        whole = from_json(text)
    except ValueError:
        whole = None
    rows: Iterable[tuple[str, Any]]
    if isinstance(whole, dict) and "per_sample" in whole:
        if not isinstance(whole["per_sample"], list):
            raise UserError(f'{path}: "per_sample" is not a list')
        name = whole.get("benchmark")
        rows = ((f"per_sample[{at}]", row) for at, row in enumerate(whole["per_sample"]))
    elif whole is not None and not (isinstance(whole, dict) and "id" in whole):
        raise UserError(
            f'{path}: no "per_sample" in it; give the output of `stic-eval score --json` or records'
        )
    else:
        name, rows = None, _lines(path, text)
    verdicts: dict[str, Verdict] = {}
    for where, row in rows:
        id_, verdict = _verdict(f"{path}, {where}", row)
        if id_ in verdicts:
            raise UserError(f"{path}, {where}: id {id_!r} is there twice")
        verdicts[id_] = verdict
    if not verdicts:
        raise UserError(f"{path}: holds no verdicts; give the output of `stic-eval score --json` or records")
    return Grading(name if isinstance(name, str) else None, verdicts)


def _lines(path: Path, text: str) -> Iterable[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", from_json(line)
            except ValueError:
                raise UserError(f"{path}, line {number}: not JSON") from None


def _verdict(where: str, row: Any) -> tuple[str, Verdict]:
    if not isinstance(row, dict) or "id" not in row or "score" not in row:
        raise UserError(f'{where}: no object with "id" and "score"')
    score, weight = row["score"], row.get("weight", 1.0)
    for name, value in (("score", score), ("weight", weight)):
        is_number = isinstance(value, (int, float)) and math.isfinite(value)
        if not (is_number or (name == "score" and value is None)):
            raise UserError(f'{where}: "{name}" is not a number')
    return str(row["id"]), Verdict(None if score is None else float(score), float(weight))


def compare(a: Mapping[str, Verdict], b: Mapping[str, Verdict]) -> Agreement:
    """Pairs two gradings by id and measures how far they agree."""
    common = [id_ for id_ in a if id_ in b]
    scored_a = {id_ for id_ in common if a[id_].score is not None}
    scored_b = {id_ for id_ in common if b[id_].score is not None}
    ids = [id_ for id_ in common if id_ in scored_a and id_ in scored_b]
    x, y = ([float(grading[id_].score or 0.0) for id_ in ids] for grading in (a, b))
    means = [_percent([grading[id_] for id_ in ids]) for grading in (a, b)]
    known = [mean for mean in means if mean is not None]
    differing = [Disagreement(id_, p, q, q - p) for id_, p, q in zip(ids, x, y, strict=True) if p != q]
    pearson, spearman, kendall = _correlations(x, y)
    return Agreement(
        common=len(common),
        n=len(ids),
        only_a_scored=len(scored_a - scored_b),
        only_b_scored=len(scored_b - scored_a),
        neither_scored=len(common) - len(scored_a | scored_b),
        missing_in_a=sum(id_ not in a for id_ in b),
        missing_in_b=sum(id_ not in b for id_ in a),
        mean_a=means[0],
        mean_b=means[1],
        difference=known[1] - known[0] if len(known) == 2 else None,
        exact=sum(a[id_] == b[id_] for id_ in ids) / len(ids) if ids else None,
        kappa=_kappa(x, y),
        pearson=pearson,
        spearman=spearman,
        kendall=kendall,
        disagreements=tuple(sorted(differing, key=lambda d: -abs(d.difference))[:_SHOWN]),
    )


def _percent(verdicts: Sequence[Verdict]) -> float | None:
    weight = sum(verdict.weight for verdict in verdicts)
    return 100 * sum(verdict.score or 0.0 for verdict in verdicts) / weight if weight > 0 else None


def _kappa(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Cohen's kappa, (observed - expected) / (1 - expected) agreement (Cohen, 1960), of two classes."""
    if not x or not {*x, *y} <= {0.0, 1.0}:
        return None
    right_x, right_y = sum(x) / len(x), sum(y) / len(y)
    observed = sum(p == q for p, q in zip(x, y, strict=True)) / len(x)
    expected = right_x * right_y + (1 - right_x) * (1 - right_y)
    return (observed - expected) / (1 - expected) if expected < 1 else None


def _correlations(x: Sequence[float], y: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Pearson's r, Spearman's rho and Kendall's tau-b; None where they are not defined."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None, None, None
    from scipy import stats

    values = (float(f(x, y).statistic) for f in (stats.pearsonr, stats.spearmanr, stats.kendalltau))
    r, rho, tau = (value if math.isfinite(value) else None for value in values)
    return r, rho, tau
