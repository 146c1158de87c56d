"""Each family's tiny checkpoint, opened once a process, and what is asked about the pictures."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from stic_eval.image_sources import scan_images
from stic_eval.types import ImageRef, Request
from tests.support.zoo import FAMILIES

pytest.register_assert_rewrite("tests.families.checks")

from tests.families.checks import Member, open_member, questions, write_three  # noqa: E402


@pytest.fixture(scope="session")
def opened() -> dict[str, Member]:
    """What this process has opened already."""
    return {}


@pytest.fixture(scope="module", params=FAMILIES)
def member(
    request: pytest.FixtureRequest, opened: dict[str, Member], tmp_path_factory: pytest.TempPathFactory
) -> Member:
    """One family after the other."""
    name = request.param
    if FAMILIES[name].needs and find_spec(FAMILIES[name].needs) is None:
        pytest.skip(f"its processor needs the package {FAMILIES[name].needs}")
    if name not in opened:
        opened[name] = open_member(name, tmp_path_factory.mktemp("zoo") / name)
    return opened[name]


@pytest.fixture(scope="session")
def pictures(photos: Path) -> list[ImageRef]:
    """Eight pictures of eight shapes."""
    return scan_images(photos)[0]


@pytest.fixture(scope="session")
def requests(pictures: list[ImageRef]) -> list[Request]:
    """Three questions about each picture."""
    return questions(pictures)


@pytest.fixture(scope="session")
def pairs(pictures: list[ImageRef], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pairs about pictures of different shapes."""
    return write_three(pictures, tmp_path_factory.mktemp("pairs") / "pairs.parquet")
