"""What names an evaluation: content of rows and plug-ins, versions of everything else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stic_eval import config, registry
from stic_eval.cli.app import invoke
from stic_eval.contracts.benchmark import Benchmark
from stic_eval.contracts.method import Data
from stic_eval.engines.hf import HFEngine
from stic_eval.errors import UserError
from stic_eval.evals import evaluation_versions
from stic_eval.experiment import graph, variants
from stic_eval.experiment.keys import evaluation_keys
from stic_eval.models.fingerprint import adapter_fingerprint
from stic_eval.pocket import rows as pocket_rows
from stic_eval.selftrain.stage_runner import stage_key
from stic_eval.settings import RunConfig
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import Score
from tests.support.scripted import data_of

NOTHING = Data((), (), "images", "sft", load_prompts())


def keys(
    benchmark: Benchmark, where: str = "pocket", dar: bool = False, version: int = 1, **flags: Any
) -> tuple[str, ...]:
    built = config.load(flags={"methods": ["baseline"], "dar": dar, "benchmarks": "textvqa", **flags})
    built = built.model_copy(update={"rows": {"all": where}})
    variant = variants.variants(built, NOTHING)[-1]
    assert variant.solver.name == ("describe_and_respond" if dar else "direct")
    variant = replace(variant, solver=replace(variant.solver, version=version))
    return evaluation_keys(built, benchmark, variant, "model", None)


def textvqa() -> Benchmark:
    return registry.benchmarks().get("textvqa")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))


# ---------------------------------------------------------------- versions


@pytest.mark.parametrize("name", ["RUNNER", "SCORING", "ROWS"])
def test_a_higher_version_is_another_evaluation_everywhere(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = keys(textvqa())
    monkeypatch.setattr(evaluation_versions, name, 2)
    (after,) = keys(textvqa())  # what was evaluated before is no more what it is now
    assert after not in before


def test_a_solver_has_a_version_of_its_own() -> None:
    for dar in (False, True):
        assert not set(keys(textvqa(), dar=dar, version=2)) & set(keys(textvqa(), dar=dar))


def test_rows_of_the_pocket_world_have_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before, others = keys(textvqa()), keys(textvqa(), "hub")
    monkeypatch.setattr(pocket_rows, "VERSION", (1, 2))
    (after,) = keys(textvqa())
    assert after not in before
    assert keys(textvqa(), "hub") == others


def test_another_version_of_a_benchmark_is_no_former_one() -> None:
    assert not set(keys(replace(textvqa(), version=99))) & set(keys(textvqa()))


def derived(how: str) -> Benchmark:
    """A plug-in's benchmark that has a function of ours, or calls one in its own."""
    if how == "a function":
        return replace(textvqa(), name="mine", version=1, score=lambda sample, text: Score(1.0))
    imported = {
        "the module": "import stic_eval.benchmarks.textvqa as base",
        "the benchmark": "from stic_eval.benchmarks.textvqa import benchmark as base",
    }[how]
    names: dict[str, Any] = {"__name__": "mine"}
    exec(f"{imported}\ndef own(*given): raise NotImplementedError", names)
    functions = [field.name for field in fields(Benchmark) if callable(getattr(textvqa(), field.name))]
    return replace(textvqa(), name="mine", version=1, **dict.fromkeys(functions, partial(names["own"])))


