"""What tasks take, roughly: by what such stages took before, as the cache has it, or by a GPU's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stic_eval.engines.costs import (
    Answers,
    Hardware,
    Rows,
    Size,
    seconds_of_answers,
    seconds_of_loading,
    seconds_of_rows,
)

if TYPE_CHECKING:
    from stic_eval.contracts.engine import Engine
    from stic_eval.contracts.method import Stage
    from stic_eval.experiment.graph import Evaluation, Task
    from stic_eval.experiment.planning import Experiment

# Tokens of an image of 336 pixels, of what is asked about it, of a description and of an answer.
IMAGE, QUESTION, DESCRIPTION, ANSWER = 576, 64, 150, 20


def seconds(evaluations: Sequence[Evaluation], tasks: Mapping[str, Task], engine: Engine) -> dict[str, float]:
    """Task -> the seconds that it takes.

    Of a server's speed nothing is known: its tasks count by their requests, a second each.
    """
    if engine.estimate(1, 0) is None:
        return {name: float(task.generations) for name, task in tasks.items()}

    def guess(generations: int, steps: int) -> float:
        found = engine.estimate(generations, steps)
        return 0.0 if found is None else found.seconds

    seen: dict[str, tuple[float, float]] = {}
    for stage in {s.key: s for item in evaluations for s in item.entry.stages if s.known}.values():
        took, guessed = seen.get(stage.name, (0.0, 0.0))
        seen[stage.name] = (took + stage.seconds, guessed + guess(stage.generations, stage.steps))
    # Evaluations are not timed in the cache; descriptions are what they are most like.
    like = {"evaluate": "descriptions"}
    total = (sum(took for took, _ in seen.values()), sum(guessed for _, guessed in seen.values()))
    found = {}
    for name, task in tasks.items():
        kind = name.partition(" ")[0]
        took, guessed = seen.get(like.get(kind, kind), total)
        found[name] = guess(task.generations, task.steps) * (took / guessed if guessed and took else 1.0)
    return found


def on_gpu(
    experiment: Experiment, size: Size, gpu: Hardware, training: int = 1, serving: int = 0
) -> dict[str, float]:
    """Task -> the seconds that it takes, by the figures of GPU and model; several are taken to scale.

    Args:
        experiment: What is planned.
        size: The model's.
        gpu: Which one.
        training: GPUs that train a stage together.
        serving: GPUs of servers that replay graphs; 0: answers are given in a worker's own process.
    """
    stages = {f"{s.name} {key[:16]}": s for subject in experiment.subjects for s, key in subject.stages}
    found = {}
    for name, task in experiment.tasks.items():
        stage = stages.get(name)
        took = _answering(task, bool(task.key)) if stage is None else _staging(stage)
        found[name] = seconds_of_loading(size)
        for work in took:
            if isinstance(work, Answers):
                found[name] += seconds_of_answers(work, size, gpu, serving > 0) / max(1, serving)
            else:
                found[name] += seconds_of_rows(work, size, gpu) / training
    return found


def _answering(task: Task, adapter: bool) -> list[Answers | Rows]:
    """What an evaluation asks; of answers that are asked for twice, one is a description."""
    described = task.generations // 2 if task.solver == "describe_and_respond" else 0
    return [
        Answers(described, IMAGE + QUESTION, DESCRIPTION, adapter),
        Answers(task.generations - described, IMAGE + QUESTION, ANSWER, adapter),
    ]


def _staging(stage: Stage) -> list[Answers | Rows]:
    """What a stage asks and trains."""
    asked = Answers(stage.generations, IMAGE + QUESTION, DESCRIPTION, bool(stage.needs))
    rows = stage.steps * _batch_size(stage.params)
    tokens = IMAGE + QUESTION + DESCRIPTION
    pairs = stage.kind == "pair_training" and stage.name == "preference"
    return [asked, Rows(rows, tokens, 2 if pairs else 1, reference=pairs)]


def _batch_size(params: Any) -> int:
    """Rows of an optimiser step, wherever in a stage's parameters; 8 where nothing says so."""
    if isinstance(params, Mapping):
        if isinstance(params.get("batch_size"), int):
            return int(params["batch_size"])
        inner = [_batch_size(one) for one in params.values() if isinstance(one, Mapping)]
        return next((one for one in inner if one != 8), 8)
    return 8


def makespan(tasks: Sequence[Task], seconds: Mapping[str, float], workers: int) -> float:
    """Seconds until so many workers have done tasks; who is free begins the first that is ready."""
    free = [0.0] * max(1, workers)
    done: dict[str, float] = {}
    groups: dict[str, float] = {}
    waiting, names = list(tasks), {task.id for task in tasks}

    def earliest(task: Task) -> float:
        """When what it waits for is done."""
        before = [done[need] for need in task.needs if need in names]
        return max([*before, groups.get(task.group, 0.0) if task.group else 0.0], default=0.0)

    while waiting:
        ready = [t for t in waiting if all(need in done or need not in names for need in t.needs)]
        worker = min(range(len(free)), key=free.__getitem__)
        begins = {task.id: max(earliest(task), free[worker]) for task in ready}
        chosen = min(ready, key=lambda task: begins[task.id])
        ends = begins[chosen.id] + seconds[chosen.id]
        free[worker] = done[chosen.id] = ends
        if chosen.group:
            groups[chosen.group] = ends
        waiting.remove(chosen)
    return max(done.values(), default=0.0)
