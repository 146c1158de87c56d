"""Executes docs/notebooks/quickstart.ipynb from an empty cache, and writes what comes out into it.

python -m bench.notebook
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "quickstart.ipynb"


def execute(path: Path, folder: Path, seconds: int = 1800) -> Any:
    """A notebook with the outputs of its cells, each of which is executed anew.

    Args:
        path: The notebook.
        folder: Where it works; its cache comes to lie there as well.
        seconds: That a cell may take.

    Raises:
        CellExecutionError: A cell has failed.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    environment = {
        "STIC_EVAL_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "JUPYTER_RUNTIME_DIR": str(folder),
        "IPYTHONDIR": str(folder / "ipython"), "JUPYTER_PLATFORM_DIRS": "1",
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        # The kernel of this interpreter, whatever others are installed for people.
        client = NotebookClient(notebook, timeout=seconds, kernel_name="python3", record_timing=False)
        client.execute(cwd=str(folder))
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    return notebook


def main() -> int:
    """Executes the notebook, and writes it."""
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        notebook = execute(NOTEBOOK, Path(folder))
    nbformat.write(notebook, NOTEBOOK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
