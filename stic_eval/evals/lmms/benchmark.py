"""`lmms:<task>`: a task of the installed lmms-eval as a benchmark.

Prompt, targets, filters, scoring and aggregation are lmms-eval's own functions. Rows come from our
sources: the task's data set on the hub, or a local copy in the task's own columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from stic_eval.contracts.benchmark import Benchmark, HubData, HubId
from stic_eval.errors import UserError
from stic_eval.evals.lmms import docs, task_index, task_objects
from stic_eval.evals.lmms.request_settings import generation, without_places
from stic_eval.evals.lmms.task_index import LmmsTask
from stic_eval.evals.official_prompts import VERSION as LMMS
from stic_eval.evals.official_prompts import installed_version
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.types import ImageRef, Record, Sample, Score, Summary

# Bumped when what is made of a task's functions changes.
_VERSION = 1
# Groups of the breakdown: lmms-eval's aggregates that are fractions, in percent; others as they are.
_OWN, _POINTS = "lmms-eval", "lmms-eval-points"
# Where data sets of images lie by now, and lay before (lmms-eval's pull request 1416).
_NOW, _BEFORE = "lmms-lab-encoder/", "lmms-lab/"
# Columns that results are broken down by.
_LABELS = ("category",)


class TaskOptions(BaseModel):
    """What may be chosen of any task; `metric`, one of the task's own, comes on top.

    Attributes:
        metric: What the table shows; None: the first of the task's metrics that a row has.
        highest: The most that a row can get in the metric, which is 100 percent.
        revision: Branch, tag or commit of the data set on the hub; lmms-eval pins none.
        processed: The rows are what the task's `process_docs` makes already.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str | None = None
    highest: float = Field(1.0, gt=0, allow_inf_nan=False)
    revision: str = Field("main", min_length=1)
    processed: bool = False


def benchmark(name: str) -> Benchmark:
    """The benchmark of a task.

    Raises:
        UserError: lmms-eval is not there, has no such task, or it cannot be asked here; see `finding.find`.
    """
    task = task_index.find(name)
    names: Any = Literal[task.metrics]
    options = create_model(
        "Options", __base__=TaskOptions, __doc__=TaskOptions.__doc__, metric=(names | None, None)
    )
    return _build(task, options, options.model_validate({}))


def offers(name: str) -> bool | None:
    """Whether there is a task of this name; None: lmms-eval is not installed, so that cannot be known."""
    return bool(task_index.folders_of(name)) if installed_version() else None


def _build(task: LmmsTask, options: type[TaskOptions], chosen: TaskOptions) -> Benchmark:
    config = task.config
    split = config.get("test_split") or config.get("validation_split") or "test"
    revision = chosen.revision
    if revision == "main":
        revision = str((config.get("dataset_kwargs") or {}).get("revision") or "main")
    name, path = config.get("dataset_name"), str(config.get("dataset_path"))
    return Benchmark(
        name=f"lmms:{task.name}",
        title=_title(task, chosen),
        # What the task's files say is part of the key under which results are kept.
        version=int(task.digest[:7], 16) * 100 + _VERSION,
        source=HubData(
            path,
            str(split).strip(),
            None if name is None else str(name),
            revision,
            former=(HubId(path.replace(_NOW, _BEFORE), revision),) if path.startswith(_NOW) else (),
        ),
        to_sample=partial(to_sample, task, chosen),
        generation=generation(task.config.get("generation_kwargs") or {}),
        score=partial(score, task, chosen),
        aggregate=partial(aggregate, task, chosen),
        protocol=_protocol(task, chosen),
        variant=chosen.metric or "",
        options=options,
        vary=partial(_build, task, options),
        images=task.needs_image,
        keep=partial(keep, task, chosen),
        metric=", ".join(task.metrics),
        sources=(f"lmms-eval {LMMS}: task {task.name}",),
    )


