"""docs/clusters.md: its table is that of the model of costs, its script passes shellcheck."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import clusters_md
from bench.committed import ROOT
from bench.measured import RESULTS
from stic_eval.engines import costs


def test_the_table_is_what_the_model_of_costs_gives() -> None:
    before = clusters_md.PAGE.read_text(encoding="utf-8")
    assert clusters_md.page(before) == before


def test_operations_of_a_layer_are_as_many_as_were_counted() -> None:
    found = json.loads((RESULTS / "launches.json").read_text(encoding="utf-8"))["launches"]
    counted = {row["work"]: row["layer"] for row in found}
    assert counted == {"a step of decoding": costs.OPERATIONS, "a step with an adapter": costs.WITH_ADAPTER}
    assert f"each of {costs.OPERATIONS} operations a layer, {costs.WITH_ADAPTER} with" in (
        clusters_md.PAGE.read_text(encoding="utf-8")
    )


def test_the_script_for_slurm_passes_shellcheck() -> None:
    path = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    if path is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        [path, ROOT / "docs" / "examples" / "ray.sbatch"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
