"""`kill -9` at the worst moments of a run: started again, it goes on and ends with the same table.

Each process kills itself just before a chosen step, so that every moment is hit for certain.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Finished, Lab

# Runs the command, and dies when a file is about to be renamed into place, or after so many answers are kept.
CODE = r"""
import os, re, signal, sys
os.environ.update(environment)
os.chdir(folder)
sys.stdout = sys.stderr = open(os.devnull, "w")
from stic_eval import store
from stic_eval.models import response_cache
from stic_eval.training import training_loop
training_loop.CHECKPOINT_SECONDS = 0.0  # a checkpoint at every step
response_cache._COMMIT_ANSWERS = 1
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
if isinstance(moment, str):
    def watch(event, args):
        if event == "os.rename" and re.search(moment, os.fsdecode(args[1])):
            die()
    sys.addaudithook(watch)
elif moment:
    put, left = store.ResponseStore.put_many, [moment]
    def put_many(self, responses):
        put(self, responses)
        left[0] -= 1
        if not left[0]:
            die()
    store.ResponseStore.put_many = put_many
from stic_eval.cli.app import main
main(argv)
"""
KEY = r"-[0-9a-f]{16}"
MOMENTS: tuple[int | str, ...] = (
    3,  # some answers of the first benchmark are there
    r"records/baseline\+dar/textvqa\.jsonl$",
    rf"pairs{KEY}\.\w+\.work/pairs\.parquet$",
    r"checkpoints/checkpoint-2/complete\.json$",  # of preference training: the second one is not sealed
    rf"/preference{KEY}$",
    rf"descriptions{KEY}\.\w+\.work/manifest\.json$",
    rf"infused_sft{KEY}\.\w+\.work/adapter$",
    r"records/stic/chartqa\.jsonl$",
    r"table\.tex$",
)


# A method whose plan interrupts whoever makes it.
PLANNING = """
import os, signal
from stic_eval.contracts.method import Method, Plan
from stic_eval.contracts.solver import NoOptions

def plan(config, data):
    os.kill(os.getpid(), signal.NAME)
    return Plan(None)

method = Method("mine", "Mine", plan, NoOptions)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize(
    "argv", [["run"], ["run", "--dry-run"], ["train"], ["ablate", "--vary", "dar=on,off"]]
)
def test_interrupted_while_it_plans_it_leaves_nothing(argv: list[str], name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLANNING.replace("NAME", name))
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from stic_eval.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *argv, "--method", "./mine.py", "--output", "results/run"],
        cwd=tmp_path, env={**os.environ, "STIC_EVAL_CACHE": str(tmp_path / "cache")}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert "interrupted; nothing had begun" in done.stderr or "--dry-run" in argv
    assert {path.name for path in tmp_path.iterdir()} <= {"mine.py", "__pycache__"}


def table(run: Path) -> Any:
    """The table but for the seconds that training took."""
    found = json.loads((run / "table.json").read_text())
    found["notes"] = [re.sub(r", [\d,]+ s\b", "", note) for note in found["notes"]]
    return found


def answers(run: Path) -> dict[str, list[Any]]:
    """Records but for the time that they took."""
    return {
        path.relative_to(run).as_posix(): [
            {k: v for k, v in json.loads(line).items() if k != "seconds"}
            for line in path.read_text().splitlines()
        ]
        for path in run.glob("records/*/*.jsonl")
    }


def stamps(lab: Lab) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in lab.stages.glob("*[0-9a-f]/manifest.json")}


def test_killed_everywhere_it_ends_with_the_table_of_a_run_in_peace(
    finished: Finished, tmp_path: Path
) -> None:
    lab = finished.lab.at(tmp_path)
    server = multiprocessing.get_context("forkserver")  # imports once what each process needs
    preloaded = ["stic_eval.training.dpo", "stic_eval.models.hf_model", "trl.trainer.sft_trainer"]
    server.set_forkserver_preload(preloaded)

    def run(moment: int | str | None) -> int | None:
        names = {
            "moment": moment,
            "argv": finished.argv,
            "folder": str(lab.folder),
            "environment": lab.environment,
        }
        process = server.Process(target=exec, args=(CODE, names))
        process.start()
        process.join(600)
        return process.exitcode

    kept: dict[str, int] = {}
    for moment in MOMENTS:
        assert run(moment) == -9, moment
        now = stamps(lab)
        assert now.items() >= kept.items(), moment  # nothing that was finished was made again
        kept = now
    assert {name.rpartition("-")[0] for name in kept} == {
        "pairs",
        "preference",
        "descriptions",
        "infused_sft",
    }
    assert run(None) == 0
    assert stamps(lab) == kept
    (folder,) = lab.runs()
    assert table(folder) == table(finished.folder)
    assert answers(folder) == answers(finished.folder)
    for stage in ("preference", "infused_sft"):
        ours, theirs = (
            (where.done(stage)[0] / "adapter" / "adapter_model.safetensors").read_bytes()
            for where in (lab, finished.lab)
        )
        assert ours == theirs, stage
    assert not list(lab.stages.glob("*.work"))
