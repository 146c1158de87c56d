"""What names an evaluation: whatever changes its records, by version, setting and content."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from functools import cache, partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from stic_eval.digests import digest
from stic_eval.errors import UserError
from stic_eval.plugin_code import foreign
from stic_eval.store import content_key, file_digests

if TYPE_CHECKING:
    from stic_eval.contracts.benchmark import Benchmark
    from stic_eval.experiment.variants import Variant
    from stic_eval.settings import RunConfig

# Keys once held the text of this program instead of versions. Those of its last such text are still known:
# of evaluations by a module of ours, or, under "", by a plug-in.
_FORMER_CODE = {
    "": "488137fa650ed641489de584a8461e22bf48dd17052bd261ead6f8eb7237e046",
    "benchmarks.chartqa": "2d4ba36fadcdf92a18eaf1fb680bafba150855290f000ac7ad5a5e29b802cf8d",
    "benchmarks.llava_bench": "84ac36f13ac014ecd6677b842ba48c380a63d2a05f5b2f4bc136405b734cdef0",
    "benchmarks.mathvista": "a58d4ebfc4a07ddd6713d6ddf2e7c9fb879c176cff459d0bfd8949bf6686fedb",
    "benchmarks.mmbench": "fa2ecfd13048112690f30692453c47ad96d16e5f560d16d2533164aa33ab1975",
    "benchmarks.mmvet": "82422b6b0a614b08149af9013d1d63cb05e365703b7b7dee980d85943f6363e6",
    "benchmarks.scienceqa": "71e40a5247c1965722184d27239184309764dbc6fe08fd01603e660dca371b54",
    "benchmarks.textvqa": "3d6ce2b72d17f73486db58eb13f9324d1bc83235e27bf4cdd077e1852b6535a9",
    "evals.lmms.benchmark": "d70ece8adf4d6b25dfaf93db61354f946560b4ff28bc1f0cb3eff7ad468d31e9",
}
_FIRST = ("direct", "describe_and_respond")
_FORMER_POCKET_ROWS = "4aee01909471cd46681dce210adbd5a9d13a9204d363b4ae7184e115c123535d"


def evaluation_keys(
    config: RunConfig,
    benchmark: Benchmark,
    variant: Variant,
    model: str,
    adapter: str | None,
    judge: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Content keys of one evaluation: its own, then one by which an earlier version knew the very same.

    One by objects of this process has another key each time: it is scored again, by answers that are stored.

    Args:
        config: The run's configuration.
        benchmark: What is asked.
        variant: Who answers, and how.
        model: Fingerprint of the base model and its weights' type.
        adapter: Key of the stage that makes the adapter.
        judge: What decides the verdicts on open answers.
    """
    from stic_eval import store
    from stic_eval.evals import evaluation_versions
    from stic_eval.experiment.inputs import prompt_set

    if _is_of_objects(benchmark, variant):
        return (token_hex(32),)
    functions = [value for field in fields(benchmark) if callable(value := getattr(benchmark, field.name))]
    if benchmark.judging is not None:
        graders = (benchmark.judging.own, benchmark.judging.official)
        functions += [function for grader in graders for function in (grader.prompt, grader.read)]
    solver, options = variant.solver, variant.options
    theirs = foreign(*functions, solver.solve, solver.key)
    own = [evaluation_versions.RUNNER, evaluation_versions.SCORING, evaluation_versions.ROWS, solver.version]
    asked = solver.key(options, prompt_set(config)) if solver.key else options.model_dump(mode="json")
    content = {
        **({"plug-in": theirs} if theirs else {}),
        **({"thinking": config.thinking.changed} if config.thinking.changed else {}),
        "benchmark": [benchmark.name, benchmark.version, config.benchmark_options.get(benchmark.name)],
        "judge": judge,
        "requests": store.REQUEST_VERSION,
        "limit": config.limit,
        "share": isinstance(config.limit, float),
        "model": model,
        "adapter": adapter,
        # The first two solvers are told apart by their options alone.
        **({"dar": asked or None} if solver.name in _FIRST else {"solver": [solver.name, asked]}),
    }
    where, root = config.rows_of(benchmark.name), config.rows_root(benchmark.name)
    built_on = _built_on(benchmark, functions)
    key = content_key({**content, **built_on, "rows": _rows(where, benchmark, root), "versions": own})
    rows = None if root else _former_rows(where, benchmark)
    code = _FORMER_CODE.get(_module(benchmark.to_sample))
    if not code or not rows or built_on or max(own) > 1:
        return (key,)
    return key, content_key({**content, "rows": rows, "code": code})


