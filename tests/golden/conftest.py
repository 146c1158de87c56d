"""Where the full recordings are, for those who have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the recordings: `$STIC_EVAL_REAL_DATA`."""
    folder = Path(os.environ.get("STIC_EVAL_REAL_DATA", "nowhere"))
    if not folder.is_dir():
        pytest.skip("the full recordings are not at hand (STIC_EVAL_REAL_DATA)")
    return folder
