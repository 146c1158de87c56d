"""A place to run the command in: a tiny real model, pictures, rows as data sets have them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = "textvqa,chartqa,mmbench"
# Few and short, so that a whole run takes seconds; rates so high that a handful of steps changes answers.
OPTIONS = (
    "stage1.images=6", "stage1.batch_size=2", "stage1.max_new_tokens=8", "stage1.learning_rate=0.01",
    "stage2.items=4", "stage2.batch_size=2", "stage2.max_new_tokens=8", "stage2.learning_rate=0.01",
    "lora.r=4", "lora.alpha=8", "dar.max_new_tokens=8",
)  # fmt: skip


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Lab:
    """The data of runs, and the folder that commands are run in.

    Attributes:
        folder: Working directory; `results/` and the cache come to lie in it.
        model: Folder of the tiny model.
        photos: Eight unlabeled images.
        instructions: LLaVA-format JSON, images by name in `photos`.
        rows: Benchmark -> JSONL file of rows in the real schema.
    """

    folder: Path
    model: Path
    photos: Path
    instructions: Path
    rows: Mapping[str, Path]

    @property
    def stages(self) -> Path:
        """The cache of finished stages."""
        return self.folder / "cache" / "stages"

    @property
    def environment(self) -> dict[str, str]:
        """What the command reads of the environment."""
        return {"STIC_EVAL_CACHE": str(self.folder / "cache"), "COLUMNS": "200"}

    def at(self, folder: Path) -> Lab:
        """The same data, another working directory and cache."""
        folder.mkdir(parents=True, exist_ok=True)
        return replace(self, folder=folder)

    def invoke(self, *argv: str | Path) -> Done:
        """Runs the command in this process."""
        from stic_eval.cli.app import invoke

        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = invoke([str(arg) for arg in argv])
        return Done(code, out.getvalue(), err.getvalue())

    def argv(self, command: str, *extra: str | Path, leave: tuple[str, ...] = ()) -> list[str]:
        """A command line on this data.

        Args:
            command: `run`, `train` or `eval`.
            *extra: Put behind.
            leave: Options of `OPTIONS` that start like this are left out.
        """
        found = [command, "--model", str(self.model)]
        if {"--no-dar", "sft"} & set(extra):  # no row is described first
            leave = (*leave, "dar.")
        if command != "eval":
            found += ["--images", str(self.photos), "--sft-data", str(self.instructions)]
            found += ["--image-root", str(self.photos)]
            for option in OPTIONS:
                found += ["-o", option] if not option.startswith(leave) else []
        if command != "train":
            found += ["--benchmarks", BENCHMARKS]
            for name, path in self.rows.items():
                found += ["-o", f"rows.{name}={path}"]
        return [*found, *map(str, extra)]

    def runs(self) -> list[Path]:
        """Folders of runs."""
        results = self.folder / "results"
        return sorted(results.iterdir()) if results.is_dir() else []

    def done(self, stage: str) -> list[Path]:
        """Finished folders of a stage."""
        return sorted(p for p in self.stages.glob(f"{stage}-*") if (p / "manifest.json").is_file())


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def textvqa(index: int) -> dict[str, Any]:
    return {
        "image_id": f"{index:016x}", "question_id": 34602 + index,
        "question": f"what is written on sign {index}?",
        "question_tokens": ["what", "is"], "image": f"images/{index}.{'jpg' if index % 2 else 'png'}",
        "image_width": 64, "image_height": 48, "flickr_original_url": "", "flickr_300k_url": "",
        "answers": ["stop"] * 7 + ["Stop"] * 2 + ["sign"], "image_classes": ["Sign"], "set_name": "val",
        "ocr_tokens": ["STOP"] if index % 2 else [],
    }  # fmt: skip


def chartqa(index: int, answer: str) -> dict[str, Any]:
    return {
        "type": "human_test" if index % 2 else "augmented_test", "question": f"How tall is bar {index}?",
        "answer": answer, "image": f"images/{index}.{'jpg' if index % 2 else 'png'}",
    }  # fmt: skip


def mmbench(index: int, rotation: int) -> dict[str, Any]:
    options = ["red", "green", "blue", "grey"]
    turned = options[rotation:] + options[:rotation]
    return {
        "index": index + 1_000_000 * rotation, "question": "Which colour is it?", "hint": "nan",
        "answer": "ABCD"[turned.index("blue")], **dict(zip("ABCD", turned, strict=True)),
        "category": "attribute_recognition", "image": f"images/{index}.png", "source": "drawn",
        "l2-category": "finegrained_perception (instance-level)", "comment": "nan", "split": "dev",
    }  # fmt: skip


# What a question may hold: markup of a terminal, of rich, LaTeX, Markdown and a spreadsheet.
HOSTILE = "[bold red]x[/] \x1b[2J\x1b]0;owned\x07 \x9b31m | `a` <b> \\input{/etc/passwd} & 50% =1+1"


@pytest.fixture(scope="session")
def lab(tiny_vlm: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Data and a working directory that tests share."""
    data = tmp_path_factory.mktemp("e2e-data")
    shutil.copytree(photos, data / "images")
    rows = {
        "textvqa": [textvqa(index) for index in range(6)],
        "chartqa": [chartqa(index, "12.5") for index in range(6)],
        "mmbench": [mmbench(2, rotation) for rotation in range(4)],
    }
    rows["textvqa"][5]["question"] = HOSTILE
    paths = {name: data / f"{name}.jsonl" for name in rows}
    items = [
        {"id": f"item-{index}", "image": f"{index}.{'jpg' if index % 2 else 'png'}",
         "conversations": [{"from": "human", "value": f"<image>\nWhat is in picture {index}?"},
                           {"from": "gpt", "value": f"A box and a disc, the {index}th."}]}
        for index in range(6)
    ]  # fmt: skip
    items.insert(
        2,
        {"id": "text", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}]},
    )
    (data / "llava.json").write_text(json.dumps(items))
    made = Lab(tmp_path_factory.mktemp("e2e"), tiny_vlm, photos, data / "llava.json", paths)

    def write() -> None:
        for name, path in paths.items():
            path.write_text("".join(json.dumps(row) + "\n" for row in rows[name]), encoding="utf-8")

    # The right answers to ChartQA are the base model's own, so that its scores differ from a trained one's.
    write()
    apart = made.at(tmp_path_factory.mktemp("e2e-base"))
    assert apart.invoke(*apart.argv("eval", "--benchmarks", "chartqa", "-q")).code == 0
    for row, record in zip(rows["chartqa"], records(apart.runs()[0], "baseline", "chartqa"), strict=True):
        row["answer"] = record["response"] or "nothing"
    write()
    return made


