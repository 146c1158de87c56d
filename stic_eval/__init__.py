"""stic-eval in Python: `import stic_eval as se`. Everything here is imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stic_eval.api import ablate, evaluate, load_model, load_run, run, train
    from stic_eval.contracts.benchmark import Benchmark, HubData, HubId, Judging
    from stic_eval.contracts.corruption import Corruption
    from stic_eval.contracts.engine import VLM, Engine
    from stic_eval.contracts.loss import Loss
    from stic_eval.contracts.method import Data, Method, Plan, Stage, StageContext
    from stic_eval.contracts.solver import Asking, Solver
    from stic_eval.errors import RunError, UserError
    from stic_eval.experiment.loaded_model import LoadedModel
    from stic_eval.experiment.result import RunResult, TrainResult
    from stic_eval.types import Generation, ImageRef, Record, Request, Response, Sample, Score, Summary

    __version__: str

# Name -> the module that has it.
_PLACES = {
    name: module
    for module, names in {
        "api": ("ablate", "evaluate", "load_model", "load_run", "run", "train"),
        "contracts.benchmark": ("Benchmark", "HubData", "HubId", "Judging"),
        "contracts.corruption": ("Corruption",),
        "contracts.engine": ("VLM", "Engine"),
        "contracts.loss": ("Loss",),
        "contracts.method": ("Data", "Method", "Plan", "Stage", "StageContext"),
        "contracts.solver": ("Asking", "Solver"),
        "errors": ("RunError", "UserError"),
        "experiment.loaded_model": ("LoadedModel",),
        "experiment.result": ("RunResult", "TrainResult"),
        "types": ("Generation", "ImageRef", "Record", "Request", "Response", "Sample", "Score", "Summary"),
    }.items()
    for name in names
}

__all__ = [
    "VLM", "Asking", "Benchmark", "Corruption", "Data", "Engine", "Generation", "HubData", "HubId",
    "ImageRef", "Judging", "LoadedModel", "Loss", "Method", "Plan", "Record", "Request", "Response",
    "RunError", "RunResult", "Sample", "Score", "Solver", "Stage", "StageContext", "Summary", "TrainResult",
    "UserError", "__version__", "ablate", "evaluate", "load_model", "load_run", "run", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("stic-eval")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
