"""docs/pocket.md has the numbers that results give, and results/README.md says what they rest on."""

from __future__ import annotations

import pytest

from bench import caveats, claims, evidence, pocket_md
from bench.committed import ABLATIONS
from stic_eval.ablations import build as gridbuild
from stic_eval.ablations import spec
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
        ("shown", -0.1, 2.0, ", open in held-out wordings"),
        ("suggested", -2.0, -0.1, ", the opposite in held-out wordings"),
        ("contradicted", -2.0, -0.1, ""),
        ("suggested otherwise", -2.0, 0.1, ", open in held-out wordings"),
        ("contradicted", 0.1, 2.0, ", the opposite in held-out wordings"),
        ("not shown", -2.0, -0.1, ""),
    ],
)
def test_a_verdict_says_whether_held_out_wordings_bear_it_out(
    says: evidence.Verdict, low: float, high: float, text: str
) -> None:
    assert evidence.borne_out(says, Difference((low + high) / 2, low, high, 100)) == text


def test_a_claim_on_a_column_that_tells_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Difference(5.0, 3.0, 7.0, 100, p=0.001, p_holm=0.01)
    group = claims.GROUPS[claims.ON_EACH][:2]
    monkeypatch.setattr(evidence, "guarded", lambda claim: "" if claim is group[1] else "at the ceiling")
    monkeypatch.setattr(evidence, "corrected", lambda claims: [(claim, said) for claim in claims])
    monkeypatch.setattr(evidence, "on_held_out", lambda claim: said)
    monkeypatch.setattr(evidence.caveats, "lines", lambda folder: [])
    page = evidence.page({claims.ON_EACH: group}, "", "")
    assert f"- *{group[0].text}*: left out. The base: at the ceiling." in page
    assert f"| {group[0].text} |" not in page
    assert (
        f"| {group[1].text} | +4.9 | +5.0 [3.0, 7.0] | +5.0 [3.0, 7.0] | 0.001 (0.01) | **shown** |" in page
    )
    assert "- Shown on 1 of 2 benchmarks; the aim is 4." in page


def test_an_amount_is_compared_with_the_difference_and_a_margin_with_the_interval() -> None:
    first, second = claims.GROUPS[claims.PRIMARY][:2]
    assert (first.least, second.margin) == (4.0, -1.0)

    def said(delta: float, low: float, high: float) -> Difference:
        return Difference(delta, low, high, 100, p=0.001, p_holm=0.01)

    assert evidence.amount(first, "shown", said(4.0, 2.0, 6.0)) == ", by at least 4 points"
    assert evidence.amount(first, "suggested", said(3.9, 2.0, 6.0)) == ", but by less than 4"
    assert evidence.amount(first, "not shown", said(5.0, -1.0, 11.0)) == ""
    assert evidence.amount(second, "shown", said(5.0, 4.0, 6.0)) == ""
    # In favour of the base: -0.5 is half a point that describing helps.
    assert evidence.verdict(said(-0.5, -0.9, -0.1), second.margin) == "shown"
    assert evidence.verdict(said(-0.5, -1.1, 0.1), second.margin) == "not shown"
    assert evidence.verdict(said(-2.0, -3.0, -1.2), second.margin) == "contradicted"
    assert evidence.borne_out("shown", said(0.0, -0.8, 0.8), second.margin) == ""
    assert evidence.borne_out("shown", said(0.0, -1.2, 1.2), second.margin) == ", open in held-out wordings"


def test_claims_are_about_cells_of_shipped_ablations() -> None:
    for claim in (claim for group in claims.GROUPS.values() for claim in group):
        for row in (claim.less, claim.more):
            if row.ablation:
                assert row.ablation in ABLATIONS
                given = gridbuild.GridArguments(spec.load(row.ablation), row.ablation, (), None, None, (), {})
                values = {
                    axis.name: [value.label for value in axis.values] for axis in gridbuild.axes(given)[0]
                }
                for name, value in (row.settings or {}).items():
                    assert value in values[name], claim.text


def test_a_claim_compares_rows_that_were_graded_alike() -> None:
    """Ablations are evaluated at another time than the main run, maybe by other versions."""
    for claim in (claim for group in evidence.GROUPS.values() for claim in group):
        less, more = evidence.side(claim.less), evidence.side(claim.more)
        assert less.model == more.model and less.columns == more.columns, claim.text
