"""This program's side: benchmarks from parquet to records, or the requests of stage 1.

`python -m bench.rivals.ours FOLDER OUT [evaluate|prompts|pairs]`. `prompts` times nothing: it gives the token
ids of every part's first questions, each asked alone and without reuse of anything.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.rivals.side import WARM_UP, Done, Work, begin, warm_up_image, write
from stic_eval import registry
from stic_eval.contracts.benchmark import Benchmark
from stic_eval.evals.runner import encode, evaluate
from stic_eval.evals.sources import samples
from stic_eval.images import ref_from_pil
from stic_eval.models.hf_model import HFModel
from stic_eval.store import atomic_write
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import Generation, Message, Request

LOOKED_AT = 4  # questions of each part whose prompts are compared


def load(model: str, **more: Any) -> HFModel:
    """The model, after its first answer; what reading rows takes is imported, as on the other sides."""
    import datasets  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    loaded = HFModel.load(model, device="cpu", dtype="float32", **more)
    for temperature in (0.0, 0.2):
        how = Generation(max_new_tokens=4, temperature=temperature)
        list(
            loaded.generate([Request((Message("user", WARM_UP),), (ref_from_pil(warm_up_image(), ""),), how)])
        )
    return loaded


def parts(work: Work) -> Iterator[Benchmark]:
    """The benchmarks with the work's bounds on answers."""
    known = registry.benchmarks()
    for name, most in work.parts.items():
        found = known.get(name)
        yield replace(found, generation=replace(found.generation, max_new_tokens=most))


def evaluated(work: Work, folder: Path) -> Done:
    """Evaluates every part: rows read, asked, scored, recorded."""
    model = load(work.model)
    answers = {}
    described = {"prompt": work.describe, "max_new_tokens": work.describe_tokens} if work.describe else {}
    solver = registry.solvers().get("describe_and_respond" if described else "direct")
    clock = begin()
    for benchmark in parts(work):
        records, _ = evaluate(
            benchmark,
            samples(benchmark, folder / benchmark.name),
            model,
            solver,
            solver.options(**described),
            prompts=load_prompts(),
            progress=lambda done, total: None,
        )
        atomic_write(folder / "records" / f"{benchmark.name}.jsonl", encode(records))
        for record in records:
            answers[f"{benchmark.name}/{record.id}"] = record.response.strip()
            if record.description is not None:
                answers[f"{benchmark.name}/{record.id}/description"] = record.description.strip()
    return clock.done(answers)


def prompts(work: Work, folder: Path) -> Done:
    """Token ids of some prompts, as the model's first layer is given them."""
    model = load(work.model, batch_size=1, reuse=False)
    clock = begin()
    found: dict[str, list[int]] = {}
    ids: list[list[int]] = []

    def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs.get("input_ids", args[0] if args else None)
        if given is not None:
            ids.append(given[0].tolist())

    handle = model.model.register_forward_pre_hook(look, with_kwargs=True)
    for benchmark in parts(work):
        for sample in samples(benchmark, folder / benchmark.name)[:LOOKED_AT]:
            ids.clear()
            request = Request(
                (Message("user", sample.question),), sample.images, Generation(max_new_tokens=1)
            )
            list(model.generate([request]))
            found[f"{benchmark.name}/{sample.id}"] = max(ids, key=len)
    handle.remove()
    return clock.done({}, prompts=found)


def pairs(work: Work, folder: Path) -> Done:
    """Answers all requests of stage 1, in the order that the model likes."""
    from bench.rivals.stage1 import asked

    model = load(work.model)
    clock = begin()
    requests = {request: name for name, request in asked(work, folder)}
    answers = {requests[request]: response.text for request, response in model.generate(list(requests))}
    return clock.done(answers)


if __name__ == "__main__":
    where, out, *rest = sys.argv[1:]
    side = {"evaluate": evaluated, "prompts": prompts, "pairs": pairs}[rest[0] if rest else "evaluate"]
    write(side(Work.read(Path(where)), Path(where)), Path(out))
