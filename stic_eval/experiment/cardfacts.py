"""What a model card states of a run's adapter, gathered from the run's folder and the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from stic_eval import registry
from stic_eval.errors import UserError
from stic_eval.models.fingerprint import commit_of, local_model, model_fingerprint
from stic_eval.report.model_card import CardFacts, RowsOrigin
from stic_eval.report.table_layouts import lay_out
from stic_eval.stage_store import StageStore
from stic_eval.store import content_key, read_jsonl, read_object

if TYPE_CHECKING:
    from stic_eval.experiment.artifacts import RunArtifacts, StageArtifact
    from stic_eval.report.tables import Table
    from stic_eval.settings import RunConfig

T = TypeVar("T")


def facts(run: RunArtifacts, picked: StageArtifact, name: str) -> CardFacts:
    """What a card says of an adapter."""
    config, first = run.config, picked.entries[0]
    local = local_model(config.model)
    method = _find(registry.methods(), first.method)
    options = config.method_options.get(first.method)
    if not options and method is not None:
        options = method.config().model_dump(mode="json")
    manifest = read_object(run.folder / "manifest.json")
    trained = read_object(run.path(picked) / "manifest.json")
    model = manifest.get("model") or {}
    return CardFacts(
        name=name,
        title=first.title,
        method=first.method,
        paper=method.paper if method else "",
        base=config.model if local is None or config.model == "pocket" else local.resolve().name,
        base_id=config.model if local is None else "",
        revision=_revision(config, str(model.get("fingerprint") or "")),
        fingerprint=str(model.get("fingerprint") or ""),
        dtype=str(model.get("dtype") or ""),
        packed=config.quantization,
        asked=str((manifest.get("asked") or {}).get("as") or ""),
        seed=picked.seed or 0,
        data=_data(run, picked),
        options=options or {},
        departures=[f"{axis}={value}" for axis, value in first.settings.items() if axis != "dar"],
        stages=first.stages,
        table=_table(run, picked),
        rows={name: rows_of(run, name) for name in config.benchmarks},
        versions=trained.get("versions") or {},
        command=[str(part) for part in manifest.get("command") or ()],
    )


def _revision(config: RunConfig, fingerprint: str) -> str | None:
    """The commit of a hub model that was trained on, as far as the hub or its local cache still tells."""
    if local_model(config.model) is not None or not fingerprint:
        return config.revision
    try:
        found = commit_of(config.model, config.revision)
        return found if model_fingerprint(config.model, found) == fingerprint else config.revision
    except UserError:
        return config.revision


def _table(run: RunArtifacts, picked: StageArtifact) -> Table | None:
    """The run's table as it is with this adapter alone: the baseline, and what answers with it.

    What the run's whole table has as well is marked as there, among all of its rows.
    """
    if run.scores is None:
        return None
    own = {entry.folder for entry in picked.entries}
    entries = [
        e for e in run.scores.entries if e.folder in own or (e.method == "baseline" and not e.settings)
    ]
    scores = replace(run.scores, entries=entries, axes={}, without_default=[])
    if not any(entry.summaries for entry in picked.entries):
        return None
    if picked.entries[0].settings:
        return scores.table()
    table, whole = lay_out([scores]), lay_out([run.scores])
    same = {id(row): other for row in table.rows for other in whole.rows if other.variant == row.variant}
    if table.averaged != whole.averaged or not any(
        other.average and other.average.difference for other in same.values()
    ):
        return table
    rows = tuple(replace(row, cells=same[id(row)].cells) if id(row) in same else row for row in table.rows)
    note = "What the run's table compares too is marked as there, corrected over all of its rows."
    return replace(table, rows=rows, notes=(*table.notes, note))


def _data(run: RunArtifacts, picked: StageArtifact) -> list[str]:
    """What the adapter learnt from, counted in the files that its stages have left."""
    import pyarrow.parquet as pq

    config, lines, described = run.config, [], 0
    given = {"images": config.images, "items": config.sft_data and Path(config.sft_data)}
    for stage in picked.entries[0].stages:
        folder = run.stages / f"{stage.name}-{stage.key[:16]}"
        if StageStore(run.stages).first_damaged(stage.name, stage.key):
            continue  # what lies there now is not what was learnt from
        if stage.kind == "pairs" and (folder / "pairs.parquet").is_file():
            table = pq.read_table(folder / "pairs.parquet", columns=["image_sha256"])
            hashes = sorted(set(table.column("image_sha256").to_pylist()))
            # By what this stage was made of: after imported pairs, further rounds are the model's own.
            params = read_object(folder / "manifest.json").get("params", {})
            origin = "made elsewhere" if "imported" in params else "made by the model itself"
            sources = [path.name for name, path in given.items() if name in params and path]
            images = f"{len(hashes):,} images{' of ' if sources else ''}{' and '.join(sources)}"
            lines.append(
                f"{table.num_rows:,} preference pairs, {origin}, of {images} ({content_key(hashes)[:16]})"
            )
        elif stage.kind == "descriptions" and (folder / "descriptions.jsonl").is_file():
            described = len(list(read_jsonl(folder / "descriptions.jsonl")))
        elif stage.kind == "item_training":
            items = read_object(folder / "manifest.json").get("params", {}).get("items")
            count = f"{described:,} " if described else f"at most {items:,} " if items else ""
            source = f" of {Path(config.sft_data).name}" if config.sft_data else ""
            own = ", with the model's own descriptions of their images" if described else ""
            lines.append(f"{count}items of instruction data{source}{own}")
    return lines


def rows_of(run: RunArtifacts, name: str) -> RowsOrigin:
    """Where a benchmark's rows came from."""
    benchmark, where = _find(registry.benchmarks(), name), run.config.rows_of(name)
    if benchmark is None:
        return RowsOrigin(name)
    if where != "hub":
        what = "built-in rows of stic-eval" if where.startswith("pocket") else "local copy"
        return RowsOrigin(f"{name} ({what})", metric=benchmark.metric)
    source = benchmark.source
    read = read_object(run.folder / "manifest.json").get("rows") or {}
    at = read.get(name) or {"id": source.path, "revision": source.revision}
    return RowsOrigin(str(at["id"]), source.split, source.name or "", str(at["revision"]), benchmark.metric)


def unknown(run: RunArtifacts, picked: StageArtifact) -> list[str]:
    """Names of what the run's plug-ins held, as far as these are missing here."""
    method = picked.entries[0].method
    missing = [method] if _find(registry.methods(), method) is None else []
    return missing + [b for b in run.config.benchmarks if _find(registry.benchmarks(), b) is None]


def _find(things: registry.Registry[T], name: str) -> T | None:
    """A method or benchmark; None where it comes from a plug-in that is missing or broken."""
    try:
        return things.get(name)
    except UserError:
        return None
