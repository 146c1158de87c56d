"""What all sides have in common: the work in its folder, and the result that they leave."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

ROOT = Path(__file__).parent.parent.parent
READY = "ready"
SLICE = 3.0  # seconds of a rival's turn
WARM_UP = "What is in the picture?"


@dataclass(frozen=True)
class Work:
    """What is to be done, as `work.json` in its folder holds it.

    Beside it lie, for each part, a folder of parquet files as `stic-eval data prepare` writes them (what
    this program reads) and `<part>.parquet` with the columns `id`, `prompt`, `target` and `image` (the same
    questions and the same encoded images: what rivals read).

    Attributes:
        model: A model's folder.
        parts: Benchmark -> most new tokens of an answer.
        describe: What describe-and-respond asks first; empty: questions are asked as they are.
        describe_tokens: Most new tokens of a description.
    """

    model: str
    parts: Mapping[str, int]
    describe: str = ""
    describe_tokens: int = 0

    def save(self, folder: Path) -> None:
        """Writes `work.json`."""
        (folder / "work.json").write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Work:
        """Reads `work.json`."""
        return cls(**json.loads((folder / "work.json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Done:
    """What a side did.

    Attributes:
        began: When the clock started, with the model loaded; of `time.monotonic`.
        ended: When the last answer was there, scored and written where the side does that.
        cpu_seconds: Of all its threads.
        answers: `<part>/<id>` -> answer, without white space around it.
        prompts: `<part>/<id>` -> token ids that the model was given, of the rows that were looked at.
        facts: Whatever else is worth knowing, e.g. the batch size.
        seconds: Between the two, less what a side was stopped for.
    """

    began: float
    ended: float
    cpu_seconds: float
    answers: Mapping[str, str]
    prompts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def write(done: Done, out: Path) -> None:
    """Leaves a side's result for the bench."""
    out.write_text(json.dumps(asdict(done)), encoding="utf-8")


@dataclass(frozen=True)
class Clock:
    """When a side began: by `time.monotonic`, and in seconds of processor time that it had used."""

    began: float
    used: float

    def done(self, answers: Mapping[str, str], **more: Any) -> Done:
        """What has been done since, now that it is."""
        now, used = time.monotonic(), time.process_time()
        return Done(self.began, now, used - self.used, answers, **more)


def begin() -> Clock:
    """Says that this side is ready, and waits until it may begin."""
    print(READY, flush=True)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads on: a full pipe would block
    sys.stdin.readline()
    return Clock(time.monotonic(), time.process_time())


def alone(side: str, folder: Path, *argv: str) -> Done:
    """Runs a side to its end.

    Args:
        side: A module of this package.
        folder: The work.
        argv: What else the side is told.

    Raises:
        RuntimeError: It failed; with the last lines that it wrote.
    """
    with _ready(side, folder, argv) as running:
        running.go()
        return running.done()


def in_turn(
    folder: Path, theirs: Sequence[str], ours: Sequence[str], goal: float, slice_seconds: float = SLICE
) -> tuple[Done, Done]:
    """Runs two sides by turns, one of them stopped while the other works, so that both have the same machine.

    Each is loaded and ready before either begins. A turn of the rival is `goal` times as long as one of this
    program's, so that both are done at about the same time where the goal is just reached.

    Args:
        folder: The work.
        theirs: The rival: its module, and what it is told.
        ours: This program's side, likewise.
        goal: The ratio of the turns.
        slice_seconds: Of a rival's turn.

    Returns:
        What the rival and what this program did, `seconds` without those in which a side was stopped.

    Raises:
        RuntimeError: A side failed; with the last lines that it wrote.
    """
    with _ready(theirs[0], folder, theirs[1:]) as rival, _ready(ours[0], folder, ours[1:]) as own:
        turns = {rival: slice_seconds, own: slice_seconds / max(goal, 1.0)}
        active: dict[_Running, list[tuple[float, float]]] = {side: [] for side in turns}
        for side in turns:
            side.process.send_signal(signal.SIGSTOP)
            side.go()
        while unfinished := [side for side in turns if side.process.poll() is None]:
            for side in unfinished:
                since = time.monotonic()
                side.process.send_signal(signal.SIGCONT)
                with suppress(subprocess.TimeoutExpired):
                    side.process.wait(turns[side])
                side.process.send_signal(signal.SIGSTOP)
                active[side].append((since, time.monotonic()))
        found = [side.done() for side in turns]
        there, here = (
            replace(done, seconds=overlap((done.began, done.ended), active[side]))
            for side, done in zip(turns, found, strict=True)
        )
        return there, here


def overlap(span: tuple[float, float], slices: Sequence[tuple[float, float]]) -> float:
    """How much of a span of time lies within slices that do not overlap each other."""
    return sum(max(0.0, min(span[1], end) - max(span[0], start)) for start, end in slices)


@dataclass(frozen=True, eq=False)
class _Running:
    """A side's process, and where it leaves what it did and what it complains of."""

    name: str
    process: subprocess.Popen[str]
    out: Path
    complaint: IO[str]

    def go(self) -> None:
        """Lets it begin."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def ended(self) -> None:
        """Waits for its end."""
        if self.process.wait():
            self.complaint.seek(0)
            last = self.complaint.read()[-2000:]
            raise RuntimeError(f"bench.rivals.{self.name}: exit code {self.process.returncode}\n{last}")

    def done(self) -> Done:
        """Waits for its end, and reads what it left."""
        self.ended()
        found = Done(**json.loads(self.out.read_text(encoding="utf-8")))
        return replace(found, seconds=found.ended - found.began)


@contextmanager
def _ready(side: str, folder: Path, argv: Sequence[str]) -> Iterator[_Running]:
    """A side that has been loaded and waits to begin; it ends with the block at the latest."""
    out = folder / f"{side}.json"
    out.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "datasets"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, "-m", f"bench.rivals.{side}", str(folder), str(out), *argv]
    with (
        tempfile.TemporaryFile("w+") as complaint,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaint,
        ) as process,
    ):  # fmt: skip
        running = _Running(f"{side} {' '.join(argv)}".strip(), process, out, complaint)
        try:
            assert process.stdout is not None
            if not any(line.strip() == READY for line in process.stdout):
                running.ended()
                raise RuntimeError(f"bench.rivals.{running.name}: ended before it was ready")
            yield running
        finally:
            process.kill()  # also where it is stopped; of one that has ended, nothing


def warm_up_image(size: int = 96) -> Image:
    """A picture that is in no work: noise."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(7).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(image: Image) -> bytes:
    """An image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
