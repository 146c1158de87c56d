"""Generation on the real classes of every family: right, and the same in any batch and with any adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stic_eval.types import ImageRef, Request
from tests.families import checks
from tests.families.checks import Member

WHOLE = {
    "paligemma": "a prompt's tokens see all of each other, those of what an answer has begun with as well"
}


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


def test_an_answer_that_has_begun_is_gone_on_with(member: Member, pictures: list[ImageRef]) -> None:
    if member.name in WHOLE:
        pytest.skip(WHOLE[member.name])
    checks.goes_on_from_what_has_begun(member, pictures)
    checks.scores_parts_as_the_whole(member, pictures)


def test_given_answers_are_as_likely_as_generation_holds_them(
    member: Member, pictures: list[ImageRef]
) -> None:
    checks.scores_as_it_generates(member, pictures)


def test_noise_is_the_same_to_every_way_of_asking(member: Member, pictures: list[ImageRef]) -> None:
    checks.sees_noise(member, pictures)
