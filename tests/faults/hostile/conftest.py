"""The place that hostile inputs are tried in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.hostile.attempts import Place
from tests.faults.hostile.pictures import put_pictures


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Folders of a test's own, with one usable image, and what only looks like one, in the first."""
    made = Place(tmp_path)
    put_pictures(made.work)
    return made
