"""A step of preference training and one of fine-tuning on the real classes of every family."""

from __future__ import annotations

from pathlib import Path

from stic_eval.types import ImageRef, Request
from tests.families import checks
from tests.families.checks import Member


def test_training_sees_what_generation_sees(member: Member, pictures: list[ImageRef]) -> None:
    checks.trains_on_what_it_generates_from(member, pictures)


def test_preference_training(member: Member, pairs: Path, requests: list[Request], tmp_path: Path) -> None:
    checks.learns_preferences(member, pairs, requests[:6], tmp_path)


def test_fine_tuning(
    member: Member, pictures: list[ImageRef], requests: list[Request], tmp_path: Path
) -> None:
    checks.is_fine_tuned(member, pictures, requests[:6], tmp_path)
