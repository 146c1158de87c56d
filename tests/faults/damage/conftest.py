"""A run that is whole, made once."""

from __future__ import annotations

import pytest

from tests.faults.damage.sound import Sound, make


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """A finished run with its cache; read only."""
    return make(tmp_path_factory.mktemp("sound"))
