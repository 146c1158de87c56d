"""Stages: what their keys depend on, that each runs once, and what a kill leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from stic_eval.contracts.method import Data, SFTItem, Stage, StageContext, items_key
from stic_eval.errors import RunError
from stic_eval.image_sources import scan_images
from stic_eval.models.fingerprint import adapter_fingerprint
from stic_eval.models.hf_model import HFModel
from stic_eval.models.response_cache import GivenAnswer
from stic_eval.selftrain import stage_runner
from stic_eval.selftrain.stage_runner import run_stage, stage_key
from stic_eval.stage_store import StageStore
from stic_eval.store import ResponseStore, content_key
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import Generation, Likelihood, Message, Request, Response
from tests.support.scripted import Quiet

DATA = Data((), (), "images", "sft", load_prompts())


def nothing(context: StageContext) -> None:
    (context.out / "made").write_text("x")


def stage(name: str = "one", run: Callable[[StageContext], None] = nothing, **fields: Any) -> Stage:
    return Stage(**{"name": name, "version": 1, "run": run, "params": {}, **fields})


class Lab:
    """Everything that `run_stage` is given, in a folder of its own."""

    def __init__(self, folder: Path, model: Callable[[Path | None], Any] | None = None) -> None:
        self.store = StageStore(folder / "stages")
        self.report = Quiet()
        self.model = model or self._unloaded
        self._answers = ResponseStore(folder / "responses.sqlite")
        self.fingerprint = "base"

    def _unloaded(self, adapter: Path | None) -> Any:
        raise AssertionError("the model was loaded")

    def run(self, stage: Stage, data: Data = DATA, seed: int = 0, **engine: Any) -> Path:
        return run_stage(
            stage,
            data=data,
            seed=seed,
            fingerprint=self.fingerprint,
            model=self.model,
            responses=lambda: self._answers,
            store=self.store,
            report=self.report,
            **{"answers": self.model, "scorer": self.model, **engine},
        )


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_answers_and_likelihoods_are_the_engines(lab: Lab) -> None:
    request = Request((Message("user", "?"),), (), Generation())

    class Engine:
        def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
            return ((one, Response("said", 1, "stop")) for one in requests)

        def likelihoods(self, asked: Iterable[GivenAnswer]) -> Iterator[tuple[GivenAnswer, Likelihood]]:
            return ((one, Likelihood(-2.0, 1)) for one in asked)

    def ask(context: StageContext) -> None:
        ((_, answer),) = context.vlm(None).generate([request])
        (likelihood,) = context.likelihoods(None, [(request, answer.text)])
        (context.out / "made").write_text(f"{answer.text} {likelihood.logp}")

    folder = lab.run(stage(run=ask), answers=lambda adapter: Engine(), scorer=lambda adapter: Engine())
    assert (folder / "made").read_text() == "said -2.0"
    lab.fingerprint = "another"
    with pytest.raises(RunError, match="stage one: it needs likelihoods"):
        lab.run(stage(run=ask), answers=lambda adapter: Engine(), scorer=lambda adapter: None)


# ---------------------------------------------------------------- keys


def key(stage: Stage, data: Data = DATA, fingerprint: str = "base", seed: int = 0) -> str:
    return stage_key(stage, data, fingerprint, seed)


def test_a_key_holds_what_changes_the_output() -> None:
    need = stage("need", reads=("images",))
    base = stage(params={"alpha": 0.5}, needs=(need,))
    other = [
        key(replace(base, name="two")),
        key(replace(base, version=2)),
        key(replace(base, params={"alpha": 0.25})),
        key(replace(base, params={"alpha": 0.5, "beta": 1})),
        key(replace(base, needs=())),
        key(replace(base, needs=(replace(need, version=2),))),
        key(replace(base, reads=("sft",))),
        key(base, replace(DATA, images_key="others")),  # through what it needs
        key(base, fingerprint="another"),
        key(base, seed=1),
    ]
    assert len({key(base), *other}) == len(other) + 1


def test_a_key_holds_nothing_else() -> None:
    base = stage(params={"alpha": 1.0, "mix": {"a": 1, "b": 2}}, reads=("images",))
    same = [
        key(replace(base, run=lambda context: None, generations=99, steps=3)),
        key(replace(base, params={"mix": {"b": 2, "a": 1.0}, "alpha": 1})),
        key(base, replace(DATA, sft_key="others")),  # which it does not read
        key(base, replace(DATA, images=(1, 2))),  # whose key is the same
    ]
    assert set(same) == {key(base)}
    assert key(stage(reads=("sft",)), replace(DATA, images_key="others")) == key(stage(reads=("sft",)))


def test_a_key_depends_on_the_inputs_that_a_stage_takes_alone(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = scan_images(photos)[0]
    items = [
        SFTItem(str(n), image, (("user", f"{n}?"), ("assistant", "."))) for n, image in enumerate(images)
    ]

    def data(n: int, m: int) -> Data:
        hashes = content_key([image.sha256 for image in images[:n]])
        return Data(tuple(images[:n]), tuple(items[:m]), hashes, items_key(items[:m]), load_prompts())

    both: tuple[Literal["images", "sft"], ...] = ("images", "sft")
    some = stage(params={"images": 3, "items": 4}, reads=both)
    everything = stage(params={"images": 8, "items": 8}, reads=both)
    assert key(some, data(3, 4)) == key(some, data(8, 8)) == key(some, data(5, 7))
    assert key(some, data(2, 4)) != key(some, data(3, 4)) != key(some, data(3, 3))
    assert key(everything, data(8, 7)) != key(everything, data(8, 8)) != key(everything, data(7, 8))
    assert key(stage(reads=both), data(8, 8)) != key(stage(reads=both), data(8, 7))
    before = key(some, data(8, 8))
    monkeypatch.setattr(stage_runner, "REQUEST_VERSION", 99)  # model input is made another way
    assert key(some, data(8, 8)) != before


def test_params_without_a_key_are_refused() -> None:
    with pytest.raises(TypeError, match="no content key"):
        key(stage(params={"where": Path("/tmp")}))


# ---------------------------------------------------------------- running


def test_a_stage_and_what_it_needs_run_once(lab: Lab) -> None:
    calls: list[str] = []

    def run(context: StageContext) -> None:
        for name, folder in context.needs.items():
            assert (folder / "made").read_text() == name
        calls.append(context.out.name.split("-")[0])
        (context.out / "made").write_text(calls[-1])

    root = stage("root", run)
    left, right = stage("left", run, needs=(root,)), stage("right", run, needs=(root,))
    top = stage("top", run, needs=(left, right))
    folder = lab.run(top)
    assert calls == ["root", "left", "right", "top"]
    assert folder == lab.store.done("top", key(top))
    assert lab.run(top) == folder
    assert lab.run(stage("fifth", run, needs=(left,)))
    assert calls == ["root", "left", "right", "top", "fifth"]
    lab.run(top, seed=1)
    assert calls[5:] == ["root", "left", "right", "top"]


def test_a_finished_stage_does_not_want_its_needs_back(lab: Lab) -> None:
    root = stage("root")
    top = stage("top", needs=(root,))
    folder = lab.run(top)
    lab.store.discard("root", key(root))
    assert lab.run(top) == folder
    assert lab.store.done("root", key(root)) is None


def test_a_damaged_stage_is_made_again(lab: Lab) -> None:
    (lab.run(stage()) / "made").write_text("")
    assert (lab.run(stage()) / "made").read_text() == "x"


def test_a_manifest_says_where_the_output_came_from(lab: Lab) -> None:
    need = stage("need")
    made = stage(params={"alpha": 0.5}, needs=(need,), version=3)
    manifest = json.loads((lab.run(made, seed=5) / "manifest.json").read_text())
    assert manifest["key"] == key(made, seed=5)
    assert (manifest["name"], manifest["version"], manifest["seed"]) == ("one", 3, 5)
    assert (manifest["params"], manifest["needs"]) == ({"alpha": 0.5}, {"need": key(need, seed=5)})
    assert set(manifest["versions"]) >= {"torch", "transformers", "trl", "peft"}
    assert manifest["versions"]["torch"]
    assert manifest["seconds"] >= 0
    assert set(manifest["files"]) == {"made"}


def test_progress_and_log_reach_the_report(lab: Lab) -> None:
    def run(context: StageContext) -> None:
        with context.progress("training", 3) as step:
            step.update(1)
            step.update(2, 4)
        context.log("loss 1.5")

    lab.run(stage(run=run))
    assert lab.report.updates == [("training", 3, 1, None), ("training", 3, 2, 4)]
    assert "loss 1.5" in lab.report.lines


def test_needs_of_one_name_are_refused(lab: Lab) -> None:
    twice = stage("top", needs=(stage("a"), stage("a", version=2)))
    with pytest.raises(RunError, match="stage top: two of its needs have the same name"):
        lab.run(twice)


# ---------------------------------------------------------------- kills


def halting(context: StageContext) -> None:
    """Makes ten files, a step each, and fails at the fifth the first time."""
    for number in range(10):
        if not (context.out / str(number)).exists():
            if number == 5 and not (context.out / "failed").exists():
                (context.out / "failed").touch()
                raise RuntimeError("out of luck")
            (context.out / str(number)).write_text(str(context.seed))


def test_a_stage_that_fails_half_way_goes_on_in_its_folder(lab: Lab) -> None:
    need = stage("need")
    with pytest.raises(RuntimeError, match="out of luck"):
        lab.run(stage(run=halting, needs=(need,)))
    made = stage(run=halting, needs=(need,))
    assert lab.store.done("one", key(made)) is None
    before = {p.name: p.stat().st_mtime_ns for p in lab.store.work_dir("one", key(made)).iterdir()}
    assert set(before) == {"0", "1", "2", "3", "4", "failed"}
    folder = lab.run(made)
    assert {p.name for p in folder.iterdir()} == {*map(str, range(10)), "failed", "manifest.json"}
    assert all((folder / name).stat().st_mtime_ns == time for name, time in before.items())
    assert any("(resumed)" in line for line in lab.report.lines)


def test_a_stage_that_is_killed_keeps_its_folder_and_frees_its_lock(lab: Lab, tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from stic_eval.selftrain.stage_runner import run_stage
from stic_eval.contracts.method import Data, Stage
from stic_eval.stage_store import StageStore

def run(context):
    (context.out / "half").write_text("done")
    os.kill(os.getpid(), signal.SIGKILL)

class Report:
    def log(self, line): pass
    line = log
    def step(self, name, total=None): pass

run_stage(Stage("one", 1, run, {{}}), data=Data((), (), "images", "sft", None), seed=0, fingerprint="base",
          model=None, answers=None, scorer=None, responses=None,
          store=StageStore(Path({str(tmp_path / "stages")!r})), report=Report())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    (left,) = (tmp_path / "stages").glob("one-*.work")
    assert (left / "half").read_text() == "done"
    # As the same file would name its stage, started again: code is a part of the key.
    os.replace(left, lab.store.work_dir("one", key(stage())))
    folder = lab.run(stage())
    assert (folder / "half").read_text() == "done"
    assert (folder / "made").read_text() == "x"


# ---------------------------------------------------------------- with a real model


def test_stages_ask_train_and_ask_the_trained_one(tiny_vlm: Path, photos: Path, tmp_path: Path) -> None:
    base = HFModel.load(str(tiny_vlm), device="cpu")
    images = scan_images(photos)[0][:4]
    data = Data(tuple(images), (), content_key([i.sha256 for i in images]), "", load_prompts())
    prompt = (Message("user", "Describe."),)

    def ask(context: StageContext, adapter: Path | None) -> None:
        requests = [Request(prompt, (image,), Generation(8)) for image in context.data.images]
        vlm = context.vlm(adapter)
        assert vlm.fingerprint == adapter_fingerprint(base.fingerprint, adapter)
        texts = {request.images[0].sha256: response.text for request, response in vlm.generate(requests)}
        (context.out / "texts.json").write_text(json.dumps(texts, sort_keys=True))

    def train(context: StageContext) -> None:
        import torch
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            context.model(None).model, LoraConfig(r=2, target_modules=r".*language_model.*q_proj")
        )
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.5)
        model.save_pretrained(context.out / "adapter", save_embedding_layers=False)
        model.unload()

    first = stage("first", lambda context: ask(context, None), reads=("images",))
    trained = stage("trained", train, needs=(first,))
    last = stage("last", lambda context: ask(context, context.needs["trained"] / "adapter"), needs=(trained,))
    lab = Lab(tmp_path, base.with_adapter)
    lab.fingerprint = base.fingerprint
    after = json.loads((lab.run(last, data) / "texts.json").read_text())
    before = json.loads((lab.run(first, data) / "texts.json").read_text())
    assert set(before) == set(after) == {image.sha256 for image in images}
    assert before != after
    tuned = base.with_adapter(lab.run(trained, data) / "adapter")
    requests = [Request(prompt, (image,), Generation(8)) for image in images]
    for view, texts in ((base, before), (tuned, after), (base, before)):
        assert {r.images[0].sha256: a.text for r, a in view.generate(requests)} == texts

    # What was answered is not asked again when a stage is: the model is not even loaded.
    lab.store.discard("first", key(first, data, base.fingerprint))
    lab.model = lab._unloaded
    assert json.loads((lab.run(first, data) / "texts.json").read_text()) == before
