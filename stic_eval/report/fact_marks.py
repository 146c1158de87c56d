"""Which facts of a picture a text has right, invents or leaves out, where that is known exactly.

It is known of the embedded world: a description is held against what was drawn, and an answer that was
graded by the rule on key facts against these. Of any other row nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stic_eval.evals.scoring.keyfacts import Fact, Facts, named_facts, parse_facts
from stic_eval.pocket.language import Claim, claims_in, describe
from stic_eval.pocket.rows import drawn_in
from stic_eval.printable import printable
from stic_eval.types import ImageRef

Truth = Sequence[Claim]  # all that is to be said of a picture, in the order of a perfect description


def truths(images: Mapping[str, ImageRef]) -> dict[str, Truth]:
    """Content hash -> what there is to say, of the images that are pictures of the embedded world."""
    specs = {sha: drawn_in(image) for sha, image in images.items()}
    return {
        sha: [claim for claim, _ in claims_in(describe(spec))]
        for sha, spec in specs.items()
        if spec is not None
    }


def of_record(record: Mapping[str, Any], known: Mapping[str, Truth]) -> dict[str, Any] | None:
    """What is known of a record's texts; None: nothing.

    Returns:
        `description`: `spans` are [start, end, right] in the printable text, counted in UTF-16 units as the
        page's script does, and `missed` what it leaves out. `answer`: [fact, whether it is named] of each
        key fact.
    """
    found: dict[str, Any] = {}
    images, description = record.get("images"), record.get("description")
    shown = known.get(str(images[0])) if isinstance(images, list) and len(images) == 1 else None
    if shown is not None and isinstance(description, str) and description:
        found["description"] = described(printable(description), shown)
    response, facts = record.get("response"), _key_facts(record)
    if facts and isinstance(response, str):
        found["answer"] = [[_fact_text(fact), bool(named_facts(response, (fact,)))] for fact in facts]
    return found or None


def described(text: str, truth: Truth) -> dict[str, Any]:
    """A description's claims that are right and that are not, and what it leaves out."""
    claimed = sorted(claims_in(text), key=lambda item: item[1])
    said = {claim for claim, _ in claimed}
    spans = [[_units(text[:start]), _units(text[:end]), claim in truth] for claim, (start, end) in claimed]
    return {"spans": spans, "missed": [_claim_text(claim) for claim in truth if claim not in said]}


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _claim_text(claim: Claim) -> str:
    if len(claim) == 3:
        return " ".join(claim)
    first, second = claim
    return f"sign {second}" if first == "sign" else f"{first} = {second}"


def _key_facts(record: Mapping[str, Any]) -> Facts:
    """The key facts that a row of the embedded world was graded by; none if it was graded otherwise."""
    meta, why = record.get("meta"), record.get("why")
    if not isinstance(meta, dict) or meta.get("rows") != "pocket" or not str(why).startswith("rule: "):
        return ()
    try:
        if "key_facts" in meta:
            return tuple(Fact(tuple(map(str, ways)), str(subject)) for ways, subject in meta["key_facts"])
        return parse_facts(str(record.get("target")))
    except (TypeError, ValueError):  # a file that somebody has edited
        return ()


def _fact_text(fact: Fact) -> str:
    text = " or ".join(fact.alternatives)
    return printable(f"{text} ({fact.subject})" if fact.subject else text)
