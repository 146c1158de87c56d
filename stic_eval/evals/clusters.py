"""Which units of a benchmark belong together, and its own statistic on resamples of what does.

Rows about one image are not independent: a model that misreads a chart misreads it for each question about
it. Statistics therefore resample and exchange clusters (Miller 2024, arXiv 2411.00640).
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from stic_eval.contracts.benchmark import Benchmark
from stic_eval.errors import Contained, RunError
from stic_eval.registry import explain_call
from stic_eval.types import Record, Resampled

DRAWS = 1_000  # bootstrap resamples of a benchmark's own statistic
GROUPS = 200  # of the jackknife, at most
_DIGITS = 12  # of an image's digest, which are a cluster's name


def unit_of(record: Record) -> str:
    """The unit that a record is scored in: its own id, or what its `meta` names (MMBench's question)."""
    return str(record.meta.get("unit") or record.id)


def clusters(benchmark: Benchmark, records: Sequence[Record]) -> dict[str, str]:
    """Unit -> cluster, of the units that share one: about one image by content, or what the benchmark names.

    A record with several images ties these together, as does a unit of several records.
    """
    if benchmark.cluster is None and not any(record.images for record in records):
        return {}  # as of answers that are scored without their images
    leader: dict[str, str] = {}

    def find(key: str) -> str:
        while leader.setdefault(key, key) != key:
            leader[key] = key = leader[leader[key]]
        return key

    units: dict[str, str] = {}
    for record in records:
        if benchmark.cluster is not None:
            keys = [str(benchmark.cluster(record))]
        else:
            keys = [digest[:_DIGITS] for digest in record.images if digest]  # none: it was not read
        unit = unit_of(record)
        first = units.setdefault(unit, f"unit {unit}")
        for key in keys:
            a, b = sorted((find(first), find(f"key {key}")))  # a cluster is called after what it shares
            leader[b] = a
    found = {unit: find(first) for unit, first in units.items()}
    sizes: dict[str, int] = {}
    for name in found.values():
        sizes[name] = sizes.get(name, 0) + 1
    return {unit: name.removeprefix("key ") for unit, name in found.items() if sizes[name] > 1}


def first_untraceable(records: Sequence[Record], units: Mapping[str, object]) -> str | None:
    """The first unit whose rows cannot be told; None: there is no such unit."""
    known = {unit_of(record) for record in records}
    return next((unit for unit in units if unit not in known), None)


def resample_clusters(
    benchmark: Benchmark, records: Sequence[Record], clusters: Mapping[str, str]
) -> Resampled:
    """The benchmark's own statistic on resamples of the clusters, and without each group of them.

    Draws depend on the benchmark's name, its rows and their clusters alone: the same for every run.

    Raises:
        RunError: The statistic fails, or gives no number, on one of them.
    """
    assert benchmark.statistic is not None
    members: dict[str, list[Record]] = {}
    for record in records:
        unit = unit_of(record)
        members.setdefault(clusters.get(unit, f"unit {unit}"), []).append(record)
    names = sorted(members)
    membership = [[name, [record.id for record in members[name]]] for name in names]
    digest = hashlib.sha256(repr(membership).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    rng = np.random.default_rng([zlib.crc32(benchmark.name.encode()), int(digest, 16)])

    def of(counts: Sequence[int]) -> float:
        chosen = [r for name, n in zip(names, counts, strict=True) for _ in range(n) for r in members[name]]
        return statistic(benchmark, chosen)

    drawn = rng.multinomial(len(names), [1 / len(names)] * len(names), size=DRAWS)
    groups = rng.permutation(len(names)) % min(GROUPS, len(names))
    return Resampled(
        rows=digest,
        clusters=len(names),
        draws=tuple(round(of(counts), 6) for counts in drawn.tolist()),
        without=tuple(
            round(of((groups != group).astype(int).tolist()), 6) for group in range(max(groups) + 1)
        )
        if len(names) > 1
        else (),
    )


def statistic(benchmark: Benchmark, records: Sequence[Record]) -> float:
    """The benchmark's own statistic, in percent.

    Raises:
        RunError: It fails, or gives no number.
    """
    assert benchmark.statistic is not None
    where = f"benchmark {benchmark.name}: its statistic"
    try:
        with Contained():
            value = float(benchmark.statistic(records))
    except Exception as error:  # a benchmark is a user's own code
        raise RunError(
            f"{where} fails on {len(records)} of its rows, drawn with replacement: {explain_call(error)}"
        ) from error
    if not math.isfinite(value):
        raise RunError(f"{where} gives {value} for {len(records)} of its rows, drawn with replacement")
    return value
