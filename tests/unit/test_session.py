"""What a run computes, reuses, resumes and reports.

The orchestration is under test, so the four parts that need a model are replaced by counters: loading
it, its cache, executing stages, and asking one benchmark. Configuration, keys, scoring, files, table
and command are real.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from PIL import Image
from pydantic import BaseModel, ConfigDict

from stic_eval import registry
from stic_eval.cli.app import invoke
from stic_eval.evals.benchmark import Benchmark, HubData
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.selftrain.method import Data, Method, Plan, Stage
from stic_eval.store import StageStore, content_key
from stic_eval.types import Generation, Record, Sample, Score, Summary


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    beta: float = 0.1


def plan(options: Options, data: Data) -> Plan:
    params = {"beta": options.beta}
    pairs = Stage("pairs", 1, lambda ctx: None, {}, reads=("images",), generations=30)
    tuned = Stage("preference", 1, lambda ctx: None, params, needs=(pairs,), steps=7)
    return Plan(tuned, "describe_and_respond")


METHODS = {
    "baseline": Method("baseline", "Baseline", lambda options, data: Plan(None), Options),
    "stic": Method("stic", "STIC", plan, Options),
}


def benchmark(name: str) -> Benchmark:
    return Benchmark(
        name=name,
        title=name.upper(),
        version=1,
        source=HubData(f"nobody/{name}", "test"),
        to_sample=lambda row: Sample(str(row["id"]), (), row["question"], row["answer"]),
        generation=Generation(max_new_tokens=4),
        score=lambda sample, text: Score(None if text == "?" else float(text == sample.target), text),
        aggregate=summarize,
        protocol="the question; accuracy",
    )


class Known:
    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known

    def names(self) -> list[str]:
        return list(self.known)

    def get(self, name: str) -> Any:
        return self.known[name]


class World:
    """The folder that a test runs in, and how often each replaced part was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: Counter[str] = Counter()
        self.answer: Callable[[str, Sample], str] = lambda variant, sample: "yes"
        self.fail_at: str | None = None

    def run(self, *argv: str) -> int:
        common = ["--model", "vlm", "--images", "photos", "-o", f"rows.one={self.folder}/one.jsonl"]
        return invoke(["run", *common, "-o", f"rows.two={self.folder}/two.jsonl", "--quiet", *argv])

    def results(self) -> Path:
        (folder,) = (self.folder / "results").iterdir()
        return folder

    def stage_key(self, stage: Stage, data: Data, fingerprint: str, seed: int) -> str:
        needs = [self.stage_key(need, data, fingerprint, seed) for need in stage.needs]
        return content_key([stage.name, dict(stage.params), needs, data.images_key, fingerprint, seed])

    def run_stage(
        self, stage: Stage, *, data: Data, seed: int, fingerprint: str, store: StageStore, **_: Any
    ) -> Path:
        key = self.stage_key(stage, data, fingerprint, seed)
        if found := store.done(stage.name, key):
            return found
        for need in stage.needs:
            self.run_stage(need, data=data, seed=seed, fingerprint=fingerprint, store=store)
        self.calls[stage.name] += 1
        adapter = store.work_dir(stage.name, key) / "adapter"
        adapter.mkdir(exist_ok=True)
        (adapter / "adapter_config.json").write_text(f"{key}")
        return store.finish(stage.name, key)

    def evaluate(
        self, benchmark: Benchmark, rows: list[Sample], model: Any, solver: str, *, out: Path, **_: Any
    ) -> tuple[list[Record], Summary]:
        self.calls[f"{out.parent.name}/{benchmark.name}"] += 1
        if self.fail_at == f"{out.parent.name}/{benchmark.name}":
            raise RuntimeError("pulled the plug")
        records = []
        for sample in rows:
            verdict = benchmark.score(sample, self.answer(out.parent.name, sample))
            records.append(
                Record(sample.id, sample.question, (), sample.target, {}, None, "", verdict.answer,
                       verdict.value, 1.0, None, 0.0, 1)
            )  # fmt: skip
        return records, benchmark.aggregate(records)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    for name in ("one", "two"):
        rows = [{"id": i, "question": "?", "answer": "yes" if i % 2 else "no"} for i in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "vlm").mkdir()
    (tmp_path / "vlm" / "config.json").write_text('{"vision_config": {}}')
    (tmp_path / "vlm" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "photos" / "red.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "methods", lambda: Known(METHODS))
    monkeypatch.setattr(registry, "benchmarks", lambda: Known({n: benchmark(n) for n in ("one", "two")}))

    def module(name: str, **attributes: Any) -> None:
        built = ModuleType(name)
        built.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, name, built)
        parent, _, last = name.rpartition(".")
        monkeypatch.setattr(sys.modules[parent], last, built, raising=False)

    import stic_eval.evals
    import stic_eval.models
    import stic_eval.selftrain  # noqa: F401

    module("stic_eval.models.hf", model_fingerprint=lambda model, revision: content_key(model), HFModel=None)
    module("stic_eval.models.cached", CachedVLM=lambda make, fingerprint, store: SimpleNamespace())
    module("stic_eval.selftrain.execute", stage_key=made.stage_key, run_stage=made.run_stage)
    module("stic_eval.evals.runner", evaluate=made.evaluate)
    return made


VARIANTS = ("baseline", "baseline+dar", "stic", "stic+dar")
EVERYTHING = [f"{variant}/{name}" for variant in VARIANTS for name in ("one", "two")]


