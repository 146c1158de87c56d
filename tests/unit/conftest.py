"""A run in front of an engine that answers by a function, and of a method whose stages are counted.

The engine has no weights, and training writes an adapter that says whose it is. Everything else is real.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from pydantic import BaseModel, ConfigDict

from stic_eval import registry
from stic_eval.cli.app import invoke
from stic_eval.contracts.benchmark import Benchmark, HubData, HubId
from stic_eval.contracts.method import Data, Method, Plan, Stage, StageContext
from stic_eval.engines.hf import HFEngine
from stic_eval.evals import opened_rows
from stic_eval.evals.rows import ListRows
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.store import content_key
from stic_eval.types import Generation, ImageRef, Request, Sample, Score
from tests.support.fake import FakeVLM

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VARIANTS = ("baseline", "baseline+dar", "stic", "stic+dar")
EVERYTHING = [f"{variant}/{name}" for variant in VARIANTS for name in ("one", "two")]


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    beta: float = 0.1


def methods(calls: Counter[str]) -> dict[str, Method]:
    """The baseline, and a method of two stages that count how often they are run."""

    def pairs(ctx: StageContext) -> None:
        calls["pairs"] += 1

    def preference(ctx: StageContext) -> None:
        calls["preference"] += 1
        (ctx.out / "adapter").mkdir(exist_ok=True)
        (ctx.out / "adapter" / "adapter_config.json").write_text(f'{{"seed": {ctx.seed}}}')

    def plan(options: Options, data: Data) -> Plan:
        first = Stage("pairs", 1, pairs, {}, reads=("images",), generations=30)
        params = {"beta": options.beta}
        return Plan(
            Stage("preference", 1, preference, params, needs=(first,), steps=7), "describe_and_respond"
        )

    return {
        "baseline": Method("baseline", "Baseline", lambda options, data: Plan(None), Options),
        "stic": Method("stic", "STIC", plan, Options),
    }


def picture(row: int) -> ImageRef:
    return ImageRef(f"{row:02x}" * 32, f"{row}.png", lambda: Image.new("RGB", (8, 8), "red"))


def benchmark(name: str) -> Benchmark:
    return Benchmark(
        name=name,
        title=name.upper(),
        version=1,
        source=HubData(f"nobody/{name}", "test"),
        to_sample=lambda row: Sample(
            str(row["id"]), (picture(row["id"]),), f"{name} {row['id']}", row["answer"]
        ),
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

    def has_object(self, name: str) -> bool:
        return False

    def forget(self) -> None:
        pass

    def roots(self) -> list[Path]:
        return []

    def get(self, name: str) -> Any:
        return self.known[name]


class World:
    """The folder that a test runs in, and what was computed there.

    Attributes:
        everything: All evaluations of a run of STIC, `<variant>/<benchmark>`.
        answer: (method, sample) -> what the model says.
        fail_at: The evaluation in which it does not answer, but raises `error`; one of a seed with it.
    """

    everything = EVERYTHING

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stages: Counter[str] = Counter()
        self.answer: Callable[[str, Sample], str] = lambda method, sample: "yes"
        self.fail_at: str | None = None
        self.error: type[BaseException] = KeyboardInterrupt
        self._known: dict[Path, tuple[int, int]] = {}

    @property
    def calls(self) -> Counter[str]:
        """Stages that were run, and evaluations that were recorded, since the last `forget`."""
        new = [path for path, stamp in self._records().items() if self._known.get(path) != stamp]
        return self.stages + Counter(f"{path.parent.name}/{path.stem}" for path in new)

    def forget(self) -> None:
        """What was computed so far counts no more."""
        self.stages.clear()
        self._known = self._records()

    def _records(self) -> dict[Path, tuple[int, int]]:
        """Each file's inode, which a later file may get again, and when it was written."""
        stats = {path: path.stat() for path in self.folder.rglob("records/*/*.jsonl")}
        return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}

    def run(self, *argv: str) -> int:
        common = ["--model", "vlm", "--images", "photos", "-o", f"rows.one={self.folder}/one.jsonl"]
        return invoke(["run", *common, "-o", f"rows.two={self.folder}/two.jsonl", "--quiet", *argv])

    def run_in(self, folder: str, *argv: str) -> int:
        return self.run("--output", folder, *argv)

    def on_the_hub(self, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
        """Has the benchmarks' rows on a hub that says something of them; gives the options for it."""

        def had(benchmark: Benchmark, remote: bool, tell: Callable[[str], None]) -> tuple[Any, HubId]:
            tell(f"{benchmark.name}: had from elsewhere")
            rows = [{"id": i, "question": "?", "answer": "yes" if i % 2 else "no"} for i in range(20)]
            return ListRows(benchmark.name, rows), HubId(f"somebody/{benchmark.name}", "c" * 40)

        patch.setattr(opened_rows, "hub_rows", had)
        return "rows.one=hub", "rows.two=hub"

    def results(self) -> Path:
        (folder,) = (self.folder / "results").iterdir()
        return folder

    def said(self, request: Request, adapter: Path | None) -> str:
        """What the model answers with an adapter."""
        text = request.messages[0].text
        description, _, question = text.rpartition("\n")
        name, _, number = question.partition(" ")
        if name not in ("one", "two"):
            return "A red square."
        written = {} if adapter is None else json.loads((adapter / "adapter_config.json").read_text())
        method = "baseline" if adapter is None else "stic" if "seed" in written else "adapter"
        row = f"{method}{'+dar' * bool(description)}"
        if self.fail_at in (f"{row}/{name}", f"{row}@seed{written.get('seed')}/{name}"):
            raise self.error("pulled the plug")
        return self.answer(method, Sample(number, (), question, "yes" if int(number) % 2 else "no"))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)

    class Engine(HFEngine):
        """Without weights."""

        @cached_property
        def model(self) -> str:  # type: ignore[override]
            return content_key(self.config.model)

        def answers(self, adapter: Path | None = None) -> Any:
            return FakeVLM(lambda request: made.said(request, adapter))

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
    monkeypatch.setattr(registry, "engines", lambda: Known({"hf": Engine}))
    monkeypatch.setattr(registry, "methods", lambda: Known(methods(made.stages)))
    monkeypatch.setattr(registry, "benchmarks", lambda: Known({n: benchmark(n) for n in ("one", "two")}))
    return made


@pytest.fixture(scope="session")
def pocket_words() -> PreTrainedTokenizerFast:
    """The pocket model's tokenizer, of fewer examples than its recipe looks through."""
    from stic_eval.pocket.recipe import build_tokenizer

    return build_tokenizer(shown=1000)
