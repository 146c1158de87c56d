"""`stic-eval show`: the details of a run, or of anything that has a name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any

from stic_eval.flags import Argument, Flag
from stic_eval.printable import printable

if TYPE_CHECKING:
    from stic_eval.contracts.benchmark import Benchmark
    from stic_eval.contracts.method import Method
    from stic_eval.contracts.solver import Solver

# What is shown of a record, by type; a file without them was written by something else.
_RECORD: dict[str, tuple[type, ...]] = {
    "id": (str, int), "question": (str,), "target": (object,), "response": (str,),
    "score": (int, float, NoneType),
}  # fmt: skip
_OPTIONAL = ("description", "why")
# What is shown of a thing that is registered, by kind.
_SAID = {
    "benchmark": (
        "title", "version", "variant", "protocol", "metric", "source", "vlmeval", "generation", "judged",
    ),
    "method": ("title", "paper"), "solver": ("title", "suffix", "version"), "engine": ("trains",),
    "loss": ("title", "constants"), "corruption": ("defaults", "random"),
}  # fmt: skip


def show(
    name: Annotated[
        str,
        Argument("A run (folder or name), a plug-in's file, or a benchmark, method, solver, engine, loss, "
                 "corruption, preset or ablation.", values="any"),
    ],
    benchmark: Annotated[str | None, Flag("Of a run: answers to this benchmark.", values="benchmark")] = None,
    method: Annotated[
        list[str] | None,
        Flag("Of a run: only these rows, e.g. baseline, stic+dar, stic@seed1; of an ablation, default or "
             "corruption=blur. Repeatable."),
    ] = None,
    sample: Annotated[str | None, Flag("Of a run: only the sample with this id.", names="--id")] = None,
    wrong: Annotated[bool, Flag("Of a run: only samples that at least one row got wrong.")] = False,
    number: Annotated[int, Flag("Of a run: how many samples.", names="-n", min=1)] = 5,
) -> None:  # fmt: skip
    """Show a run (settings, answers side by side) or anything that has a name, such as a method or preset."""
    from stic_eval import config_layers, plugins, profiles, registry
    from stic_eval.ablations import spec
    from stic_eval.errors import UserError
    from stic_eval.report import runs

    kinds = registry.kinds()
    if name.endswith(".py"):
        objects = plugins.register_file(name).objects
        for at, (kind, thing) in enumerate(objects.items()):
            print("\n" * bool(at), end="")
            _of_kind(kind, thing)
    elif registry.of_family(name):
        _of_kind("benchmark", registry.benchmarks().get(name))
    elif found := [kind for kind, known in kinds.items() if name in known.names()]:
        _of_kind(found[0], kinds[found[0]].get(name))
    elif name in config_layers.preset_names():
        print(_yaml(config_layers.read_preset(name)), end="")
    elif name in spec.shipped_names():
        print(_yaml(spec.load(name).model_dump(mode="json", exclude_defaults=True)), end="")
        print("# docs/axes.md says what each axis changes, and which values it takes.")
    elif name in profiles.SHIPPED:
        print(_yaml({"title": profiles.SHIPPED[name].title, **profiles.SHIPPED[name].content}), end="")
    else:
        try:
            folder = runs.find(name)
        except UserError:
            known = [
                *(word for registered in kinds.values() for word in registered.names()),
                *config_layers.preset_names(),
                *spec.shipped_names(),
                *profiles.SHIPPED,
            ]
            known += map(runs.name_of, runs.runs())
            raise UserError(
                f'"{name}" is not a run, {", ".join(kinds)}, preset or '
                f"ablation{registry.suggest(name, known)}"
            ) from None
        if benchmark is None and sample is None and not wrong and not method:
            _run(folder)
        else:
            _answers(folder, benchmark, method, sample, wrong, number)


def _of_kind(kind: str, shown: Any) -> None:
    """Where something registered is from, what it says of itself, and what may be chosen."""
    from stic_eval import registry

    file = registry.kinds()[kind].file(shown.name)
    if file is not None:
        print(f"file: {printable(str(file))}")
    if kind == "engine":
        print(printable(f"title: {(shown.__doc__ or shown.name).strip().splitlines()[0]}"))
    _print(shown, _SAID[kind])
    more: dict[str, Callable[[Any], None]] = {"benchmark": _options, "method": _method, "solver": _solver}
    if kind in more:
        more[kind](shown)


def _method(shown: Method) -> None:
    for heading, text in shown.notes.items():
        print(printable(f"{heading}: {text}"))
    print(_yaml({"options": shown.config().model_dump(mode="json")}), end="")
    if shown.presets:
        options = {name: dict(options) for name, options in shown.presets.items()}
        print(_yaml({"options under a preset": options}), end="")


def _solver(shown: Solver) -> None:
    print(_yaml({"options": shown.options().model_dump(mode="json")}), end="")


def _yaml(data: Any) -> str:
    import yaml

    dumper = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda self, data: True})
    return printable(yaml.dump(data, Dumper=dumper, sort_keys=False, allow_unicode=True, width=100))


def _print(thing: object, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(thing, name)
        if value not in ("", None, {}):
            print(printable(f"{name}: {value}"))


def _options(benchmark: Benchmark) -> None:
    """A benchmark's options: default, and what else may be chosen."""
    from typing import Literal, get_args, get_origin

    from stic_eval.benchmark_protocols import Decoding

    own = benchmark.options.model_fields if benchmark.options is not None else {}
    print(f"options (-o benchmarks.{benchmark.name}.OPTION=VALUE):")
    for name, field in own.items():
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        rest = f" (one of {', '.join(map(str, choices))})" if len(choices) > 1 else ""
        print(f"  {name}: {_yaml(field.default).splitlines()[0]}{rest}")
    for name in Decoding.model_fields:
        if name not in own:
            value = getattr(benchmark.generation, name)
            print(f"  {name}: {list(value) if isinstance(value, tuple) else value}")


