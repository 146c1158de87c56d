"""A run whose parts that need a model are replaced by counters: what it computes is what is counted.

Replaced are loading the model, its cache, executing stages, and asking one benchmark. Configuration,
keys, scoring, files, table and command are real.
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
from PIL import Image
from pydantic import BaseModel, ConfigDict

from stic_eval import registry
from stic_eval.cli.app import invoke
from stic_eval.contracts.benchmark import Benchmark, HubData
from stic_eval.contracts.method import Data, Method, Plan, Stage
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.store import StageStore, content_key
from stic_eval.types import Generation, Record, Sample, Score, Summary

VARIANTS = ("baseline", "baseline+dar", "stic", "stic+dar")
EVERYTHING = [f"{variant}/{name}" for variant in VARIANTS for name in ("one", "two")]


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
        images=False,
    )


class Known:
    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known

    def names(self) -> list[str]:
        return list(self.known)

    own = names

    def file(self, name: str) -> None:
        return None

    def has_family(self, name: str) -> bool:
        return False

    def roots(self) -> list[Path]:
        return []

    def get(self, name: str) -> Any:
        return self.known[name]


class World:
    """The folder that a test runs in, and how often each replaced part was called.

    Attributes:
        everything: All evaluations of a run of STIC, `<variant>/<benchmark>`.
    """

    everything = EVERYTHING

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: Counter[str] = Counter()
        self.answer: Callable[[str, Sample], str] = lambda variant, sample: "yes"
        self.fail_at: str | None = None

    def run(self, *argv: str) -> int:
        common = ["--model", "vlm", "--images", "photos", "-o", f"rows.one={self.folder}/one.jsonl"]
        return invoke(["run", *common, "-o", f"rows.two={self.folder}/two.jsonl", "--quiet", *argv])

    def run_in(self, folder: str, *argv: str) -> int:
        return self.run("--output", folder, *argv)

    def results(self) -> Path:
        (folder,) = (self.folder / "results").iterdir()
        return folder

    def stage_key(
        self,
        stage: Stage,
        data: Data,
        fingerprint: str,
        seed: int,
        known: dict[int, str] | None = None,
        **_: Any,
    ) -> str:
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
        self,
        benchmark: Benchmark,
        rows: list[Sample],
        model: Any,
        solver: Any,
        options: Any,
        *,
        out: Path,
        **_: Any,
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
    module(
        "stic_eval.models.cached",
        CachedVLM=lambda make, fingerprint, store: SimpleNamespace(generate=None, fingerprint=fingerprint),
    )
    module("stic_eval.selftrain.execute", stage_key=made.stage_key, run_stage=made.run_stage)
    module("stic_eval.evals.runner", evaluate=made.evaluate)
    return made
