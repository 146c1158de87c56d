"""lmms-eval's tasks by name: their configuration, and whether they can be asked here."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stic_eval.errors import UserError
from stic_eval.evals.lmms.docs import DocRows, WholeSet
from stic_eval.evals.lmms.guard import call, client_of, names_in, watch
from stic_eval.evals.official_prompts import PACKAGE, VERSION, lack, task_folder
from stic_eval.registry import suggest

# What a `process_docs` calls when it reads more than the rows it is given.
_READS = ("load_dataset", "load_from_disk", "snapshot_download", "hf_hub_download", "open")
_OUTPUT = {
    "multiple_choice": "compares the likelihoods of its options",
    "loglikelihood": "compares likelihoods",
    "generate_until_multi_round": "asks in several rounds",
    "generate_until_agentic": "lets the model use tools",
    "generate_visual_cot": "has the model draw",
}


@dataclass(frozen=True)
class LmmsTask:
    """A task that can be asked here.

    Attributes:
        config: Its configuration as lmms-eval reads it, functions included.
        digest: Of lmms-eval's version and the files of the task's folder.
        metrics: Names of the metrics that can be aggregated here, in the task's order.
        higher: Metric -> whether more is better.
        needs_image: Whether every row has to have one.
    """

    name: str
    config: Mapping[str, Any]
    digest: str
    metrics: tuple[str, ...]
    higher: Mapping[str, bool]
    needs_image: bool


@cache
def find(name: str) -> LmmsTask:
    """The task of a name.

    Raises:
        UserError: lmms-eval is not there, or has no such task, or it cannot be asked here.
    """
    where = f"lmms:{name}"
    if lacking := lack():
        raise UserError(
            f"--benchmarks {where}: {lacking}: `pip install {PACKAGE}=={VERSION}` "
            "(`--no-deps` keeps what you have; it names what a task then lacks)"
        )
    file, config = _config(name)
    if why := _obstacle(config):
        raise UserError(f"--benchmarks {where}: {why}")
    folder = file.parent
    digest = hashlib.sha256(f"{VERSION} {name}".encode())
    for path in sorted([*folder.glob("*.py"), *folder.glob("*yaml*"), *folder.glob("*.json")]):
        digest.update(path.read_bytes())
    metrics, higher = _metrics(where, config)
    return LmmsTask(name, config, digest.hexdigest(), metrics, higher, _needs_image(config))


# ---------------------------------------------------------------- by name


@cache
def _index_class() -> Any:
    from PIL import ImageFile

    before = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        from lmms_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError(
            f"{PACKAGE} cannot be imported: {error}; install what is missing, or everything that it "
            "requires: "
            f"`pip install {PACKAGE}=={VERSION}`"
        ) from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before  # importing it lets damaged images pass
    return TaskManager


@cache
def _index() -> Any:
    """lmms-eval's index of all its tasks; it takes seconds."""
    with watch(scoring=False):
        return _index_class()()


def _index_of(name: str) -> Any:
    """An index of the folders in which a file names the task, or of everything."""
    folders = folders_of(name)
    with watch(scoring=False):
        found = _index_class()(include_defaults=False, include_path=folders) if folders else None
    return found if found is not None and name in found.task_index else _index()


def folders_of(name: str) -> list[str]:
    """Folders of lmms-eval in which a file names the task."""
    line = re.compile(rf"^(?:task|group)\s*:\s*[\"']?{re.escape(name)}[\"']?\s*(?:#.*)?$", re.MULTILINE)
    files = task_folder().rglob("*.yaml")
    return sorted({str(file.parent) for file in files if line.search(file.read_text("utf-8", "replace"))})


def _config(name: str) -> tuple[Path, dict[str, Any]]:
    where = f"lmms:{name}"
    index = _index_of(name)
    entry = index.task_index.get(name)
    if entry is None:
        raise UserError(
            f"--benchmarks {where}: {PACKAGE} {VERSION} has no task of this name"
            f"{suggest(name, index.all_subtasks)}"
        )
    if entry["type"] == "python_task":
        raise UserError(f"--benchmarks {where}: has its own class in {PACKAGE}, which cannot be asked")
    if entry["type"] != "task":
        parts = _parts(_index(), name)
        more = f" and {len(parts) - 8} more" if len(parts) > 8 else ""
        raise UserError(
            f"--benchmarks {where}: is a group; name its tasks: "
            f"{','.join(f'lmms:{part}' for part in parts[:8])}{more}"
        )
    file = Path(entry["yaml_path"])
    try:
        with watch(scoring=False):
            return file, index._get_config(name)
    except Exception as error:  # a task's files are anybody's code
        raise UserError(f"--benchmarks {where}: {PACKAGE} cannot load it: {_cause(error)}") from error


