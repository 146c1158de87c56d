"""A run's folder: what it holds of an earlier start, its scores, and where its numbers come from."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.digests import digest
from stic_eval.durable_files import sync
from stic_eval.errors import UserError
from stic_eval.experiment import grading
from stic_eval.report import runs
from stic_eval.report.runs import TextCut, TrainedStage
from stic_eval.store import append_jsonl, atomic_write, cache_dir, file_sha256, read_object

if TYPE_CHECKING:
    from stic_eval.contracts.method import Report, Stage
    from stic_eval.experiment.resources import Resources
    from stic_eval.images import Skipped
    from stic_eval.settings import RunConfig
    from stic_eval.stage_store import StageStore


def cache_of(config: RunConfig, fresh: bool = False) -> Path:
    """Where a run's stages and answers lie: one that was started with --fresh keeps its own when resumed."""
    own = config.folder / "cache"
    return own if fresh or own.is_dir() else cache_dir()


def clear(config: RunConfig) -> None:
    """Starts over: with an empty cache of the run's own, and nothing of earlier results."""
    own = config.folder / "cache"
    (config.folder / "scores.json").unlink(missing_ok=True)  # first: it must not tell of what is gone
    (config.folder / "reported.json").unlink(missing_ok=True)  # trackers get this start as another run
    sync(config.folder)
    for folder in (own, config.folder / "records", config.folder / "training"):
        shutil.rmtree(folder, ignore_errors=True)
    own.mkdir(parents=True)


def nothing(config: RunConfig) -> runs.Scores:
    """What the folder of a run holds that has not begun."""
    return runs.Scores(config.name, [], [])


def before(config: RunConfig, report: Report) -> runs.Scores:
    """What the folder holds of an earlier start; nothing of it if it cannot be read.

    An evaluation whose records are not what was written is done again, of answers that are cached.
    """
    if not (config.folder / "scores.json").is_file():
        return nothing(config)
    try:
        found = runs.load(config.folder)
    except UserError as error:
        report.line(f"{error} (computed again)")
        return nothing(config)
    for entry in found.entries:
        for name in list(entry.sha256):
            path = runs.records_path(config.folder, entry, name)
            if runs.records_changed(path, entry, name):
                report.line(f"{path}: has changed since it was written; it is made again")
                for of in (entry.keys, entry.summaries, entry.sha256):
                    of.pop(name, None)
    return found


def list_stages(keyed: Sequence[tuple[Stage, str]], store: StageStore) -> list[TrainedStage]:
    """Lists an adapter's stages: all of them where the cache has the last, else those that it has.

    Args:
        keyed: Stages with their content keys, the first first.
        store: Where finished stages lie.
    """
    from stic_eval.selftrain.stage_costs import costs_of

    there = [store.done(stage.name, key) is not None for stage, key in keyed]
    found = []
    for (stage, _), one in zip(keyed, costs_of(keyed, store), strict=True):
        folder = store.folder(one.name, one.key)
        found.append(
            TrainedStage(
                **asdict(one), cut=_read_text_cut(folder / "cuts.json"), images=_image_mode(folder),
                kind=stage.kind, curves=stage.curves, loss=stage.loss,
            )
        )  # fmt: skip
    return [one for one, done in zip(found, there, strict=True) if done or there[-1]]


def complete(found: Sequence[TrainedStage], before: Sequence[TrainedStage]) -> list[TrainedStage]:
    """Stages as the cache has them now, completed by what a run has written of them before.

    The longer list: of what is cached no more, the run still says what it was.
    """
    if len(found) < len(before):
        return list(before)
    known = {stage.key: stage for stage in before if stage.known}
    return [stage if stage.known else known.get(stage.key, stage) for stage in found]


def note_digests(stages: Iterable[TrainedStage], store: StageStore) -> list[str]:
    """What a table says of stages whose files have digests only since their first use: a note, or none."""
    names = []
    for stage in {stage.key: stage for stage in stages}.values():
        data = read_object(store.folder(stage.name, stage.key) / "manifest.json")
        late = "sha256_taken" in data or (data and "sha256" not in data)
        names += [f"{stage.name} ({stage.key[:16]})"] if late else []
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [
        f"Cache: digests of the files of {', '.join(names[:3])}{more} were taken at their first use, not "
        "when they were made; a change before that would not show."
    ]