@pytest.fixture(scope="module")
def only_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Has one module at a time run Ray, on however many workers pytest-xdist has spread its tests.

    A cluster is a dozen processes. Each starts its own, and Ray gives up one whose nodes start slowly.
    """
    import fcntl

    # The folder that the workers' own lie in; the system takes the lock from one that dies.
    with (tmp_path_factory.getbasetemp().parent / "ray.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def records(run: Path, variant: str, benchmark: str) -> list[dict[str, Any]]:
    return rows_of(run / "records" / variant / f"{benchmark}.jsonl")


@dataclass(frozen=True)
class Finished:
    """A run of STIC from an empty cache.

    Attributes:
        lab: Where.
        argv: The command line.
        plan: What `--dry-run` said before.
        trace: Files that the dry run left.
        done: What the command left behind.
        folder: The run's folder.
    """

    lab: Lab
    argv: list[str]
    plan: Done
    trace: list[str]
    done: Done
    folder: Path


@pytest.fixture(scope="session")
def finished(lab: Lab) -> Finished:
    """STIC, baseline, both with and without describe-and-respond; read only."""
    argv = lab.argv("run", "--method", "stic", "--dar")
    plan = lab.invoke(*argv, "--dry-run")
    trace = sorted(os.listdir(lab.folder))
    done = lab.invoke(*argv)
    assert done.code == 0, done.err
    (folder,) = lab.runs()
    return Finished(lab, argv, plan, trace, done, folder)
