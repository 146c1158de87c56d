"""How often `compare` is wrong: false alarms, coverage and power where the truth is known.

`python -m bench.coverage` simulates studies, compares each with the code that tables use, and writes
`bench/results/coverage.json`; scenarios that are there already, of the same code, are not simulated again.
`--simulations 100` is a quick look and writes nothing. `--check` says whether the criteria are met.

A study has rows in clusters. What a row's two answers are worth is drawn together, so that both sides are
alike; with a probability of the root of the ICC a row takes its cluster's draw instead of its own, which
makes any two rows of a cluster correlated by the ICC. Each training seed answers a part of the rows anew, and
is better or worse by its luck.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stic_eval.report import paired_comparison as compare
from stic_eval.report import statistics
from stic_eval.report.paired_comparison import Difference
from stic_eval.types import Summary

Array = NDArray[np.float64]
RESULTS = Path(__file__).parent / "results" / "coverage.json"
SIMULATIONS, RESAMPLES = 2_000, 999
EFFECT = 5.0  # points, for power
ANEW = 0.15  # share of rows that another seed answers anew
MOST, LEAST, COVERED = 0.06, 0.04, 0.93  # of false alarms at most, and in large studies; of coverage there
LARGE = (200, 30)  # rows and clusters from which on the last two are asked for

# Rows and images of the benchmarks. LLaVA-Bench: its data set. ChartQA: Masry et al. 2022, table 3. TextVQA:
# Singh et al. 2019, validation. MM-Vet: Yu et al. 2023. Of MathVista's testmini, ScienceQA's test questions
# with images and MMBench's dev questions each row comes with a picture of its own.
LAYOUTS = {
    "LLaVA-Bench": (60, 24),
    "MM-Vet": (218, 200),
    "MathVista": (1000, 1000),
    "MMBench": (1164, 1164),
    "ScienceQA": (2017, 2017),
    "ChartQA": (2500, 1509),
    "TextVQA": (5000, 3166),
}
KIND = {"LLaVA-Bench": "ratio", "MM-Vet": "graded", "TextVQA": "graded"}  # of scores; others: right or wrong


@dataclass(frozen=True)
class Scenario:
    """One kind of study.

    Attributes:
        layout: A benchmark's, or `independent`.
        n: Rows.
        clusters: Of them.
        icc: Correlation of two rows of a cluster.
        kind: Of scores: `binary`, `graded` (steps of a quarter), `continuous`, `ratio` (two graders' points).
        seeds: Training seeds of the method.
        luck: Standard deviation of a seed's true score, in points.
    """

    layout: str
    n: int
    clusters: int
    icc: float = 0.0
    kind: str = "binary"
    seeds: int = 1
    luck: float = 0.0


def scenarios() -> list[Scenario]:
    """All kinds of studies."""
    found = []
    for n in (5, 10, 20, 50, 200, 1000, 5000):
        found += [Scenario("independent", n, n, seeds=k, luck=luck) for k, luck in ((1, 0), (3, 3), (5, 3))]
    for n in (200, 1000):
        settings = ((1, 3), (1, 8), (3, 0), (3, 8), (5, 0), (5, 8))
        found += [Scenario("independent", n, n, seeds=k, luck=luck) for k, luck in settings]
    for name, (n, clusters) in LAYOUTS.items():
        for icc in (0.3, 0.6) if clusters < n else (0.0,):
            for k, luck in ((1, 0), (3, 3)):
                found.append(Scenario(name, n, clusters, icc, KIND.get(name, "binary"), k, luck))
    for kind in ("graded", "continuous", "ratio"):
        found += [Scenario("independent", 200, 200, 0.0, kind, k, luck) for k, luck in ((1, 0), (3, 3))]
    found += [Scenario("LLaVA-Bench", 60, 24, icc, "binary") for icc in (0.3, 0.6)]
    return list(dict.fromkeys(found))


# ---------------------------------------------------------------- one study


def _binary(rng: np.random.Generator, n: int) -> Array:
    """Two answers to each of n rows, `(n, 4)`: values and weights; a quarter of the rows differ."""
    values = rng.random((n, 2)) < 0.5
    same = rng.random(n) < 0.5
    values[same, 1] = values[same, 0]
    return np.column_stack([values, np.ones((n, 2))])


def _graded(rng: np.random.Generator, n: int) -> Array:
    """In steps of a quarter; half of the rows are answered alike."""
    values = rng.integers(0, 5, (n, 2)) / 4
    same = rng.random(n) < 0.5
    values[same, 1] = values[same, 0]
    return np.column_stack([values, np.ones((n, 2))])


def _continuous(rng: np.random.Generator, n: int) -> Array:
    """Without ties, and skewed."""
    return np.column_stack([rng.beta(2, 1, (n, 1)) * rng.beta(3, 1, (n, 2)), np.ones((n, 2))])


def _ratio(rng: np.random.Generator, n: int) -> Array:
    """Points of 1 to 10 for ours and for a reference answer, both given anew for each side."""
    hard = rng.integers(0, 3, (n, 1))
    ours = np.clip(6 - hard + rng.integers(-3, 4, (n, 2)), 1, 10)
    return np.column_stack([ours, np.clip(9 - hard + rng.integers(-1, 2, (n, 2)), 1, 10)])


_DRAW: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "binary": _binary, "graded": _graded, "continuous": _continuous, "ratio": _ratio,
}  # fmt: skip
_HIGHEST = {"ratio": 10.0}


def study(scenario: Scenario, rng: np.random.Generator, effect: float) -> Difference:
    """A simulated study of a true difference of so many points, as `compare` sees it."""
    n, kind = scenario.n, scenario.kind
    cluster = _layout(n, scenario.clusters)
    draw = _DRAW[kind]
    rows = draw(rng, n)
    copied = rng.random(n) < math.sqrt(scenario.icc)
    rows[copied] = draw(rng, scenario.clusters)[cluster[copied]]
    runs = []
    for _ in range(scenario.seeds):
        own = rows[:, [1, 3]].copy()
        anew = rng.random(n) < (ANEW if scenario.seeds > 1 else 0)
        own[anew] = draw(rng, n)[anew][:, [1, 3]]
        own[:, 0] = _shifted(own, effect + rng.normal(0, scenario.luck), kind, rng)
        runs.append(_summary(own, scenario))
    base = _summary(rows[:, [0, 2]], scenario)
    lacks = compare.SEED if scenario.seeds == 1 and scenario.luck else ""
    [found] = compare.compare(
        {"b": [base]}, {"b": runs}, n_resamples=RESAMPLES, seed=int(rng.integers(2**31)), lacks=lacks
    )[0].values()
    return found


@cache
def _layout(n: int, clusters: int) -> NDArray[np.intp]:
    """Each row's cluster: one row for each, the others wherever, as real images have one to several."""
    more = np.random.default_rng(n).integers(0, clusters, n - clusters)
    return np.concatenate([np.arange(clusters), more])


def _shifted(own: Array, shift: float, kind: str, rng: np.random.Generator) -> Array:
    """Values of which so many became the highest, or the lowest, that the score moves by `shift` points."""
    mean, weight = _moments(kind)
    top, bottom = _HIGHEST.get(kind, 1.0), 0.0 if kind != "ratio" else 1.0
    goal = top if shift > 0 else bottom
    share = abs(shift) / 100 * weight / abs(goal - mean)
    return np.where(rng.random(len(own)) < share, goal, own[:, 0])


_MOMENTS: dict[str, tuple[float, float]] = {}


def _moments(kind: str) -> tuple[float, float]:
    """Mean value and weight of a kind of scores."""
    if kind not in _MOMENTS:
        many = _DRAW[kind](np.random.default_rng(0), 2_000_000)
        _MOMENTS[kind] = float(many[:, :2].mean()), float(many[:, 2:].mean())
    return _MOMENTS[kind]


def _summary(own: Array, scenario: Scenario) -> Summary:
    units = dict(zip(_names(scenario.n), zip(*own.T.tolist(), strict=True), strict=True))
    shared = _named_layout(scenario.n, scenario.clusters) if scenario.clusters < scenario.n else {}
    return Summary(None, scenario.n, 0, units, {}, clusters=shared)


@cache
def _names(n: int) -> tuple[str, ...]:
    return tuple(map(str, range(n)))


@cache
def _named_layout(n: int, clusters: int) -> dict[str, str]:
    return dict(zip(_names(n), map(str, _layout(n, clusters).tolist()), strict=True))


# ---------------------------------------------------------------- many


def simulate(scenario: Scenario, simulations: int) -> dict[str, Any]:
    """What `compare` says of so many studies without a difference, and of a quarter as many with one.

    Returns:
        Shares: of false marks; of intervals that hold the truth, without and with a difference; of true
        differences that are marked. With one seed and luck no mark is given; then `rows_only` is the share of
        p-values, about rows alone, that a mark would have been given for.
    """
    seed = int(hashlib.sha256(repr(scenario).encode()).hexdigest()[:8], 16)
    none = [study(scenario, np.random.default_rng([seed, i]), 0.0) for i in range(simulations)]
    some = [study(scenario, np.random.default_rng([seed, 1, i]), EFFECT) for i in range(simulations // 4)]
    found: dict[str, Any] = {
        **asdict(scenario),
        "simulations": simulations,
        "marks": _share(d.significant for d in none),
        "coverage": _share(d.low <= 0 <= d.high for d in none),
        "coverage_of_effect": _share(d.low <= EFFECT <= d.high for d in some),
        "power": _share(d.significant for d in some),
    }
    if scenario.seeds == 1 and scenario.luck:
        found["rows_only"] = _share(d.p < statistics.LEVEL for d in none)
    return found


def _share(hits: Iterator[bool]) -> float:
    return round(float(np.mean(list(hits))), 4)


def code() -> str:
    """Digest of what is simulated, but for its comments and texts: results of other code do not count."""
    functions: list[Callable[..., Any]] = [
        compare.compare, compare._part, compare._clusters, compare._difference, compare._seeds,
        compare._interval, compare._exchanged, *_DRAW.values(), study, _shifted,
    ]  # fmt: skip
    sources = [Path(statistics.__file__).read_text(encoding="utf-8"), *map(inspect.getsource, functions)]
    trees = [ast.parse(source) for source in sources]
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                node.value.value = ""
    return hashlib.sha256("".join(map(ast.dump, trees)).encode()).hexdigest()[:12]


def missed(row: dict[str, Any]) -> list[str]:
    """Criteria that a scenario misses beyond two standard errors of the simulation."""

    def error(share: float) -> float:
        return 2 * math.sqrt(share * (1 - share) / row["simulations"])

    said = []
    if row["marks"] > MOST + error(MOST):
        said.append(f"{100 * row['marks']:.1f} % false marks")
    large = row["n"] >= LARGE[0] and row["clusters"] >= LARGE[1]
    tested = row["seeds"] > 1 or not row["luck"]
    if large and tested and row["marks"] < LEAST - error(LEAST):
        said.append(f"only {100 * row['marks']:.1f} % false marks")
    if large and tested and row["coverage"] < COVERED - error(COVERED):
        said.append(f"{100 * row['coverage']:.1f} % coverage")
    return said


def named(row: dict[str, Any]) -> str:
    """A scenario in words."""
    icc = f", ICC {row['icc']:g}" if row["icc"] else ""
    return f"{row['layout']}, {row['n']} rows in {row['clusters']}{icc}, {row['kind']}"


def main(argv: Sequence[str]) -> int:
    """Simulates what is missing, or says which criteria are missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.coverage")
    parser.add_argument("--simulations", type=int, default=SIMULATIONS, help="studies of each kind")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", default="", help="scenarios with this in their name")
    parser.add_argument("--check", action="store_true", help="only say which criteria are missed")
    given = parser.parse_args(argv)
    saved = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    if given.check:
        rows = saved.get("scenarios", [])
        for row in rows:
            for what in missed(row):
                print(f"{named(row)}, {row['seeds']} seeds, luck {row['luck']:g}: {what}")
        return int(not rows or any(missed(row) for row in rows))
    whole = given.simulations == SIMULATIONS and not given.only
    kept = saved.get("scenarios", []) if whole and saved.get("code") == code() else []
    known = {json.dumps({name: row[name] for name in Scenario.__annotations__}): row for row in kept}
    wanted = [one for one in scenarios() if given.only in named(asdict(one))]
    todo = [one for one in wanted if json.dumps(asdict(one)) not in known]
    rows = list(kept)
    with ProcessPoolExecutor(given.jobs) as pool:
        for row in pool.map(partial(simulate, simulations=given.simulations), todo):
            rows.append(row)
            shares = " ".join(f"{name} {row[name]:.3f}" for name in ("marks", "coverage", "power"))
            print(
                f"{named(row)}, {row['seeds']} seeds, luck {row['luck']:g}: {shares}",
                *missed(row),
                flush=True,
            )
            if whole:
                data = {"code": code(), "resamples": RESAMPLES, "effect": EFFECT, "scenarios": rows}
                RESULTS.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return int(any(missed(row) for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