def _read_text_cut(path: Path) -> TextCut | None:
    """How much text a stage's length limit has cut; None: nothing."""
    if not path.is_file():
        return None
    found = read_object(path)
    try:
        numbers = {name: int(found[name]) for name in ("max_length", "rows", "cut_rows", "cut_tokens")}
        return TextCut(**numbers, left_out=len(found["left_out"]))
    except (KeyError, TypeError, ValueError):  # damaged: of what is used, `sound` says so
        return None


def _image_mode(folder: Path) -> str:
    """How a stage was shown images in training, by its manifest."""
    params = read_object(folder / "manifest.json").get("params") or {}
    return str(params.get("training_images", "as_generated"))


def keep_curves(stages: Iterable[TrainedStage], store: StageStore, folder: Path) -> None:
    """Copies the training curves of stages into `training/` in a run's folder, each as it was written."""
    for stage in stages:
        made = store.folder(stage.name, stage.key)
        log, copy = made / "log.jsonl", folder / "training" / f"{stage.name}-{stage.key[:16]}.jsonl"
        if not log.is_file():
            continue
        sums = read_object(made / "manifest.json").get("sha256")
        sound = not isinstance(sums, dict) or sums.get("log.jsonl", "") in ("", digest(log))
        if sound and not (copy.is_file() and copy.read_bytes() == log.read_bytes()):
            atomic_write(copy, log.read_bytes())


def describe_inputs(config: RunConfig) -> dict[str, Any]:
    """Adapters, pairs and plug-ins from elsewhere, by name and content; nothing where there are none."""
    from stic_eval.models.fingerprint import adapter_fingerprint

    found: dict[str, Any] = {}
    if config.adapters:
        found["adapters"] = [
            {"name": config.name_of_adapter(folder), "content": adapter_fingerprint("", folder)}
            for folder in config.adapters
        ]
    if config.pairs_file:
        found["pairs"] = {"name": config.pairs_file.name, "content": file_sha256(config.pairs_file)}
    if config.plugins:
        files = map(Path, config.plugins)
        found["plugins"] = [{"name": file.name, "content": file_sha256(file)} for file in files]
    return found


def list_skipped(folder: Path, skipped: Sequence[Skipped]) -> None:
    """Writes which input files were left out, and why, as skipped.jsonl; none is no file."""
    path = folder / "skipped.jsonl"
    path.unlink(missing_ok=True)
    if skipped:
        append_jsonl(path, [{"source": item.source, "reason": item.reason} for item in skipped])


def _rows(resources: Resources) -> dict[str, Any]:
    """Benchmark -> id and commit that its rows of the hub were had under, now or before an earlier end."""
    from stic_eval.evals.hub import plan_source

    at = resources.config.folder
    before, found = read_object(at / "manifest.json").get("rows") or {}, {}
    for name, benchmark in resources.benchmarks.items():
        had = resources.hub_ids.get(name)
        if had is None and resources.config.rows_of(name) == "hub" and (at / "scores.json").is_file():
            if name in before:
                found[name] = before[name]
                continue
            copy, cached = plan_source(benchmark.source)
            had = copy if cached else None
        if had is not None:
            found[name] = {"id": had.path, "revision": had.revision}
    return found


def manifest(
    resources: Resources,
    run: str,
    started: float,
    seconds_of: Mapping[str, float],
    skipped: int,
    more: Mapping[str, Any],
) -> None:
    """Writes manifest.json: model, judge, machine, versions, and what took how long.

    Args:
        resources: What was worked with.
        run: Its name.
        started: When, in seconds since 1970.
        seconds_of: What was computed -> how long it took.
        skipped: Input files that were left out.
        more: What else is to be kept, such as the command.
    """
    import platform
    from importlib.metadata import version

    packages = ("stic-eval", "torch", "transformers", "trl", "peft", "numpy", "pillow")
    loaded = vars(resources.engine)
    data = {
        "run": run,
        **more,
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "model": {
            "name": resources.config.model,
            # None where nothing asked for it: no method of `train` had an adapter.
            "fingerprint": loaded.get("model"),
            "dtype": loaded.get("dtype"),
        },
        **({"asked": {"as": asked.title, **asked.content}} if (asked := resources.engine.profile) else {}),
        "judge": grading.identity(resources.judge),
        "rows": _rows(resources),
        "skipped": skipped,
        "seconds_of": {name: round(value, 2) for name, value in seconds_of.items()},
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    atomic_write(resources.config.folder / "manifest.json", text)
