"""Parts of a stage: what all workers ask ahead, the stage itself finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stic_eval.contracts.method import Data, Stage, StageContext
from stic_eval.experiment import work
from stic_eval.experiment.graph import Task
from stic_eval.images import scan_images
from stic_eval.settings import RunConfig
from stic_eval.stage_store import StageStore
from stic_eval.store import ResponseStore, content_key
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import Generation, Message, Request
from tests.support.fake import FakeVLM
from tests.support.scripted import Quiet


def described(context: StageContext) -> None:
    """Asks about each image what the stage before has left to ask."""
    prompt = (context.needs["first"] / "prompt").read_text()
    asked = [Request((Message("user", prompt),), (i,), Generation(4)) for i in context.data.images[:6]]
    texts = [answer.text for _, answer in context.vlm(None).generate(asked)]
    (context.out / "texts").write_text("\n".join(texts))


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_asked_in_parts_is_not_asked_again(
    fails: bool, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tuple(scan_images(photos)[0])
    data = Data(images, (), content_key([image.sha256 for image in images]), "", load_prompts())
    first = Stage("first", 1, lambda context: None, {})
    stage = Stage(
        "texts", 1, described, {"images": 6}, needs=(first,), reads=("images",), generations=6, kind="pairs"
    )
    vlm = FakeVLM(lambda request: request.images[0].sha256[:4])
    stages, report, key = StageStore(tmp_path / "stages"), Quiet(), "a" * 64
    resources: Any = SimpleNamespace(
        fingerprint="base", stages=stages, report=report, stop=(),
        responses=ResponseStore(tmp_path / "responses.sqlite"),
        engine=SimpleNamespace(answers=lambda adapter: vlm, likelihoods=None, trainable=None),
    )  # fmt: skip
    config = RunConfig(model="tiny", methods=("stic",), benchmarks=("textvqa",))
    task = Task(f"texts {key[:16]}", (), "", config, {}, "stic", 0, key)
    monkeypatch.setattr(work, "_planned", lambda task, resources: (stage, data, {id(first): key}))
    if not fails:  # else the stage before is not there
        (stages.work_dir("first", key) / "prompt").write_text("what is it?")
        stages.finish("first", key)
    for number in range(2):
        part = replace(task, id=f"{task.id} part {number}", part=(number, 2))
        assert list(work.perform(part, resources)) == []
    asked = [request.images[0] for request in vlm.asked]
    if fails:
        assert asked == [] and sum("asks nothing more ahead" in line for line in report.lines) == 2
        return
    assert asked == [*images[:6:2], *images[1:6:2]]
    assert [path.name for path in stages.root.iterdir()] == [f"first-{key[:16]}"]
    monkeypatch.setattr(work, "_planned", lambda task, resources: (whole, data, {}))
    prompt = stages.folder("first", key)
    whole = replace(stage, needs=(), run=lambda c: described(replace(c, needs={"first": prompt})))
    assert list(work.perform(task, resources)) == []
    assert len(vlm.asked) == 6
    (folder,) = stages.root.glob("texts-*")
    assert (folder / "texts").read_text().split() == [image.sha256[:4] for image in images[:6]]
