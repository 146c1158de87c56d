"""lmms-eval's side: its own evaluator and its own model class `llava_hf`, on a work's rows.

`python -m bench.rivals.lmms FOLDER OUT`. The clock runs while its `evaluate` does: model, tasks and data sets
are loaded before it starts. Tasks score by comparing with the target, the least that a task can do.

The class imports `decord`, which reads videos: an empty module stands in for it where it is not installed.
It refuses every batch size but 1.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.rivals.side import WARM_UP, Done, Work, begin, warm_up_image, write


def task(name: str, path: Path, most: int, seen: list[str]) -> Any:
    """A part of the work as lmms-eval's task; the key of each row whose picture is taken goes to `seen`."""
    from lmms_eval.api.task import ConfigurableTask

    def picture(doc: Mapping[str, Any]) -> list[Any]:
        seen.append(f"{name}/{doc['id']}")
        return [doc["image"].convert("RGB")]

    return ConfigurableTask(
        config={
            "task": name,
            "dataset_path": "parquet",
            "dataset_kwargs": {"data_files": {"test": str(path)}},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_visual": picture,
            "doc_to_text": lambda doc: doc["prompt"],
            "doc_to_target": "target",
            "generation_kwargs": {"max_new_tokens": most, "temperature": 0, "do_sample": False},
            "process_results": lambda doc, results: {"right": float(results[0].strip() == doc["target"])},
            "metric_list": [{"metric": "right", "aggregation": "mean", "higher_is_better": True}],
            "metadata": {"version": 0},
        }
    )


def main(folder: Path) -> Done:
    """Evaluates every part."""
    if find_spec("decord") is None:
        stub = types.ModuleType("decord")
        stub.VideoReader = stub.cpu = None  # type: ignore[attr-defined]
        sys.modules["decord"] = stub
    from lmms_eval import evaluator
    from lmms_eval.models.simple.llava_hf import LlavaHf
    from lmms_eval.tasks import TaskManager
    from loguru import logger

    logger.remove()  # its debug lines would cost it time
    work = Work.read(folder)
    lm = LlavaHf(work.model, device="cpu", device_map="cpu", dtype="float32", batch_size=1)
    answers: dict[str, str] = {}
    prompts: dict[str, list[int]] = {}
    seen: list[str] = []
    over: list[Done] = []
    generate, evaluate = lm.model.generate, evaluator.evaluate

    def looked_at(**inputs: Any) -> Any:
        prompts[seen[-1]] = inputs["input_ids"][0].tolist()
        return generate(**inputs)

    def timed(*args: Any, **kwargs: Any) -> Any:
        clock = begin()
        result = evaluate(*args, **kwargs)
        over.append(clock.done({}))
        return result

    prompt = f"<image>\n{WARM_UP}"
    warm = lm._image_processor(images=[warm_up_image()], text=prompt, return_tensors="pt")
    generate(**warm, max_new_tokens=4)
    lm.model.generate, evaluator.evaluate = looked_at, timed
    tasks = [task(name, folder / f"{name}.parquet", most, seen) for name, most in work.parts.items()]
    results = evaluator.simple_evaluate(
        lm, tasks=tasks, bootstrap_iters=0, log_samples=True, verbosity="ERROR",
        task_manager=TaskManager("ERROR", include_defaults=False),  # the tasks are there
    )  # fmt: skip
    for name, logged in results["samples"].items():
        for sample in logged:
            key = f"{name}/{sample['doc']['id']}"
            answers[key] = sample["filtered_resps"][0].strip()
    return replace(over[0], answers=answers, prompts=prompts, facts={"batch_size": 1})


if __name__ == "__main__":
    write(main(Path(sys.argv[1])), Path(sys.argv[2]))