def _parts(index: Any, name: str) -> list[str]:
    """The tasks of a group or tag."""
    entry = index.task_index[name]
    if entry["type"] == "task":
        return [name]
    below = entry.get("task", -1)
    if below == -1:
        with watch(scoring=False):
            below = index._get_config(name).get("task") or []
    parts: list[str] = []
    for item in below:
        part = str(item.get("task") or item.get("group") if isinstance(item, dict) else item)
        parts += _parts(index, part) if part in index.task_index and part != name else [part]
    return parts


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"it needs the package {error.name}, which is not installed"
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:160]}"


# ---------------------------------------------------------------- what cannot be done


def _obstacle(config: Mapping[str, Any]) -> str | None:
    """Why a task cannot be asked as its authors mean it; None: it can."""
    output = config.get("output_type") or "generate_until"
    kwargs = config.get("dataset_kwargs") or {}
    if output in ("multiple_choice", "loglikelihood"):
        return f"{_OUTPUT[output]}, which only `lmms-eval --model stic_eval` can ask for"
    if output != "generate_until":
        return f"{_OUTPUT.get(output, f'asks by {output}')}, which is not supported"
    if kwargs.get("video") or kwargs.get("From_YouTube"):
        return "shows videos; only images can be shown here"
    if (repeats := config.get("repeats") or 1) > 1:
        return f"asks every question {repeats} times, which is not supported"
    if (shots := config.get("num_fewshot") or 0) > 0:
        return f"shows {shots} worked examples with every question, which is not supported"
    if config.get("full_docs") or config.get("process_results_use_image"):
        return "needs images or other rows to score an answer, which is not supported"
    if client := client_of(config.get("process_results")):
        return f"asks a judge model to score answers ({client}), which is not done here"
    if (beams := (config.get("generation_kwargs") or {}).get("num_beams") or 1) > 1:
        return f"asks for {beams} beams, and there is no beam search here"
    return None


def processing_obstacle(config: Mapping[str, Any]) -> str | None:
    """Why a task's `process_docs` cannot be done row by row; None: it can, or there is none."""
    function = config.get("process_docs")
    if function is None:
        return None
    code = getattr(function, "__code__", None)
    if code is None:
        return "is not a function"
    if reads := next((name for name in names_in(code) if name in _READS), None):
        return f"reads more data ({reads})"
    try:
        if not isinstance(call(function, DocRows([])), DocRows):
            return "makes its own data set"
    except WholeSet as error:
        return str(error)
    except Exception as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _metrics(where: str, config: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, bool]]:
    listed = config.get("metric_list") or [{"metric": "exact_match", "aggregation": "mean"}]
    names: list[str] = []
    higher: dict[str, bool] = {}
    why = "it has none"
    for item in listed:
        metric, aggregation = item["metric"], item.get("aggregation", "mean")
        name = metric.__name__ if callable(metric) else str(metric)
        if aggregation == "bypass" or name == "bypass":
            why = f"{name} is never computed"
        elif "submission" in name:
            why = f"{name} is a file to hand in"
        elif client := client_of(aggregation if callable(aggregation) else None):
            why = f"{name} asks a judge model ({client})"
        else:
            names.append(name)
            higher[name] = bool(item.get("higher_is_better", True))
    if not names:
        raise UserError(f"--benchmarks {where}: has no metric that can be computed here: {why}")
    return tuple(dict.fromkeys(names)), higher


def parameters(function: Any) -> Sequence[str]:
    """Names of a function's parameters; none where nothing is known of them."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ()


class _Blank(dict[str, Any]):
    """A row in which every cell is empty."""

    def __missing__(self, column: str) -> None:
        return None


def _needs_image(config: Mapping[str, Any]) -> bool:
    """Whether the task's `doc_to_visual` fails on a row without image."""
    function = config.get("doc_to_visual")
    if not callable(function):
        return isinstance(function, str)
    try:
        return bool(call(function, _Blank()))
    except Exception:
        return True
