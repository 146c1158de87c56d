"""What generation is limited by: where its time goes, and how near the matrix products are to the machine.

`python -m bench.limits` answers the questions of the bench `generation` on the embedded and on the larger
model under torch's profiler, in this process, and writes bench/results/limits.json. Shares are of the time
inside torch's operators; the products' speed is held against the fastest product of two square matrices that
was seen in the same process. Shares are of the engine's calls alone: reading rows and scoring are outside.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.__main__ import machine, write
from bench.generation import IMAGES, NEW_TOKENS, QUESTIONS
from bench.rivals import ours, works
from stic_eval.types import Request

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "mkldnn_convolution")
SIZE, TRIES = 2048, 8  # of the square matrices


@dataclass(frozen=True)
class Limits:
    """Where the time of one work goes.

    Attributes:
        work: What was answered.
        questions: How many.
        seconds: Wall time, the profiler's own included.
        products: Percent of operators' time in matrix products and convolutions.
        attention: Percent of it in scaled dot products.
        gflops: 10^9 operations a second within the products.
        peak: The same of the fastest product of square matrices.
        padding: Percent of the tokens of passes over prompts that are padding.
    """

    work: str
    questions: int
    seconds: float
    products: float
    attention: float
    gflops: float
    peak: float
    padding: float


def peak() -> float:
    """The fastest product of two square matrices in float32, in 10^9 operations a second."""
    import torch

    left, right = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    seconds = []
    for _ in range(TRIES):
        start = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(seconds) / 1e9


def profiled(work: str, model: Path, requests: Sequence[Request]) -> Limits:
    """Answers requests under the profiler."""
    from torch.profiler import ProfilerActivity, profile

    from stic_eval.models.forward_passes import Passes

    loaded = ours.load(str(model))
    tokens = {"real": 0, "all": 0}
    whole = Passes.prefill

    def counted(self: Any, prompts: Any, *args: Any, **kwargs: Any) -> Any:
        tokens["real"] += sum(map(len, prompts))
        tokens["all"] += len(prompts) * max(map(len, prompts))
        return whole(self, prompts, *args, **kwargs)

    Passes.prefill = counted  # type: ignore[method-assign]
    try:
        with profile(activities=[ProfilerActivity.CPU], with_flops=True) as watch:
            start = time.perf_counter()
            for _ in loaded.generate(requests):
                pass
            seconds = time.perf_counter() - start
    finally:
        Passes.prefill = whole  # type: ignore[method-assign]
    events: list[Any] = list(watch.key_averages())

    def spent(names: Sequence[str]) -> float:
        own = (e for e in events if e.key.removeprefix("aten::").strip("_") in names)
        return float(sum(event.self_cpu_time_total for event in own))

    every = sum(event.self_cpu_time_total for event in events)
    attention = sum(e.self_cpu_time_total for e in events if "scaled_dot_product" in e.key)
    operations = sum(event.flops for event in events if event.flops)
    return Limits(
        work, len(requests), round(seconds, 2), round(100 * spent(PRODUCTS) / every, 1),
        round(100 * attention / every, 1), round(operations / spent(PRODUCTS) / 1e3, 1), round(peak(), 1),
        round(100 * (1 - tokens["real"] / tokens["all"]), 1),
    )  # fmt: skip


def requests_of(folder: Path, model: Path, parts: Sequence[works.Part]) -> list[Request]:
    """The questions that the bench `generation` asks directly."""
    from stic_eval.evals.sources import samples
    from stic_eval.solvers.requests import question

    work = works.lay_out(folder, model, parts)
    return [
        question(sample, benchmark.generation)
        for benchmark in ours.parts(work)
        for sample in samples(benchmark, folder / benchmark.name)
    ]


def main() -> None:
    """Profiles both models, prints and writes what came out."""
    facts = machine()
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = works.pocket_model(folder / "small")
        large = works.larger_model(folder / "large")
        parts = list(works.pocket_parts())
        seven = requests_of(folder / "seven", small, parts)
        found.append(profiled("seven benchmarks, embedded model", small, seven))
        several = requests_of(
            folder / "several", large, list(works.larger_parts(IMAGES, QUESTIONS, NEW_TOKENS))
        )
        found.append(profiled(f"{IMAGES} images, {QUESTIONS} questions each, larger model", large, several))
    write("limits", facts, {"limits": [asdict(one) for one in found]})
    for one in found:
        print(
            f"{one.work}: {one.questions} questions in {one.seconds} s; {one.products} % matrix products at "
            f"{one.gflops} of {one.peak} GFLOP/s, {one.attention} % attention; {one.padding} % padding"
        )


if __name__ == "__main__":
    main()