def _title(task: LmmsTask, chosen: TaskOptions) -> str:
    """The task, and that its column is a mean of rows where lmms-eval makes another number of them."""
    how = task_objects.aggregation_name(task, chosen.metric or task.metrics[0])
    return f"lmms:{task.name}" if how == "mean" else f"lmms:{task.name} (mean of rows)"


def _protocol(task: LmmsTask, chosen: TaskOptions) -> str:
    metric = chosen.metric or task.metrics[0]
    text = f"lmms-eval {LMMS}: its prompt and scoring; mean of the rows' {metric}"
    if chosen.metric is None and len(task.metrics) > 1:
        text += ", or of the first metric that a row has"
    text += "" if task.higher[metric] else ", lower is better"
    how = task_objects.aggregation_name(task, metric)
    return text if how == "mean" else f"{text}; lmms-eval's own {how}: --layout detail"


# ---------------------------------------------------------------- rows


def _docs(task: LmmsTask, chosen: TaskOptions, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the task's `process_docs` makes of a row, images as PIL images."""
    doc = docs.decode_images(row)
    if chosen.processed or task.config.get("process_docs") is None:
        return [doc]
    if why := _processing_obstacle(task.name):
        raise UserError(
            f"lmms:{task.name}: its process_docs {why}, which cannot be done row by row; give rows as it "
            f"makes them, and say so: -o benchmarks.lmms:{task.name}.processed=true"
        )
    return task_objects.process(task, doc)


@cache
def _processing_obstacle(name: str) -> str | None:
    return task_index.processing_obstacle(task_index.find(name).config)


def keep(task: LmmsTask, chosen: TaskOptions, row: Mapping[str, Any]) -> bool:
    """Whether the task's `process_docs` leaves the row, and the chosen metric is scored on it.

    Raises:
        UserError: `process_docs` cannot be done row by row.
    """
    left = _docs(task, chosen, row)
    if not left or chosen.metric is None:
        return bool(left)
    try:
        return chosen.metric in task_objects.results(task, docs.jsonable(left[0]), "").payloads
    except Exception:  # told when the row is read
        return True


def to_sample(task: LmmsTask, chosen: TaskOptions, row: Mapping[str, Any]) -> Sample:
    """The row as lmms-eval asks it; its id is the row's number, which is lmms-eval's `doc_id`."""
    made = _docs(task, chosen, row)
    if len(made) != 1:
        raise ValueError(f"the task's process_docs makes {len(made)} rows of it")
    doc = made[0]
    text, target = task_objects.prompt_and_target(task, doc)
    light = docs.jsonable(doc)
    return Sample(
        id="",
        images=_images(task, chosen, row, doc),
        question=without_places(text),
        target=docs.jsonable({"target": target}).get("target"),
        group={name: light[name] for name in _LABELS if isinstance(light.get(name), str) and light[name]},
        meta={"doc": light},
    )


def _images(
    task: LmmsTask, chosen: TaskOptions, row: Mapping[str, Any], doc: dict[str, Any]
) -> tuple[Any, ...]:
    there = [image for cell in row.values() if docs.is_media(cell) for image in docs.images_in(cell)]
    refs = [image for image in there if isinstance(image, ImageRef)]
    if any(not ref.sha256 for ref in refs):  # rows that are only scored come without their images
        return tuple(refs[:1])
    try:
        shown = task_objects.visuals(task, doc)
    except Exception:
        if there or not task.needs_image:
            raise
        return ()  # told as a missing image, or not needed
    again = None
    if len(refs) == len(there):
        again = partial(_visual_at, task, chosen, dict(row))
    return docs.references(shown, f"lmms:{task.name}", again)


def _visual_at(task: LmmsTask, chosen: TaskOptions, row: Mapping[str, Any], number: int) -> Any:
    return docs.image_at(task_objects.visuals(task, _docs(task, chosen, row)[0]), number)


# ---------------------------------------------------------------- scores


def score(task: LmmsTask, chosen: TaskOptions, sample: Sample, response: str) -> Score:
    """The row's number in the metric, as a share of the highest.

    It is what the task's `process_results` gives: a number, the `score` of an object, or what the task's
    aggregation makes of this row alone. Without any of them, and where the code asks the network, the row
    is unscored.
    """
    try:
        found = task_objects.results(task, sample.meta["doc"], response)
    except ValueError as error:
        if isinstance(error.__cause__, BaseException):
            return Score(None, why=f"lmms-eval's scoring: {error}")
        raise
    metrics = [chosen.metric] if chosen.metric else task.metrics
    metric = next((name for name in metrics if name in found.payloads), None)
    if metric is None:
        return Score(None, found.answer, why=f"lmms-eval's scoring gives it no {' or '.join(metrics)}")
    value = _number(task, metric, found.payloads[metric])
    if value is None:
        return Score(None, found.answer, why=f"{metric} is a number of all rows together, of none alone")
    if not 0 <= value <= chosen.highest:
        return Score(
            None, found.answer,
            why=f"{metric} is {value:g}, which is not between 0 and {chosen.highest:g}; say what is most: "
            f"-o benchmarks.lmms:{task.name}.highest=...",
        )  # fmt: skip
    return Score(value / chosen.highest, found.answer, why=None if metric == task.metrics[0] else metric)


def _number(task: LmmsTask, metric: str, payload: Any) -> float | None:
    """A row's number in a metric, or None."""
    if isinstance(payload, Mapping):
        payload = payload.get(str(task.config.get("score_key") or "score"), payload)
    try:
        if not isinstance(payload, (str, Mapping, list, tuple)):
            number = float(payload)
            return number if math.isfinite(number) else None
    except (TypeError, ValueError):
        pass
    return task_objects.aggregate(task, metric, [payload])


def aggregate(task: LmmsTask, chosen: TaskOptions, records: Sequence[Record]) -> Summary:
    """The mean of the rows, and all of lmms-eval's own aggregates in the breakdown.

    These are in percent under `lmms-eval/` where they are fractions, and else as they are under
    `lmms-eval-points/`. Which they are does not depend on the answers: a fraction stays within 0 and 1
    for the rows' targets as answers, and for empty ones. Their names say so where they leave rows out, for
    sums (MME's) are lower for it.
    """
    own, counted = _aggregates(
        task, [(record.meta["doc"], record.response) for record in records if _is_answered(record)]
    )
    targets = [(record.meta["doc"], _as_response(record.target)) for record in records]
    bounds = [_aggregates(task, answers)[0] for answers in (targets, [(doc, "") for doc, _ in targets])]
    part = "" if counted == len(records) else f" ({counted} of {len(records)} rows)"
    found: dict[str, float] = {}
    for metric, value in own.items():
        fraction = all(0 <= bound.get(metric, math.inf) <= 1 for bound in bounds)
        name = f"{_OWN if fraction else _POINTS}/{metric}{part}"
        found[name] = 100 * value if fraction else value
    summary = summarize(records)
    ordered = dict(sorted(found.items(), key=lambda item: item[0].startswith(_POINTS)))
    return replace(summary, breakdown={**ordered, **summary.breakdown})


def _is_answered(record: Record) -> bool:
    if record.unclosed:
        return False
    return bool(record.score is not None or record.response or record.n_tokens)


def _as_response(target: Any) -> str:
    while isinstance(target, (list, tuple)) and target:
        target = target[0]
    return "" if target is None else str(target)


def _aggregates(
    task: LmmsTask, answers: Sequence[tuple[Mapping[str, Any], str]]
) -> tuple[dict[str, float], int]:
    """Metric -> lmms-eval's own aggregate, for the metrics that have one for these rows; rows in them."""
    payloads: dict[str, list[Any]] = {}
    counted = 0
    for doc, response in answers:
        try:
            found = task_objects.results(task, doc, response).payloads
        except Exception:  # its record says why
            continue
        counted += 1
        for metric, payload in found.items():
            payloads.setdefault(metric, []).append(payload)
    names = [name for name in task.metrics if name in payloads]
    values = {name: task_objects.aggregate(task, name, payloads[name]) for name in names}
    return {name: value for name, value in values.items() if value is not None}, counted
