"""A world in which a whole run takes a second or two, and commands in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from stic_eval.evals.judging import OWN
from tests.conftest import build_vlm, draw_photos
from tests.faults.fork_server import Ended, ForkServer
from tests.faults.inputs import charts, items
from tests.faults.power_cut import flush_all
from tests.support.judge_server import says, serving

OPTIONS = (
    "stage1.images=2", "stage1.batch_size=1", "stage1.epochs=1", "stage1.max_new_tokens=4",
    "stage1.learning_rate=0.01", "stage2.items=2", "stage2.batch_size=1", "stage2.max_new_tokens=4",
    "stage2.learning_rate=0.01", "lora.r=2", "lora.alpha=4", "dar.max_new_tokens=2",
)  # fmt: skip
COMMANDS = ("run", "ablate", "score", "export pairs", "export adapter", "import", "data prepare", "report")


@dataclass(frozen=True)
class World:
    """Data of commands, which run in copies of `begun`.

    Attributes:
        data: Model, photos, rows, items and answers; nothing writes there.
        begun: A folder with a finished run and its cache.
        run: How that run ended.
        flushed: What of `begun` was on the disk then (`power_cut`).
        judge: The address of a judge.
    """

    data: Path
    begun: Path
    run: Ended
    flushed: Path
    judge: str

    def argv(self, command: str) -> list[str | Path]:
        """A command line of one of `COMMANDS`."""
        data = self.data
        rows = ["--benchmarks", "chartqa", "-o", f"rows.chartqa={data / 'chartqa.jsonl'}"]
        given: list[str | Path] = ["--model", data / "model", "--images", data / "photos", *rows]
        given += ["--sft-data", data / "llava.json", "--image-root", data / "photos"]
        for option in OPTIONS:
            # No cell of the ablation is described first.
            given += [] if command == "ablate" and option.startswith("dar.") else ["-o", option]
        lines: dict[str, list[str | Path]] = {
            "run": ["run", *given, "--method", "stic", "--output", "run"],
            "ablate": ["ablate", *given, "--vary", "infusion=own,none", "--no-dar", "--output", "grid"],
            "score": [
                "score", "mmvet", "--predictions", data / "answers.jsonl", "--rows", data / "mmvet.jsonl",
                "--judge", "judge-1", "--judge-base-url", self.judge, "--judge-api-key-env", "",
                "--judge-protocol", OWN, "--json", "scores.json", "-o", "judge.concurrency=1",
            ],
            "export pairs": ["export", "pairs", "run", "--to", "llama-factory", "--output", "pairs"],
            "export adapter": ["export", "adapter", "run", "--merge", "--output", "merged"],
            "import": ["import", "pairs", data / "exported", "--output", "pairs.parquet"],
            "data prepare": [
                "data", "prepare", "chartqa", "--from", data / "chartqa.jsonl", "--to", "prepared",
            ],
            "report": ["report", "run", "--image-budget", "0"],
        }  # fmt: skip
        return [*lines[command], *([] if command in ("score", "data prepare", "export pairs") else ["-q"])]

    def begin(self, command: str, folder: Path) -> Path:
        """Makes the folder that a command begins in: for `run` an empty one."""
        if command == "run":
            folder.mkdir(parents=True)
        else:
            shutil.copytree(self.begun, folder)
        return folder


@contextmanager
def small_world(data: Path, server: ForkServer) -> Iterator[World]:
    """Makes a world."""
    build_vlm(data / "model")
    draw_photos(data / "photos", 3)
    draw_photos(data / "images", 3)
    vets = [
        {"question_id": f"v1_{index}", "question": f"How many are there in {index}?", "answer": "three",
         "capability": "ocr", "image": "images/0.png"}
        for index in range(2)
    ]  # fmt: skip
    answers = [{"id": row["question_id"], "response": f"about {index}"} for index, row in enumerate(vets)]
    for name, found in (("chartqa", charts("images")), ("mmvet", vets), ("answers", answers)):
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    (data / "llava.json").write_text(json.dumps(items()))
    begun, flushed = data / "begun", data / "flushed"
    begun.mkdir()
    flush_all(begun, flushed)
    with serving(lambda *_: says("It names something.\n\nVerdict: 0.5")) as judge:
        world = World(data, begun, Ended(0, [], "", 0.0), flushed, judge.url)
        run = server.run(world.argv("run"), begun, flushed=flushed)
        export = ["export", "pairs", "run", "--to", "trl", "--output", data / "exported"]
        for done in (run, server.run(export, begun)):
            assert done.code == 0, done.output
        yield replace(world, run=run)
