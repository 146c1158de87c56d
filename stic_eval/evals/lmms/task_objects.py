"""lmms-eval's own task objects, built for one row at a time without a data set.

Prompt, filters, scoring and aggregation are lmms-eval's code; nothing of it is copied.
"""

from __future__ import annotations

import contextlib
import copy
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

from stic_eval.evals.lmms.docs import Doc, DocRows, is_media
from stic_eval.evals.lmms.guard import call
from stic_eval.evals.lmms.request_settings import stops
from stic_eval.evals.lmms.task_index import LmmsTask, find, parameters
from stic_eval.models.detokenize import cut


class _OneRow:
    """A data set of one row, as much of one as lmms-eval's task objects look at."""

    def __init__(self, doc: Doc) -> None:
        self.doc, self.features = doc, dict.fromkeys(doc)

    def __getitem__(self, index: int) -> Doc:
        return self.doc

    def __iter__(self) -> Any:
        return iter([self.doc])

    def __len__(self) -> int:
        return 1


@cache
def _task_class() -> Any:
    from lmms_eval.api.task import ConfigurableTask

    class OneRowTask(ConfigurableTask):  # type: ignore[misc]
        """A task whose data set is one row."""

        def __init__(self, config: dict[str, Any], doc: Doc) -> None:
            self._doc = doc
            super().__init__(config=config)

        def download(self, dataset_kwargs: Any = None) -> None:
            splits = ("training_split", "validation_split", "test_split", "fewshot_split")
            named = [split for name in splits if (split := getattr(self.config, name))]
            self.dataset = self.dataset_no_image = dict.fromkeys(named, _OneRow(self._doc))

        # Its own tries five times, two seconds apart.
        process_results = ConfigurableTask.process_results.__wrapped__

    return OneRowTask


def of_row(task: LmmsTask, doc: Doc) -> Any:
    """lmms-eval's task object with a row as its data set.

    It decides by the first row what kind of target the task has, and by the row's columns what a string
    in its configuration means. Each row here is its own first row, so that neither order nor limit matter.
    """
    return _task_class()(copy.deepcopy(dict(task.config)), doc)


def process(task: LmmsTask, row: Doc) -> list[dict[str, Any]]:
    """What the task's `process_docs` makes of a row: none, it or several."""
    function = task.config.get("process_docs")
    if function is None:
        return [dict(row)]
    processed = call(function, DocRows([dict(row)]))
    rows: list[dict[str, Any]] = processed.rows
    return rows


def prompt_and_target(task: LmmsTask, doc: Doc) -> tuple[str, Any]:
    """The prompt and the target of a row.

    Raises:
        ValueError: The prompt is no text.
        Exception: What the task's functions raise on a row that does not fit.
    """
    without = {name: cell for name, cell in doc.items() if not is_media(cell)}

    def ask() -> tuple[Any, Any]:
        task_object = of_row(task, doc)
        return task_object.fewshot_context(without, 0), task_object.doc_to_target(without)

    text, target = call(ask, seed=str(without))
    if not isinstance(text, str):
        raise ValueError(f"its prompt is not a text but {type(text).__name__}")
    return text, target


def visuals(task: LmmsTask, doc: Doc) -> Any:
    """What the task shows of a row: a list of PIL images, or None."""
    return call(lambda: of_row(task, doc).doc_to_visual(doc))


@dataclass(frozen=True)
class Results:
    """What a task's scoring makes of a response.

    Attributes:
        payloads: Metric -> what its aggregation is given of this row.
        answer: The response after the task's filters, if they leave a text.
    """

    payloads: Mapping[str, Any]
    answer: str | None


def results(task: LmmsTask, doc: Doc, response: str) -> Results:
    """Filters and scores a response as lmms-eval's evaluator does.

    Args:
        doc: The row without images; it is not changed.

    Raises:
        ValueError: The task's code asks the network.
        Exception: What the task's functions raise.
    """
    seed = f"{dict(doc)}{response}"
    return call(_results, task, copy.deepcopy(dict(doc)), response, seed=seed)  # type: ignore[no-any-return]


def _results(task: LmmsTask, doc: dict[str, Any], response: str) -> Results:
    from lmms_eval.api.instance import Instance
    from lmms_eval.api.reasoning import parse_reasoning_tags_config, strip_reasoning_tags
    from lmms_eval.filters.transformation import StripThinkingFilter

    task_object = of_row(task, doc)
    tags = parse_reasoning_tags_config(task_value=task_object.config.reasoning_tags)
    if task_object.config.auto_strip_thinking and tags is None:
        for ensemble in task_object._filters:
            ensemble.filters.insert(0, StripThinkingFilter())
    metadata = {"task": task.name, "doc_id": 0, "repeats": 1}
    text = cut(response, stops(task_object.config.generation_kwargs))
    instance = Instance("generate_until", (), 0, metadata, [text])
    task_object._instances = [instance]
    task_object.apply_filters()
    answer = next(iter(instance.filtered_resps.values()))
    if tags is not None and isinstance(answer, str):
        answer = strip_reasoning_tags(answer, tags)
    elif tags is not None:
        answer = [strip_reasoning_tags(one, tags) if isinstance(one, str) else one for one in answer]
    payloads = task_object.process_results(doc, [answer])
    return Results(payloads, answer if isinstance(answer, str) else None)


def aggregate(task: LmmsTask, metric: str, payloads: Sequence[Any]) -> float | None:
    """lmms-eval's own aggregate of a metric; None where it has none for these rows."""
    function, given = aggregations(task)[metric], copy.deepcopy(list(payloads))
    try:
        with _forgetting(function):
            number = float(_aggregate(function, given))
            return number if math.isfinite(number) else None
    except Exception:  # a task's own code, given fewer rows than it is made for
        return None


def _aggregate(function: Any, given: list[Any]) -> Any:
    if "args" not in parameters(function):
        return call(function, given)
    with tempfile.TemporaryDirectory() as folder:  # it writes a file to hand in as well
        return call(partial(function, args=SimpleNamespace(output_path=folder)), given, folder=folder)


@contextlib.contextmanager
def _forgetting(function: Any) -> Iterator[None]:
    """Puts a task's module back as it was: some count on from one call to the next (OCRBench)."""
    names: dict[str, Any] = getattr(function, "__globals__", {})
    if str(names.get("__name__", "")).startswith("lmms_eval.api"):
        names = {}
    before = dict(names)
    for name, value in before.items():
        if isinstance(value, (dict, list, set)) and not name.startswith("__"):
            with contextlib.suppress(Exception):
                names[name] = copy.deepcopy(value)
    try:
        yield
    finally:
        names.update(before)


@cache
def _aggregations(name: str) -> Mapping[str, Any]:
    task = find(name)
    bare = _task_class().__new__(_task_class())
    from lmms_eval.api.task import TaskConfig

    bare._config = TaskConfig(**copy.deepcopy(dict(task.config)))
    bare._prepare_metric_and_aggregation()
    return dict(bare._aggregation_list)


def aggregations(task: LmmsTask) -> Mapping[str, Any]:
    """Metric -> the function that aggregates it."""
    return _aggregations(task.name)


def aggregation_name(task: LmmsTask, metric: str) -> str:
    """What a metric's aggregation is called."""
    return str(getattr(aggregations(task)[metric], "__name__", "its own"))
