"""Generation on the real classes of every family: right, and the same in any batch and with any adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stic_eval.types import ImageRef, Request
from tests.families import checks
from tests.families.checks import Member


def test_answers_go_by_image_and_question_and_are_transformers_own(
    member: Member, requests: list[Request]
) -> None:
    checks.generates(member, requests)


def test_what_is_shared_is_what_the_family_allows(member: Member) -> None:
    # Else a model that is answered the slow way, by transformers' `generate`, would not be noticed.
    assert ("prefix" in member.hf.ways) == (not member.family.unshared)


@pytest.mark.parametrize("reuse", [True, False, "always"])
def test_answers_do_not_depend_on_the_batch(member: Member, requests: list[Request], reuse: Any) -> None:
    checks.independent_of_batch(member, requests, reuse=reuse)


def test_questions_without_an_image_are_answered_beside_others(
    member: Member, requests: list[Request]
) -> None:
    if not member.family.text_only:
        pytest.skip("takes no question without an image")
    checks.generates_without_images(member, requests)


def test_several_images_in_a_question(member: Member, pictures: list[ImageRef]) -> None:
    checks.generates_from_several(member, pictures)


def test_adapters_are_attached_switched_and_taken_off(
    member: Member, requests: list[Request], tmp_path: Path
) -> None:
    checks.switches_adapters(member, requests, tmp_path)
