"""Memory in long runs: what a hundred times as many requests take beyond the first thousand.

A random LLaVA of some thousand parameters, behind the response cache as in every run, is asked about real
image files by a generator of requests, once 1,000 times and once 100,000 times, each in a process of its own.
A thousand requests have seen every image. The figure is the difference of the two peaks of resident memory,
sampled while answers come. No rival.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.pocket import Measured
from bench.rivals import works
from stic_eval.types import ImageRef, Request

FEW, MANY = 1_000, 100_000
IMAGES, SIZE = 300, (640, 480)
CEILING_MB = 50.0  # 10^6 bytes
SAMPLED_EVERY = 0.02  # seconds
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
DECODER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}


def measure() -> list[Measured]:
    """Asks few and many; some minutes.

    Raises:
        RuntimeError: A process failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        works.larger_model(folder / "model", TOWER, DECODER, image=32)
        (folder / "images").mkdir()
        for number in range(IMAGES):
            works.photograph(number, SIZE).save(folder / "images" / f"{number}.jpg", quality=90)
        few, many = peak(folder, FEW), peak(folder, MANY)
    work = f"resident memory, {MANY:,} requests beyond {FEW:,} (peak {many:.0f} MB)"
    return [Measured(work, "MB", many - few, CEILING_MB)]


def peak(folder: Path, count: int) -> float:
    """The peak of resident memory over so many requests, in a process of its own, in MB.

    Raises:
        RuntimeError: The process failed; with the last lines that it wrote.
    """
    command = [sys.executable, "-m", "bench.memory", str(folder), str(count)]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def requests(images: list[ImageRef], count: int) -> Iterator[Request]:
    """Questions, no two alike, three in a row about the same image; each is answered by one token."""
    from stic_eval.types import Generation, Message

    for number in range(count):
        image = images[number // 3 % len(images)]
        text = f"Which of the {number} objects in the picture is it?"
        yield Request((Message("user", text),), (image,), Generation(max_new_tokens=1))


def asked(folder: Path, count: int) -> float:
    """Asks, and drops every answer; the peak of this process's resident memory meanwhile, in MB."""
    import threading
    from contextlib import closing

    import psutil

    from stic_eval.image_sources import scan_images
    from stic_eval.models.hf_model import HFModel
    from stic_eval.models.response_cache import CachedVLM
    from stic_eval.store import ResponseStore

    images, _ = scan_images(folder / "images")
    model = HFModel.load(str(folder / "model"), device="cpu", dtype="float32")
    process, over, highest = psutil.Process(), threading.Event(), 0

    def sample() -> None:
        nonlocal highest
        while not over.wait(SAMPLED_EVERY):
            highest = max(highest, process.memory_info().rss)

    watch = threading.Thread(target=sample)
    watch.start()
    answered = 0
    try:
        with closing(ResponseStore(folder / f"responses-{count}.sqlite")) as store:
            cached = CachedVLM(lambda: model, model.fingerprint, store)
            for _ in cached.generate(requests(images, count)):
                answered += 1
    finally:
        over.set()
        watch.join()
    if answered != count:
        raise RuntimeError(f"{answered} answers to {count} requests")
    return highest / 1e6


if __name__ == "__main__":
    print(asked(Path(sys.argv[1]), int(sys.argv[2])))