@pytest.mark.parametrize("how", ["a function", "the module", "the benchmark"])
def test_what_is_built_on_a_benchmark_goes_by_its_version(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    mine = derived(how)
    (before,) = keys(mine)  # nobody knows which version an earlier one had
    known = registry.benchmarks()
    get = known.get

    def higher(name: str) -> Benchmark:
        return replace(get(name), version=99) if name == "textvqa" else get(name)

    monkeypatch.setattr(known, "get", higher)
    monkeypatch.setattr(registry, "benchmarks", lambda: known)
    assert keys(mine) != (before,)


# ---------------------------------------------------------------- adapters in 16 bits


def test_in_16_bits_an_adapters_type_is_in_keys(
    adapters: tuple[Path, Path],
) -> None:
    data, stic = data_of(6, 4), registry.methods().get("stic")
    stages = list(variants.stages(stic.plan(stic.config(), data).adapter))

    def of_stages(dtype: str) -> dict[str, str]:
        return {one.name: stage_key(one, data, "model", 0, adapter_dtype=dtype) for one in stages}

    plain, halved = of_stages(""), of_stages("bfloat16")
    assert plain == {one.name: stage_key(one, data, "model", 0) for one in stages}
    assert [name for name in plain if plain[name] != halved[name]] == ["descriptions", "infused_sft"]

    def of_evaluation(dtype: str, keyed: tuple[tuple[Any, str], ...]) -> tuple[str, ...]:
        built = config.load(flags={"methods": ["baseline"], "benchmarks": "textvqa"})
        built = built.model_copy(update={"rows": {"all": "pocket"}})
        (variant,) = variants.variants(built, NOTHING)
        engine = SimpleNamespace(adapter_dtype=dtype, trains_in=lambda config: True)
        resources: Any = SimpleNamespace(
            engine=engine, config=built, fingerprint="model", judge=None, benchmarks={"textvqa": textvqa()}
        )
        arm: Any = SimpleNamespace(config=built)
        return graph._keys(graph.Subject(arm, variant, keyed), "textvqa", resources)

    keyed = ((stages[-1], "key"),)
    assert of_evaluation("bfloat16", ()) == of_evaluation("", ())
    assert not set(of_evaluation("bfloat16", keyed)) & set(of_evaluation("", keyed))
    engines = [HFEngine(RunConfig(dtype=dtype), lambda _: nullcontext(), lambda: False)
               for dtype in ("float32", "bfloat16")]  # fmt: skip
    full, half = ((one.identity(), one.identity(adapters[0])) for one in engines)
    assert full[1] == adapter_fingerprint(full[0], adapters[0])
    assert half[1] not in (adapter_fingerprint(half[0], adapters[0]), full[1])


# ---------------------------------------------------------------- objects


@pytest.mark.parametrize("kind", ["benchmark", "solver"])
def test_an_evaluation_by_an_object_is_always_another_one(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    mine = replace(textvqa(), name="mine")
    assert keys(mine) == keys(mine)
    objects = {"benchmark": {"mine": mine}, "solver": {"direct": registry.solvers().get("direct")}}
    monkeypatch.setattr(registry.kinds()[kind], "_objects", objects[kind])
    assert not set(keys(mine)) & set(keys(mine))


# ---------------------------------------------------------------- local rows


def jsonl(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "0.png").write_bytes(b"picture")
    (folder / "images" / "unused.png").write_bytes(b"picture")
    path = folder / "rows.jsonl"
    path.write_text(json.dumps({"image": "images/0.png", "question": "?"}) + "\n")
    return path


def listed(folder: Path) -> Path:
    path = jsonl(folder)
    path.write_text(json.dumps({"images": ["images/0.png", "gone.png"], "question": "?"}) + "\n")
    return path


def tsv(folder: Path) -> Path:
    path = jsonl(folder).with_suffix(".tsv")
    path.write_text("index\tquestion\timage_path\n0\t?\t['images/0.png']\n")
    return path


def whole(folder: Path) -> Path:
    return jsonl(folder).parent


def cells(folder: Path) -> Path:
    """As `datasets` writes images that it has not decoded."""
    path = jsonl(folder)
    cell = {"bytes": None, "path": "images/0.png"}
    path.write_text(json.dumps({"images": [cell, {"bytes": "AAAA"}], "question": "?"}) + "\n")
    return path


@pytest.mark.parametrize("make", [jsonl, listed, tsv, whole, cells])
def test_local_rows_count_by_content_with_their_images(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path / "data")
    first = keys(textvqa(), str(path))[0]
    # Where they lie and how old they are makes no difference.
    moved = make(tmp_path / "elsewhere")
    for file in moved.parent.rglob("*"):
        os.utime(file, ns=(5, 5))
    assert keys(textvqa(), str(moved))[0] == first
    for file in (tmp_path / "data" / "images" / "0.png", path if path.is_file() else path / "rows.jsonl"):
        known, stat = keys(textvqa(), str(path))[0], file.stat()
        file.write_bytes(file.read_bytes().replace(b"?", b"!").replace(b"picture", b"another"))
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert file.stat().st_size == stat.st_size
        assert keys(textvqa(), str(path))[0] != known


@pytest.mark.parametrize("images", ["text", "struct", "list"])
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_images_that_a_table_names_count(tmp_path: Path, kind: str, images: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    jsonl(tmp_path)
    cell = {"bytes": None, "path": "images/0.png"}
    other = {"bytes": b"encoded", "path": None}
    column = {"text": ["images/0.png", None], "struct": [cell, other], "list": [[cell, other], []]}[images]
    table = pa.table({"images" if images == "list" else "image": column, "question": ["?", "?"]})
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    known = keys(textvqa(), str(path))[0]
    (tmp_path / "images" / "unused.png").write_bytes(b"another")
    assert keys(textvqa(), str(path))[0] == known
    (tmp_path / "images" / "0.png").write_bytes(b"another")
    assert keys(textvqa(), str(path))[0] != known


def test_files_behind_links_count_and_links_may_go_round(tmp_path: Path) -> None:
    path = whole(tmp_path / "data")
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "1.png").write_bytes(b"picture")
    (path / "more").symlink_to(tmp_path / "away")
    (path / "images" / "round").symlink_to(path)
    (path / "gone").symlink_to(tmp_path / "nowhere")
    known = keys(textvqa(), str(path))[0]
    (tmp_path / "away" / "1.png").write_bytes(b"another")
    assert keys(textvqa(), str(path))[0] != known


def test_a_file_that_lies_beside_rows_is_none_of_them(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "data")
    known = keys(textvqa(), str(path))[0]
    (tmp_path / "data" / "images" / "unused.png").write_bytes(b"another")
    (tmp_path / "data" / "notes.txt").write_text("notes")
    assert keys(textvqa(), str(path))[0] == known
    assert keys(textvqa(), str(tmp_path / "data"))[0] != known


@pytest.mark.parametrize("cell", ["a" * 400, "no\0name", 7, {"path": 3}, [None, 1], "/etc/hostname"])
def test_cells_that_name_no_image_are_no_obstacle(tmp_path: Path, cell: Any) -> None:
    path = jsonl(tmp_path / "data")
    path.write_text(json.dumps({"image": cell}) + "\n")
    assert len(keys(textvqa(), str(path))) == 2


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_table_that_is_none_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(b"no table at all")
    with pytest.raises(UserError, match=f"rows of textvqa: .*rows.{suffix}: "):
        keys(textvqa(), str(path))


def test_rows_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = whole(tmp_path / "data")

    def refuse(*_: object) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path / "rows.jsonl"))

    monkeypatch.setattr("stic_eval.experiment.keys.file_digests", refuse)
    monkeypatch.chdir(tmp_path)
    argv = ["run", "--method", "baseline", "--benchmarks", "textvqa", "-o", f"rows.textvqa={path}"]
    assert invoke([*argv, "--dry-run"]) == 2
    assert f"rows of textvqa: {path / 'rows.jsonl'}: Permission denied" in capsys.readouterr().err
