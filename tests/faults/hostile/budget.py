"""How many tries a part has: a few that are always the same in `make test`, thousands in a campaign."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from tests.faults.hostile.attempts import Place

T = TypeVar("T")
_UNHURRIED = [
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.function_scoped_fixture,
    HealthCheck.large_base_example,
    HealthCheck.filter_too_much,
]


def few(tries: int) -> settings:
    """Settings of a test in `make test`: the same inputs every time."""
    return settings(
        max_examples=tries, derandomize=True, database=None, deadline=None, suppress_health_check=_UNHURRIED
    )


def many(tries: int) -> settings:
    """Settings of a test of the campaign: other inputs each time. A failure shows the smallest one found."""
    return settings(max_examples=tries, database=None, deadline=None, suppress_health_check=_UNHURRIED)


def explore(
    kind: str, place: Place, inputs: SearchStrategy[T], attempt: Callable[[Place, T], None], budget: settings
) -> None:
    """Tries inputs of a kind, and counts them in the campaign.

    Args:
        attempt: Runs commands on one input in a place.
    """

    def once(value: T) -> None:
        attempt(place, value)

    # The few of `make test` run in the campaign as well, and would take the place of what the many come to.
    with nullcontext() if budget.derandomize else counted(kind, place):
        budget(given(inputs)(once))()


@contextmanager
def counted(kind: str, place: Place) -> Iterator[None]:
    """Writes how many tries a part took, and what came of them, where a campaign wants to know."""
    failed = True
    try:
        yield
        failed = False
    finally:
        if folder := os.environ.get("STIC_EVAL_CAMPAIGN"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            found = {
                "part": f"hostile input: {kind}",
                "tries": place.tries,
                "failed": int(failed),
                "exit codes": {str(code): count for code, count in sorted(place.codes.items())},
                "seconds": round(time.monotonic() - place.began),
            }
            (Path(folder) / f"hostile-{kind.replace(' ', '-')}.json").write_text(json.dumps(found, indent=1))
