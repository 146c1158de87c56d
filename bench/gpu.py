"""What a GPU makes of the real sizes: `python -m bench.gpu`, under ten minutes on a large one.

A random model of LLaVA-1.5-7B's shape in bfloat16: descriptions for pairs, four questions on each of some
pictures, and steps of both stages with an adapter of rank 64. For each tokens a second, floating-point
operations (two for each of the decoder's parameters and token in a pass, three passes for a gradient) against
the fastest product of two square matrices on the same device, and peak memory; for generation also against
transformers' `generate` with as many rows at most. Written to bench/results/gpu.json. `--tiny` is the same on
two layers, for trying the command where there is no GPU.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.__main__ import machine, write
from bench.rivals.works import PATCH, SIDE, larger_model, photograph
from bench.training import VOCABULARY, loaded, made_rows, our_dpo, our_sft, quiet, widened

if TYPE_CHECKING:
    from stic_eval.models.hf_model import HFModel
    from stic_eval.types import Request


@dataclass(frozen=True)
class Size:
    """A model's sizes, and how much it is given.

    Attributes:
        tower: Of the CLIP tower.
        decoder: Of the Llama decoder.
        pictures: That are described, and asked about.
        described: New tokens of a description.
        batch: Requests under way.
        rows: Pairs, and rows, in a step.
    """

    tower: dict[str, int]
    decoder: dict[str, int]
    pictures: int
    described: int
    batch: int
    rows: int


def _sizes(hidden: int, intermediate: int, layers: int, heads: int) -> dict[str, int]:
    return {
        "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }  # fmt: skip


LLAVA_7B = Size(_sizes(1024, 4096, 24, 16), _sizes(4096, 11008, 32, 32), 64, 128, 64, 8)
TINY = Size(_sizes(32, 64, 2, 2), _sizes(64, 128, 2, 2), 2, 4, 4, 2)
QUESTIONS, ANSWERED = 4, 16  # on each picture, and new tokens of their answers
PEAK, TRIES = 8192, 10  # of the square matrices


@dataclass(frozen=True)
class Figures:
    """What one work came to.

    Attributes:
        work: Which.
        seconds: Wall time.
        tokens: That the decoder has read or written.
        tokens_per_second: Of these.
        share_of_peak: Percent of the fastest product's operations a second.
        peak_memory_gb: Largest that torch had allocated, in 10^9 bytes; None on a CPU.
        generate_seconds: Of `generate` for the same requests; None for training.
    """

    work: str
    seconds: float
    tokens: int
    tokens_per_second: float
    share_of_peak: float
    peak_memory_gb: float | None
    generate_seconds: float | None = None


def measure(size: Size, device: str) -> list[Figures]:
    """Everything, on one device."""
    from stic_eval.models.free_memory import RowLimit

    with quiet(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = widened(larger_model(folder / "model", size.tower, size.decoder, kind="bfloat16"))
        hf = loaded(str(path), "bfloat16", device)
        hf._loaded.rows = RowLimit(size.batch)
        best, parameters = peak(device), size_of(hf)
        found = [
            generation(work, hf, requests, best, parameters)
            for work, requests in (
                ("descriptions", asked(size.pictures, ["Describe the image."], size.described)),
                ("questions", asked(size.pictures, [f"What is {n}?" for n in range(QUESTIONS)], ANSWERED)),
            )
        ]
        rows = made_rows(4 * size.rows)
        for work, train, passes in (("DPO step", our_dpo, 2 * 4), ("SFT step", our_sft, 3)):
            reset(device)
            steps = train(hf, rows, size.rows, folder / work.partition(" ")[0]).seconds
            seconds = sum(steps) / len(steps)
            # A row of 576 image tokens, a question and an answer of some 60 words, twice for a pair.
            tokens = size.rows * ((SIDE // PATCH) ** 2 + 90)
            found.append(figures(work, seconds, tokens, passes * parameters * 2 * tokens, best, device))
        return found


def asked(pictures: int, questions: Sequence[str], most: int) -> list[Request]:
    """Each question about each picture."""
    from stic_eval.types import Generation, ImageRef, Message, Request

    images = [photograph(n) for n in range(pictures)]
    refs = [ImageRef(f"picture {n}", str(n), image.copy) for n, image in enumerate(images)]
    how = Generation(max_new_tokens=most)
    return [Request((Message("user", text),), (ref,), how) for ref in refs for text in questions]


def generation(work: str, hf: HFModel, requests: Sequence[Request], best: float, parameters: int) -> Figures:
    """Answers requests here, and by `generate`; a few of them first, untimed."""
    from stic_eval.models.plain_generation import answers

    device = str(hf.device)
    weights = hf._loaded
    ways: tuple[Callable[[Sequence[Request]], Any], ...] = (
        hf.generate,
        lambda some: answers(weights, None, "", some),
    )
    for way in ways:
        list(way(requests[:2]))
    reset(device)
    seconds, done = timed(lambda: list(ways[0](requests)), device)
    memory = allocated(device)
    theirs, _ = timed(lambda: list(ways[1](requests)), device)
    new = sum(response.n_tokens for _, response in done)
    read = len(requests) * (SIDE // PATCH) ** 2
    found = figures(work, seconds, read + new, 2 * parameters * (read + new), best, device)
    return Figures(**{**asdict(found), "peak_memory_gb": memory, "generate_seconds": round(theirs, 2)})


def figures(work: str, seconds: float, tokens: int, flops: float, best: float, device: str) -> Figures:
    """What is told of a work."""
    share = 100 * flops / seconds / best
    return Figures(
        work, round(seconds, 3), tokens, round(tokens / seconds, 1), round(share, 2), allocated(device)
    )


def size_of(hf: HFModel) -> int:
    """Parameters of the decoder: what a token goes through."""
    from stic_eval.models.vision import text_decoder

    return sum(parameter.numel() for parameter in text_decoder(hf.model).parameters())


def peak(device: str) -> float:
    """The fastest product of two square matrices in bfloat16, in operations a second."""
    import torch

    n = PEAK if device.startswith("cuda") else PEAK // 16
    left = torch.randn(n, n, dtype=torch.bfloat16, device=device)
    times = [timed(lambda: left @ left, device)[0] for _ in range(TRIES)]
    return 2.0 * n**3 / min(times)


def timed(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds until the device is done, and what the work gave."""
    wait(device)
    start = time.perf_counter()
    found = work()
    wait(device)
    return time.perf_counter() - start, found


def wait(device: str) -> None:
    """Until the device is done."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()


def reset(device: str) -> None:
    """Counts the peak of memory from here on."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def allocated(device: str) -> float | None:
    """Largest memory since `reset`, in 10^9 bytes."""
    import torch

    return round(torch.cuda.max_memory_allocated() / 1e9, 2) if device.startswith("cuda") else None


def main() -> None:
    """Measures, prints and writes."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU; writes nothing")
    given = parser.parse_args()
    if not given.tiny and not torch.cuda.is_available():
        raise SystemExit("no CUDA device: nothing to measure (--tiny tries the command on the CPU)")
    found = measure(TINY if given.tiny else LLAVA_7B, "cpu" if given.tiny else "cuda")
    for one in found:
        print(one)
    if not given.tiny:
        facts = {**machine(), "gpu": torch.cuda.get_device_name(), "vocabulary": VOCABULARY}
        write("gpu", facts, {"works": [asdict(one) for one in found]})


if __name__ == "__main__":
    main()