def test_a_run_trains_once_and_evaluates_everything_once(world: World) -> None:
    assert world.run() == 0
    assert world.calls == Counter([*EVERYTHING, "pairs", "preference"])
    names = {path.name for path in world.results().iterdir()}
    assert names >= {"config.yaml", "manifest.json", "scores.json", "run.log"}
    assert names >= {f"table.{suffix}" for suffix in ("md", "tex", "csv", "json")}
    assert yaml.safe_load((world.results() / "config.yaml").read_text())["method_options"]["stic"] == {
        "beta": 0.1
    }


def test_a_second_run_computes_nothing_and_prints_the_same(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run() == 0
    first, manifest = capsys.readouterr().out, (world.results() / "manifest.json").read_text()
    world.calls.clear()
    assert world.run() == 0
    assert world.calls == Counter()
    assert capsys.readouterr().out == first
    assert (world.results() / "manifest.json").read_text() == manifest
    assert invoke(["table", world.results().name]) == 0
    assert capsys.readouterr().out.strip() in first


def test_a_run_that_died_goes_on_where_it_was(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.fail_at = "stic/two"
    assert world.run() == 1
    assert "run.log" in capsys.readouterr().err
    world.fail_at = None
    world.calls.clear()
    assert world.run() == 0
    assert world.calls == Counter(["stic/two", "stic+dar/one", "stic+dar/two"])


def test_another_option_is_another_run_that_shares_what_it_can(world: World) -> None:
    assert world.run() == 0
    world.calls.clear()
    assert world.run("-o", "beta=0.5") == 0
    assert world.calls["preference"] == 1
    assert world.calls["pairs"] == 0
    assert len(list((world.folder / "results").iterdir())) == 2


def test_rows_or_weights_that_changed_are_evaluated_again(world: World) -> None:
    assert world.run() == 0
    world.calls.clear()
    with (world.folder / "two.jsonl").open("a") as file:
        file.write('{"id": 99, "question": "?", "answer": "yes"}\n')
    assert world.run() == 0
    assert world.calls == Counter(name for name in EVERYTHING if name.endswith("two"))


def test_fresh_computes_again_without_touching_the_shared_cache(world: World) -> None:
    assert world.run() == 0
    shared = sorted(path.name for path in (world.folder / "cache" / "stages").iterdir())
    world.calls.clear()
    assert world.run("--fresh") == 0
    assert world.calls == Counter([*EVERYTHING, "pairs", "preference"])
    assert sorted(path.name for path in (world.folder / "cache" / "stages").iterdir()) == shared
    world.calls.clear()
    assert world.run() == 0
    assert world.calls == Counter()


def test_seeds_train_apart_and_meet_in_one_row(world: World) -> None:
    assert world.run("--seed", "0", "--seed", "4", "--no-dar") == 0
    variants = ("baseline", "stic@seed0", "stic@seed4")
    trained = ["pairs", "pairs", "preference", "preference"]
    assert world.calls == Counter([*(f"{v}/{name}" for v in variants for name in ("one", "two")), *trained])
    rows = json.loads((world.results() / "table.json").read_text())["rows"]
    assert [(row["label"], row["seeds"]) for row in rows] == [("Baseline", []), ("STIC", [0, 4])]


def test_a_better_method_is_marked(world: World) -> None:
    world.answer = lambda variant, sample: sample.target if variant == "stic" else "yes"
    assert world.run("--no-dar") == 0
    row = json.loads((world.results() / "table.json").read_text())["rows"][1]
    assert row["cells"]["average"]["score"] == 100.0
    assert row["cells"]["average"]["difference"]["mark"] == "**"


def test_unscored_rows_and_skipped_files_end_with_3(world: World) -> None:
    world.answer = lambda variant, sample: "?" if sample.id == "3" else "yes"
    assert world.run("--no-dar") == 3
    cell = json.loads((world.results() / "table.json").read_text())["rows"][0]["cells"]["one"]
    assert (cell["unscored"], cell["complete"]) == (1, False)


def test_skipped_files_are_listed_with_their_reason(world: World) -> None:
    (world.folder / "photos" / "empty.jpg").write_bytes(b"")
    (world.folder / "photos" / "notes.txt").write_text("hello")
    assert world.run("--no-dar") == 3
    lines = [json.loads(line) for line in (world.results() / "skipped.jsonl").read_text().splitlines()]
    assert {line["source"] for line in lines} == {"empty.jpg", "notes.txt"}
    assert all(line["reason"] for line in lines)


def test_a_dry_run_shows_the_plan_and_leaves_no_trace(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run("--dry-run") == 0
    text = capsys.readouterr().out
    assert world.calls == Counter()
    assert not (world.folder / "results").exists()
    assert "pairs, seed 0" in text
    assert "to do in all" in text
    # 30 for the pairs; two benchmarks of 20 rows, asked once without and twice with DaR, by two methods.
    total = next(line for line in text.splitlines() if line.startswith("to do in all"))
    assert total.split()[-2:] == [str(30 + 2 * 2 * (20 + 40)), "7"]
    world.run()
    capsys.readouterr()
    assert world.run("--dry-run") == 0
    assert next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("to do in all")
    ).split()[-2:] == ["0", "0"]


def test_an_adapter_is_evaluated_beside_the_model(world: World) -> None:
    folder = world.folder / "mine"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).write_bytes(b"{}")
    argv = ["eval", "--model", "vlm", "--adapter", str(folder), "-o", f"rows={world.folder}/one.jsonl", "-q"]
    assert invoke([*argv, "--benchmarks", "one"]) == 0
    assert world.calls == Counter(["baseline/one", "adapter/one"])


def test_train_prints_adapters_and_evaluates_nothing(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["train", "--model", "vlm", "--images", "photos", "-q"]) == 0
    assert world.calls == Counter(["pairs", "preference"])
    label, _, path = capsys.readouterr().out.strip().partition(": ")
    assert label == "STIC, seed 0"
    assert (Path(path) / "adapter_config.json").is_file()
