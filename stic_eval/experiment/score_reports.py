"""The final scores of a run on their way to trackers: once, as a run there for each variant and seed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from statistics import mean
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from stic_eval.report.compared_variants import label
from stic_eval.report.run_texts import public_name
from stic_eval.store import atomic_write, content_key, read_object
from stic_eval.training.trackers import Tracking, contained, open_run

if TYPE_CHECKING:
    from stic_eval.report.runs import Entry, Scores
    from stic_eval.settings import RunConfig

RECORD = "reported.json"  # in a run's folder: what each tracker was told of each variant


def report_scores(config: RunConfig, scores: Scores) -> None:
    """Reports variants that are evaluated on all benchmarks, if this was not done with these scores before.

    Scores that have changed since, as with a judge added, go to the same run of the tracker.

    Args:
        config: Says to which trackers, and where the run's folder is.
        scores: What the run came to.
    """
    path = config.folder / RECORD
    known = dict(read_object(path))
    tracking = Tracking(config.report_to, config.folder.name, "", config.folder.absolute())
    for tracker in config.report_to:
        before = known.get(tracker)
        done: dict[str, Any] = before if isinstance(before, dict) else {}
        for entry in _finished(scores):
            values = _values(scores, entry)
            last = done.get(entry.folder)
            last = last if isinstance(last, dict) else {"id": uuid4().hex[:8]}
            if last.get("scores") == content_key(values):
                continue
            with contained(tracker):
                name = label(entry) + ("" if entry.seed is None else f", seed {entry.seed}")
                run = open_run(tracker, tracking, f"{name}: scores", str(last["id"]), _facts(scores, entry))
                try:
                    run.log(values)
                finally:
                    run.close()
                done[entry.folder] = {**last, "scores": content_key(values)}
                known[tracker] = done
                atomic_write(path, json.dumps(known, indent=1) + "\n")


def _finished(scores: Scores) -> Iterable[Entry]:
    names = [column.name for column in scores.columns]
    return [entry for entry in scores.entries if all(name in entry.summaries for name in names)]


def _values(scores: Scores, entry: Entry) -> dict[str, float]:
    """Percent by benchmark, as far as there is one, and their mean where all have one."""
    found = {c.name: entry.summaries[c.name].score for c in scores.columns}
    values = {name: score for name, score in found.items() if score is not None}
    average = {"score/average": mean(values.values())} if len(values) == len(found) > 1 else {}
    return {**{f"score/{name}": value for name, value in values.items()}, **average}


def _facts(scores: Scores, entry: Entry) -> dict[str, Any]:
    """What the variant is, without a path of this machine."""
    facts: dict[str, Any] = {
        "run": scores.run, "model": public_name(scores.model), "variant": label(entry),
        "method": entry.method, "solver": entry.solver.name,
    }  # fmt: skip
    seed = {} if entry.seed is None else {"training_seed": entry.seed}
    rows = {f"n/{name}": summary.n for name, summary in entry.summaries.items()}
    return facts | seed | rows | {axis: str(value) for axis, value in entry.settings.items()}
