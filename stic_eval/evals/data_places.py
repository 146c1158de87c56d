"""Where a benchmark's rows lie: in the pocket world, on the hub, in VLMEvalKit's folder, or in a local copy.

All give rows in the schema of the real data set.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from stic_eval.contracts.benchmark import Benchmark, HubId
from stic_eval.errors import UserError, first_line
from stic_eval.evals import hub
from stic_eval.evals.arrow_rows import ArrowRows, arrow_dataset, saved_split
from stic_eval.evals.data_files import split_files
from stic_eval.evals.image_cells import Cells
from stic_eval.evals.json_files import PassingRows, json_rows
from stic_eval.evals.released_folders import describe, layout_rows
from stic_eval.evals.rows import ListRows, Rows
from stic_eval.evals.tsv_files import tsv_rows

# Sources that are no path. `vlmeval` is the benchmark's own file in VLMEvalKit's folder.
NAMED = ("hub", "vlmeval", "pocket", "pocket:val")


def is_pocket(source: str) -> bool:
    """Whether rows come from the embedded world: `pocket` (test) or `pocket:val` (to choose settings on)."""
    return source in ("pocket", "pocket:val")


def rows_at(benchmark: Benchmark, source: str | Path, remote: bool, images: bool = True) -> Rows:
    if is_pocket(str(source)):
        from stic_eval.pocket.rows import benchmark_rows

        split: Literal["val", "test"] = "val" if str(source).endswith(":val") else "test"
        name = benchmark.rows_like or benchmark.name
        try:
            return ListRows(f"the pocket {split} rows", benchmark_rows(name, split))
        except KeyError:
            raise UserError(
                f"{benchmark.name}: the pocket world has no rows for it; give its own: "
                f"-o rows.{benchmark.name}=FILE"
            ) from None
    path = local_path(benchmark, source)
    assert path is not None
    return _local(benchmark, path, remote, images=images)


def local_path(benchmark: Benchmark, source: str | Path) -> Path | None:
    """The file or folder that a source names; None for the hub and the pocket world.

    Raises:
        UserError: It is not there.
    """
    if str(source) == "hub" or is_pocket(str(source)):
        return None
    if str(source) == "vlmeval":
        return _vlmeval(benchmark)
    path = Path(source)
    if not path.exists():
        names = ", ".join(f"`{name}`" for name in NAMED[:3])
        raise UserError(f"{benchmark.name}: {path}: no such file or folder (nor is it one of {names})")
    return path


def _vlmeval(benchmark: Benchmark) -> Path:
    if not benchmark.vlmeval:
        raise UserError(f"{benchmark.name}: VLMEvalKit has no file for it that could be read here")
    folder = Path(os.environ.get("LMUData") or "~/LMUData").expanduser()  # noqa: SIM112
    if not (folder / benchmark.vlmeval).is_file():
        raise UserError(
            f"{benchmark.name}: {folder} holds no {benchmark.vlmeval}: put VLMEvalKit's file there, "
            "or set LMUData to the folder that it is in"
        )
    return folder / benchmark.vlmeval


def hub_rows(benchmark: Benchmark, remote: bool, tell: hub.Tell) -> tuple[Rows, HubId]:
    """Rows of the first copy that can be read: one that a download has left half may be whole elsewhere."""
    source = benchmark.source
    unread: UserError | None = None
    try:
        for at, found in hub.find(benchmark.name, source, tell):
            where = hub.label_of(source, at)
            if not isinstance(found, Path):
                return ArrowRows(where, found, Cells(None, remote)), at
            try:
                return _local(benchmark, found, remote, where), at
            except UserError as error:
                unread = unread or error
    except UserError as error:
        raise unread or error from error
    assert unread is not None  # `find` gives something or raises
    raise unread


def _local(
    benchmark: Benchmark, path: Path, remote: bool, where: str | None = None, images: bool = True
) -> Rows:
    pinned, where = where is not None, where or str(path)
    cells = Cells(path if path.is_dir() else path.parent, remote)
    try:
        if path.is_dir() and ((path / "state.json").exists() or (path / "dataset_dict.json").exists()):
            return ArrowRows(where, saved_split(benchmark, path), cells)
        if path.is_dir() and (rows := layout_rows(benchmark, path, remote)) is not None:
            return rows
        files = split_files(benchmark.source, path) if path.is_dir() else [path]
        kind = files[0].suffix if files else ""
        if kind in (".parquet", ".arrow"):
            return ArrowRows(where, arrow_dataset(files, pinned), cells)
        if kind == ".jsonl" and not images:
            return PassingRows(where, files)
        if kind in (".jsonl", ".json"):
            return json_rows(where, files, remote)
        if kind == ".tsv":
            return tsv_rows(where, files, remote)
    except UserError:
        raise
    except Exception as error:  # pyarrow's and datasets' own kinds
        reason = first_line(error.__cause__ or error)
        raise UserError(f"{benchmark.name}: {path}: cannot be read: {reason}") from error
    raise UserError(
        f"{benchmark.name}: {path}: holds no parquet, arrow, JSON, JSONL or TSV file"
        f"{describe(benchmark.layouts) if path.is_dir() else ''}"
    )
