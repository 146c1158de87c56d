"""The Makefile makes a .venv on machines as they are; nothing is downloaded."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[3] / "Makefile"
# Debian's python3 without python3-venv: `-m venv` fails half-way unless it is to leave pip out.
BARE = f"""#!/bin/sh
case "$*" in
  "-m venv .venv") mkdir -p .venv/bin; ln -s "{sys.executable}" .venv/bin/python; exit 1 ;;
esac
exec "{sys.executable}" "$@"
"""


@pytest.fixture
def bundled() -> Path:
    """A folder with a wheel of pip."""
    found = importlib.util.find_spec("ensurepip")
    folder = Path(found.origin or "").parent / "_bundled" if found else Path()
    if not found or not list(folder.glob("pip-*.whl")) or not shutil.which("make"):
        pytest.skip("needs make, and the wheel of pip that comes with python")
    return folder


def make(folder: Path, wheels: Path, python: Path | str) -> None:
    shutil.copy(MAKEFILE, folder)
    names = ("MAKEFLAGS", "MAKELEVEL", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    argv = ["make", f"PYTHON={python}", ".venv/.stamp-venv"]
    subprocess.run(argv, cwd=folder, env=environment, check=True, timeout=300)
    subprocess.run([folder / ".venv/bin/python", "-m", "pip", "--version"], check=True)


def test_a_venv_is_made_without_ensurepip_in_place_of_a_broken_one_and_kept(
    tmp_path: Path, bundled: Path
) -> None:
    folder = tmp_path / ".venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to("/nowhere/python3")  # its system's python has been replaced
    (folder / ".stamp-run").touch()
    bare = tmp_path / "python3"
    bare.write_text(BARE)
    bare.chmod(0o755)
    make(tmp_path, bundled, bare)
    assert not (folder / ".stamp-run").exists()

    (folder / "kept").touch()
    (folder / ".stamp-venv").unlink()
    make(tmp_path, bundled, bare)
    assert (folder / "kept").exists()
