"""A stage that several processes train together, each on a GPU (or CPU) of its own: a gang.

torchrun or accelerate starts `stic_eval.training.worker` so many times, in a process group of its own. They
live as long as whoever started them, and as each other: where one dies, the gang ends, and the stage goes on
from its last sealed checkpoint, with as many processes as there are then.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict

from stic_eval.contracts.method import SFTItem, TrainingImages
from stic_eval.documents import from_json
from stic_eval.errors import RunError, UserError
from stic_eval.models import devices
from stic_eval.settings import RunConfig
from stic_eval.store import atomic_write
from stic_eval.training.gang_launch import launch_command, size
from stic_eval.training.hyperparameters import PreferenceLoss, Training
from stic_eval.training.item_files import write_items
from stic_eval.training.lora import LoraSettings
from stic_eval.training.trackers import Tracking, current

FOLDER = "gang"  # in a stage's: what it is told, and what it says
_GRACE = 20.0  # seconds in which a gang that is told to end does so by itself


class StageSpec(BaseModel):
    """One training stage, whole: what `python -m stic_eval.training.worker` is given as a file.

    Attributes:
        config: Of the run: the model, and how it is loaded.
        kind: `preferences` (of `data`, a pairs file) or `fine_tuning` (on `data`, an items file).
        out: The stage's folder, in which it goes on from what is there.
        start: Adapter to go on from; None: a new one.
        loss: Of preferences.
        reference: What these are held to, where there is an adapter to go on from.
        checkpoint_seconds: A kill costs at most so much training.
        tracking: Where rank 0 reports to; None: nowhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    config: RunConfig
    kind: Literal["preferences", "fine_tuning"]
    data: Path
    out: Path
    training: Training
    lora: LoraSettings
    seed: int
    images: TrainingImages = "as_generated"
    start: Path | None = None
    loss: PreferenceLoss | None = None
    reference: Literal["previous", "base"] = "previous"
    checkpoint_seconds: float = 60.0
    tracking: Tracking | None = None


@dataclass(frozen=True)
class Gang:
    """What trains a run's stages where several processes do: it stands for the model that one would train.

    Attributes:
        config: Of the run; says how many they are.
        release: Called before they begin, for the memory that a model in this process has.
    """

    config: RunConfig
    release: Callable[[], None]

    @property
    def device(self) -> Any:
        """The device of a model in this process."""
        import torch

        return torch.device(devices.device_of(self.config.device))

    def __getattr__(self, name: str) -> Any:
        """Nothing else of a model: a stage that trains by code of its own has to have that here.

        Raises:
            UserError: It asks for it.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        raise UserError(
            f"a stage trains with its own code (it uses the model's {name}), which works in one process; "
            "leave out --gpus"
        )

    def train(
        self,
        data: Path | Sequence[SFTItem],
        out: Path,
        *,
        progress: Callable[[int, int], None] | None,
        log: Callable[[str], None],
        **stage: Any,
    ) -> None:
        """Has a stage trained; it leaves what it leaves in one process.

        Args:
            data: A pairs file, or items.
            out: The stage's folder.
            progress: Told (steps done, steps in all).
            log: Told what rank 0 logs.
            stage: The other fields of `StageSpec`.

        Raises:
            UserError: As training in one process.
            RunError: As well, or a process has ended; what it was doing goes on from the last checkpoint.
        """
        folder = out.absolute() / FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if not isinstance(data, Path):
            write_items(data, folder / "items.parquet")
            data = folder / "items.parquet"
        where = {"config": self.config, "data": data.absolute(), "out": out.absolute(), "tracking": current()}
        kind = "preferences" if "loss" in stage else "fine_tuning"
        spec = StageSpec.model_validate({**where, **stage, "kind": kind})
        atomic_write(folder / "spec.json", spec.model_dump_json(indent=1))
        self.release()
        count = size(self.config)
        log(f"{count} processes train ({self.config.strategy}); their messages are in {folder}/stderr.txt")
        _run(launch_command(self.config, folder), folder, count, progress, log)
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    command: Sequence[str],
    folder: Path,
    count: int,
    progress: Callable[[int, int], None] | None,
    log: Callable[[str], None],
) -> None:
    threads = max(1, (os.cpu_count() or 1) // count)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    with (folder / "stderr.txt").open("wb") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment,
            start_new_session=True, text=True, errors="replace",
        )  # fmt: skip
    try:
        # Ranks have sessions of their own: one whose launcher was killed ends by the end of its input.
        threading.Thread(target=_close_input, args=(process,), daemon=True).start()
        assert process.stdout is not None
        for line in process.stdout:
            said = _said(line)
            if "done" in said and progress is not None:
                progress(said["done"], said["total"])
            elif "log" in said:
                log(said["log"])
        code = process.wait()
    finally:
        _end(process)
    if code:
        raise _failure(folder, count)


def _said(line: str) -> dict[str, Any]:
    """What rank 0 tells in a line of its output; nothing where some library wrote it."""
    try:
        found = from_json(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _close_input(process: subprocess.Popen[str]) -> None:
    process.wait()
    _close(process.stdin)


def _close(pipe: IO[str] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:  # nobody is left to read
        pass


def _end(process: subprocess.Popen[str]) -> None:
    """Ends a gang, if it has not ended; whoever is interrupted waits for it, that it may be started again."""
    if process.poll() is None:
        process.terminate()  # the launcher ends its ranks
    _close(process.stdin)
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    _close(process.stdout)


def _failure(folder: Path, count: int) -> UserError | RunError:
    """Why a gang has ended: what a rank says of it, or how it died."""
    said = [_read(path) for path in sorted(folder.glob("failed-*.json"))]
    for kind in (UserError, RunError):
        for one in said:
            if one.get("kind") == kind.__name__:
                return kind(str(one.get("text")))
    log = folder / "stderr.txt"
    text = log.read_text(encoding="utf-8", errors="replace")
    # Of torchrun's summary; the others are ended by signal 15, or by the connection that they have lost.
    ends = re.findall(r"rank\s*:\s*(\d+).*?\n\s*exitcode\s*:\s*(-?\d+)", text)
    killed = [f"rank {rank} was killed by signal {-int(code)}" for rank, code in ends if int(code) < 0]
    killed = [one for one in killed if not one.endswith("signal 15")] or killed
    others = [str(one["text"]) for one in sorted(said, key=lambda one: one.get("time", 0)) if "text" in one]
    why = next(iter([*killed, *others]), "its launcher failed")
    return RunError(
        f"one of {count} processes that train together ended: {why} (see {log}); the same command goes on "
        "from the last checkpoint"
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = from_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
