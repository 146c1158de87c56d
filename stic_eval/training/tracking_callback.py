"""A training's way to its trackers: transformers' integrations, kept from logging a step twice."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from transformers import TrainerCallback

from stic_eval.training import checkpoints, ranks
from stic_eval.training.trackers import TrackerRun, Tracking, contained, open_run


class TrackerCallback(TrainerCallback):
    """Hands what is logged on to trackers; of rank 0 alone.

    A training that was killed goes on under the same name, and steps that were reported before it was are not
    reported again. A tracker that fails is left out from then on.
    """

    def __init__(self, tracking: Tracking, out: Path) -> None:
        self._tracking, self._record = tracking, checkpoints.folder_of(out) / "reported.json"
        self._runs: dict[str, tuple[TrackerRun, Any]] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Opens a run at each tracker, or goes on with it."""
        if not ranks.leads():
            return
        self._known = _read(self._record) or {
            "id": uuid4().hex[:8], "started": f"{datetime.now():%Y-%m-%d %H:%M:%S}", "step": 0,
        }  # fmt: skip
        self._before = self._known["step"]
        name = f"{self._tracking.label}, {self._known['started']}"
        for tracker in self._tracking.trackers:
            with contained(tracker):
                run = open_run(tracker, self._tracking, name, self._known["id"])
                try:
                    callback = run.callback(args)
                    callback.on_train_begin(args, state, control, **kwargs)
                except BaseException:
                    run.close()
                    raise
                self._runs[tracker] = run, callback
        self._keep()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Reports a step."""
        if not self._runs or (state.global_step <= self._before and "loss" in (logs or {})):
            return
        for tracker, (run, callback) in list(self._runs.items()):
            with contained(tracker):
                try:
                    callback.on_log(args, state, control, logs=dict(logs or {}), **kwargs)
                except BaseException:
                    del self._runs[tracker]
                    run.close()
                    raise
        self._known["step"] = state.global_step
        self._keep()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends the runs."""
        for tracker, (_, callback) in self._runs.items():
            with contained(tracker):
                callback.on_train_end(args, state, control, **kwargs)
        self.close()

    def close(self) -> None:
        """Ends what is open, also of a training that has failed."""
        for tracker, (run, _) in self._runs.items():
            with contained(tracker):
                run.close()
        self._runs.clear()

    def _keep(self) -> None:
        """Writes down what was reported; a kill leaves this file whole, and it goes with the checkpoints."""
        self._record.parent.mkdir(parents=True, exist_ok=True)
        new = self._record.with_suffix(".new")
        new.write_text(json.dumps(self._known), encoding="utf-8")
        os.replace(new, self._record)


def _read(path: Path) -> dict[str, Any]:
    """What was reported before; nothing where nobody knows."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"id": str(found["id"]), "started": str(found["started"]), "step": int(found["step"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
