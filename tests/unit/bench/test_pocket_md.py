"""docs/pocket.md has the numbers that results give, and results/README.md says what they rest on."""

from __future__ import annotations

import pytest

from bench import caveats, evidence, pocket_md
from stic_eval.report.paired_comparison import Difference
from stic_eval.report.runs import Entry, Scores
from stic_eval.report.table_rows import Column
from stic_eval.types import DIRECT, Summary


def test_the_measurements_are_up_to_date() -> None:
    written = pocket_md.PAGE.read_text(encoding="utf-8")
    assert written == pocket_md.page(written), "stale: python -m bench.pocket_md"


def test_columns_that_say_little_and_units_that_never_move_are_counted() -> None:
    def summary(rights: int, n: int = 40, constant: str = "") -> Summary:
        units = {str(i): (float(i < rights), 1.0) for i in range(n)}
        return Summary(100 * rights / n, n, 0, units, {}, constant=constant)

    scores = Scores("run", [Column("a", "Alpha"), Column("b", "Beta"), Column("c", "Gamma")], [])
    scores.entries = [
        Entry("baseline", "baseline", "Baseline", DIRECT, None, summaries={
            "a": summary(40), "b": summary(10, constant="B"), "c": summary(20),
        }),
        Entry("m", "m", "M", DIRECT, 0, summaries={"a": summary(40), "b": summary(10), "c": summary(23)}),
    ]  # fmt: skip
    said = caveats.guarded(scores)
    assert "Alpha (at the ceiling); Beta (constant answer B)" in said
    assert "80 of 120 units" in said
    assert caveats.still(scores) == "117 of the 120 units have one verdict in all rows and with all seeds."


@pytest.mark.parametrize(
    ("says", "low", "high", "text"),
    [
        ("shown", 0.1, 2.0, ""),
        ("shown", -0.1, 2.0, ", not on the other rows"),
        ("suggested", -2.0, -0.1, ", the opposite on the other rows"),
        ("contradicted", -2.0, -0.1, ""),
        ("suggested otherwise", -2.0, 0.1, ", not on the other rows"),
        ("contradicted", 0.1, 2.0, ", the opposite on the other rows"),
        ("not shown", -2.0, -0.1, ""),
    ],
)
def test_a_verdict_says_whether_the_other_rows_bear_it_out(
    says: evidence.Verdict, low: float, high: float, text: str
) -> None:
    assert evidence.borne_out(says, Difference((low + high) / 2, low, high, 100)) == text
    assert evidence.borne_out(says, None) == ""


def test_a_claim_that_starts_from_the_ceiling_is_left_out() -> None:
    claims = [claim for group in evidence.GROUPS.values() for claim in group]
    on = {claim.benchmark: evidence.guarded(claim) for claim in claims if claim.text.startswith("on ")}
    assert on["textvqa"] == "at the ceiling"
    assert on["llava_bench"] == ""


def test_a_claim_compares_rows_of_one_run() -> None:
    """Runs may be graded by different versions, and ablations are evaluated at another time."""
    for claim in (claim for group in evidence.GROUPS.values() for claim in group):
        assert claim.less.ablation == claim.more.ablation, claim.text
        assert evidence.side(claim.less).run == evidence.side(claim.more).run
