"""docs/methods.md and bench/README.md have the tables that the files and results give."""

from __future__ import annotations

from bench import measured, methods_md
from stic_eval import registry


def test_the_tables_of_methods_are_up_to_date() -> None:
    written = methods_md.PAGE.read_text(encoding="utf-8")
    assert written == methods_md.page(written), "stale: python -m bench.methods_md"


def test_every_method_is_compared_that_trains() -> None:
    compared = {*methods_md.ORDER, "stic_stage1"}
    assert set(registry.methods().own()) == compared


def test_the_measurements_are_up_to_date() -> None:
    written = measured.PAGE.read_text(encoding="utf-8")
    assert written == measured.page(written), "stale: python -m bench.measured"


def test_a_goal_that_is_missed_is_called_missed() -> None:
    lines = list(measured.tables())
    ratios = [line.split(" | ") for line in lines if line.endswith("x |") or line.endswith("missed |")]
    for *_, ratio, goal in (cells for cells in ratios if cells[-2].endswith("x")):
        wanted = float(goal.removesuffix(" |").removesuffix(", missed").removesuffix("x"))
        assert ("missed" in goal) == (float(ratio.removesuffix("x")) < wanted - 0.005), (ratio, goal)