def _is_of_objects(benchmark: Benchmark, variant: Variant) -> bool:
    """Whether a benchmark, or what obtains its answers, is an object of this process.

    Its functions may depend on whatever this process holds, which no key can tell.
    """
    from stic_eval import registry

    asked_by = registry.solvers().has_object(variant.solver.name)
    return asked_by or registry.benchmarks().has_object(benchmark.name)


def _unwrap_partials(function: Any) -> Any:
    while isinstance(function, partial):  # under options
        function = function.func
    return function


def _module(thing: Any) -> str:
    """The module of this program that a function is from, or that it is; empty for somebody else's."""
    thing = _unwrap_partials(thing)
    name = getattr(thing, "__module__", None) or getattr(thing, "__name__", "")
    first, _, rest = str(name).partition(".")
    return rest if first == "stic_eval" else ""


def _built_on(benchmark: Benchmark, functions: list[Any]) -> dict[str, Any]:
    """Versions of the built-in benchmarks that another one has functions of, or imports."""
    from stic_eval import registry
    from stic_eval.contracts.benchmark import Benchmark

    near = list(functions)
    near += [value for f in functions for value in getattr(_unwrap_partials(f), "__globals__", {}).values()]
    near += [value.to_sample for value in near if isinstance(value, Benchmark)]
    names = {_module(value).removeprefix("benchmarks.") for value in near}
    others = sorted(names & set(registry.benchmarks().own()) - {benchmark.name})
    return {"built on": [[n, registry.benchmarks().get(n).version] for n in others]} if others else {}


def _rows(where: str, benchmark: Benchmark, images_root: Path | None = None) -> Any:
    from stic_eval.evals.data_places import is_pocket
    from stic_eval.evals.hub import is_commit

    if where == "hub":
        source = benchmark.source
        at = {i.revision if is_commit(i.revision) else f"{i.revision} of {i.path}" for i in source.ids}
        return ["hub", sorted(at), source.name, source.split]
    if is_pocket(where):
        from stic_eval.pocket.rows import VERSION

        return [where, VERSION]
    root = _local(where, benchmark)
    try:
        if root.is_dir():
            files = _files_below(root)
        else:
            root, files = root.parent, [root, *_images_beside(root, digest(root))]
        found = file_digests(files)
        if images_root is not None:
            tables = [path for path in files if path.suffix in _TABLES]
            found_in = [_images_beside(path, digest(path), images_root) for path in tables]
            named = sorted({image for images in found_in for image in images})
            # By where they lie below the root, which may be anywhere.
            names = [Path(os.path.relpath(path, images_root)).as_posix() for path in named]
            elsewhere = list(zip(names, file_digests(named), strict=True))
    except (OSError, ValueError) as error:  # pyarrow has both, without a name
        file, why = getattr(error, "filename", None) or where, getattr(error, "strerror", None) or str(error)
        raise UserError(f"rows of {benchmark.name}: {file}: {why.partition(chr(10))[0]}") from error
    names = [Path(os.path.relpath(path, root)).as_posix() for path in files]
    local = ["local", list(zip(names, found, strict=True))]
    return local if images_root is None else [*local, elsewhere]


def _local(where: str, benchmark: Benchmark) -> Path:
    from stic_eval.evals.data_places import local_path

    return local_path(benchmark, where) or Path(where)


def _files_below(folder: Path) -> list[Path]:
    """All files of a folder, those behind links to folders too; each folder once, for links may go round."""
    found: list[Path] = []
    seen: set[str] = set()
    for at, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(at)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        found += [Path(at, name) for name in names]
    return sorted(file for file in found if file.is_file())


_TABLES = (".json", ".jsonl", ".tsv", ".parquet", ".arrow")


@cache
def _images_beside(path: Path, content: str, root: Path | None = None) -> list[Path]:
    """The images that a file of rows names, as far as they are there: they are part of the rows."""
    from stic_eval.evals.row_images import images_beside

    return images_beside(path, root)


def _former_rows(where: str, benchmark: Benchmark) -> Any:
    """Rows as keys held them beside the program's text; None: the present ones are others."""
    from stic_eval.evals.data_places import is_pocket

    if where == "hub":
        return _rows(where, benchmark)
    if is_pocket(where):
        from stic_eval.pocket.rows import VERSION

        return [where, _FORMER_POCKET_ROWS] if VERSION == (1, 1) else None
    path = _local(where, benchmark)
    files = [file for file in sorted(path.rglob("*")) if file.is_file()] if path.is_dir() else [path]
    return ["local", [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]]
