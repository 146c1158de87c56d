"""Experiment trackers: trackio, Weights & Biases, TensorBoard and MLflow, where somebody asks for one.

Of each training a tracker gets what transformers' own integration sends, and of each finished variant its
scores (`stic_eval.experiment.score_reports`). Nothing is read from a tracker, so none can change a result.
Projects, servers and keys are what the trackers' own environment variables and logins say; nothing of that is
written here.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from stic_eval.errors import UserError, first_line

PROJECT = "stic-eval"
_LOG = logging.getLogger("stic_eval.run")


@dataclass(frozen=True)
class Tracking:
    """Where a run reports to.

    Attributes:
        trackers: Their names; empty: nowhere.
        run: The run's name, which groups what is reported of it.
        label: What is at work, e.g. `STIC: preference, seed 0`.
        folder: The run's; TensorBoard's files lie in its `tensorboard/`, or in TENSORBOARD_LOGGING_DIR.
    """

    trackers: tuple[str, ...]
    run: str
    label: str
    folder: Path


_current: ContextVar[Tracking | None] = ContextVar("tracking", default=None)


@contextmanager
def reporting(tracking: Tracking | None) -> Iterator[None]:
    """Has whatever is trained while the block runs reported there, or nowhere."""
    token = _current.set(tracking)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Tracking | None:
    """Where what is trained now is reported to; None: nowhere."""
    found = _current.get()
    return found if found is not None and found.trackers else None


def check_installed(trackers: Sequence[str]) -> None:
    """Refuses trackers that are not installed, before anything is computed.

    By their distributions: Weights & Biases leaves folders `wandb`, which Python takes for a package.

    Raises:
        UserError: One is not; names the extra that brings it.
    """
    for name in trackers:
        try:
            version(name)
        except PackageNotFoundError:
            raise UserError(
                f"--report-to {name}: is not installed; pip install 'stic-eval[{name}]'"
            ) from None


# ---------------------------------------------------------------- one tracker's run


class TrackerRun(Protocol):
    """What a tracker calls a run: a training, or the scores of a variant."""

    def callback(self, args: Any) -> Any:
        """The integration of transformers, which reports into this run; `args` are the trainer's."""

    def log(self, values: Mapping[str, float]) -> None:
        """Reports numbers that have no step."""

    def close(self) -> None:
        """Sends what is left, and ends the run."""


class _TensorBoard:
    def __init__(self, tracking: Tracking, name: str, identity: str, facts: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        given = os.environ.get("TENSORBOARD_LOGGING_DIR")
        base = Path(given).expanduser() / tracking.run if given else tracking.folder / "tensorboard"
        self._writer = SummaryWriter(str(base / re.sub(r"[^\w.+=@-]+", "-", name)))
        if facts:
            self._writer.add_text("facts", "\n".join(f"    {key}: {value}" for key, value in facts.items()))

    def callback(self, args: Any) -> Any:
        from transformers.integrations.integration_utils import TensorBoardCallback

        return TensorBoardCallback(self._writer)

    def log(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, 0)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    def __init__(self, tracking: Tracking, name: str, identity: str, facts: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), group=tracking.run, name=name, id=identity,
            resume="allow", config=dict(facts), dir=os.environ.get("WANDB_DIR", str(tracking.folder)),
            settings=wandb.Settings(console="off", silent=True),
        )  # fmt: skip

    def callback(self, args: Any) -> Any:
        from transformers.integrations.integration_utils import WandbCallback

        return WandbCallback()  # reports into the run that is open

    def log(self, values: Mapping[str, float]) -> None:
        self._run.log(dict(values))

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    """Known by its name, which has to be its own in the project."""

    def __init__(self, tracking: Tracking, name: str, identity: str, facts: Mapping[str, Any]) -> None:
        import trackio

        self._trackio, self._run, self._facts = trackio, tracking.run, dict(facts)
        self._project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self._name = f"{name} {identity}"

    def callback(self, args: Any) -> Any:
        from transformers.integrations.integration_utils import TrackioCallback

        # The integration opens the run itself, by these.
        args.project, args.run_name, args.trackio_static_space_id = self._project, self._name, False
        return TrackioCallback()

    def log(self, values: Mapping[str, float]) -> None:
        self._trackio.init(
            project=self._project, name=self._name, group=self._run, config=self._facts, resume="allow"
        )
        self._trackio.log(dict(values))
        self._trackio.finish()

    def close(self) -> None:
        """Nothing is open: the integration ends its run with the training."""


class _MLflow:
    def __init__(self, tracking: Tracking, name: str, identity: str, facts: Mapping[str, Any]) -> None:
        import mlflow

        self._mlflow = mlflow
        experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        there = mlflow.search_runs(
            [experiment.experiment_id], f"tags.stic_eval_id = '{identity}'", output_format="list"
        )
        if there:
            mlflow.start_run(run_id=there[0].info.run_id)
        else:
            tags = {"stic_eval_id": identity, "stic_eval_run": tracking.run}
            mlflow.start_run(
                run_name=name, tags={**tags, **{key: str(value) for key, value in facts.items()}}
            )

    def callback(self, args: Any) -> Any:
        from transformers.integrations.integration_utils import MLflowCallback

        return MLflowCallback()  # reports into the run that is open

    def log(self, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values))

    def close(self) -> None:
        self._mlflow.end_run()


_KINDS: Mapping[str, Callable[[Tracking, str, str, Mapping[str, Any]], TrackerRun]] = {
    "trackio": _Trackio, "wandb": _WandB, "tensorboard": _TensorBoard, "mlflow": _MLflow,
}  # fmt: skip


def open_run(
    tracker: str, tracking: Tracking, name: str, identity: str, facts: Mapping[str, Any] | None = None
) -> TrackerRun:
    """Opens a run, or goes on with the one of that identity where the tracker can.

    Args:
        tracker: Which tracker.
        tracking: Of the run that is reported.
        name: What people see.
        identity: Letters and digits that no other run has.
        facts: What stands beside its numbers: model, method, seed.
    """
    return _KINDS[tracker](tracking, name, identity, facts or {})


@contextmanager
def contained(tracker: str) -> Iterator[None]:
    """Has a tracker's failure cost its report and no training: a line says so, and the block ends.

    What it prints meanwhile goes to the log.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            yield
    except Exception as error:
        _LOG.warning("--report-to %s: goes on without it: %s", tracker, first_line(error))
    for line in said.getvalue().splitlines():
        if line.strip():
            _LOG.info("%s: %s", tracker, line.strip())