def _run(folder: Path) -> None:
    from stic_eval.errors import UserError

    config = folder / "config.yaml"
    print(f"# {printable(str(folder))}")
    if config.is_file():
        print(printable(config.read_text(encoding="utf-8", errors="replace")), end="")
    manifest = folder / "manifest.json"
    if manifest.is_file():
        from stic_eval import documents

        try:
            data = documents.from_json(manifest.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{manifest}: is damaged ({error}); run it again") from error
        print(_yaml({"manifest": data}), end="")
    if (folder / "scores.json").is_file():
        from stic_eval.report import runs
        from stic_eval.report.run_adapters import adapter_folders

        for name, path in adapter_folders(runs.load(folder), folder).items():
            print(f"# adapter of {printable(name)}: {printable(str(path))}")
    records = sorted(folder.glob("records/*/*.jsonl"))
    for path in records:
        print(f"# {printable(str(path))}")
    if records:
        from stic_eval.plugins import display_path
        from stic_eval.store import named_by

        run, benchmark = (printable(text) for text in (display_path(folder), named_by(records[0].stem)))
        print(f"# scores: stic-eval table {run}; samples: stic-eval show {run} --benchmark {benchmark}")


def _answers(
    folder: Path,
    benchmark: str | None,
    methods: list[str] | None,
    sample: str | None,
    wrong: bool,
    number: int,
) -> None:
    from stic_eval.errors import UserError
    from stic_eval.registry import suggest
    from stic_eval.store import named_by, read_jsonl

    by_sample: dict[tuple[str, str], dict[str, Any]] = {}
    paths = sorted(folder.glob("records/*/*.jsonl"))
    benchmarks = sorted({named_by(path.stem) for path in paths})
    if benchmark is not None and benchmark not in benchmarks:
        there = f" (there are {', '.join(benchmarks)})" if benchmarks else ", nor any other records"
        raise UserError(f'--benchmark: {folder} has no "{benchmark}"{suggest(benchmark, benchmarks)}{there}')
    shown_of = _entries(folder, sorted({path.parent.name for path in paths}), methods or ())
    for path in paths:
        if (benchmark and named_by(path.stem) != benchmark) or path.parent.name not in shown_of:
            continue
        for line, record in enumerate(read_jsonl(path), start=1):
            if not _is_record(record):
                raise UserError(f"{path}, line {line}: not a record of this program; run it again")
            by_sample.setdefault((named_by(path.stem), str(record["id"])), {})[path.parent.name] = record
    shown, rules = 0, _rules(folder)
    for (name, identity), records in by_sample.items():
        if (sample and identity != sample) or shown >= number:
            continue
        if wrong and all((record["score"] or 0) >= 1 for record in records.values()):
            continue
        shown += 1
        if name in rules:  # once, before the first of its samples
            print(f"# {printable(name)}: {printable(rules.pop(name))}")
        print("\n".join(_side_by_side(name, identity, records)))
    if not shown:
        print("no sample fits")


def _rules(folder: Path) -> dict[str, str]:
    """Benchmark -> how it is asked and scored, as far as the run says."""
    from stic_eval.errors import UserError
    from stic_eval.report import runs

    try:
        return {column.name: column.protocol for column in runs.load(folder).columns if column.protocol}
    except UserError:
        return {}


def _entries(folder: Path, there: Sequence[str], methods: Sequence[str]) -> set[str]:
    """Folders of records of the variants that are named; of all, if none is."""
    from stic_eval.errors import UserError
    from stic_eval.report import compared_variants, runs
    from stic_eval.types import DIRECT

    if not methods:
        return set(there)
    try:
        scores = runs.load(folder)
    except UserError:  # nothing of it is finished: its folders are all that is known
        parts = [(name, *name.partition("@seed")) for name in there]
        entries = [
            runs.Entry(name, stem, stem, DIRECT, int(seed) if seed.isdecimal() else None)
            for name, stem, _, seed in parts
        ]
        scores = runs.Scores("", [], entries)
    found = set(there).intersection(methods)
    for name in set(methods) - found:
        try:
            found |= {entry.folder for entry in compared_variants.pick(scores, name, folder)[1]}
        except UserError as error:
            raise UserError(f"--method: {error}") from None
    return found


def _is_record(row: dict[str, Any]) -> bool:
    return all(name in row and isinstance(row[name], kinds) for name, kinds in _RECORD.items()) and all(
        isinstance(row.get(name), (str, NoneType)) for name in _OPTIONAL
    )


def _side_by_side(benchmark: str, identity: str, records: dict[str, Any]) -> Iterator[str]:
    first = next(iter(records.values()))
    yield f"== {printable(benchmark)} {printable(identity)}"
    yield f"question: {printable(first['question'])}"
    yield f"target: {printable(str(first['target']))}"
    for variant, record in records.items():
        score = "unscored" if record["score"] is None else f"{record['score']:.2f}"
        why = f" ({printable(record['why'])})" if record.get("why") else ""
        yield f"-- {printable(variant)}: {score}{why}"
        if record.get("description"):
            yield f"   description: {printable(record['description'])}"
        if record.get("thinking"):
            yield f"   thinking: {printable(str(record['thinking']))}"
        yield f"   response: {printable(record['response'])}"
    yield ""
