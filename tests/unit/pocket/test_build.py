"""Building the pocket model: trainings that go on where they were stopped and end by their gate."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from stic_eval.pocket import batches, build, recall, recipe
from stic_eval.pocket import fit as training
from stic_eval.pocket.build import PHASES
from stic_eval.pocket.fit import Phase
from stic_eval.pocket.rows import wordings

PHASE = Phase("small", 8, 4, 1e-2, 0.5, 1, muon=0.01)
Loss = Callable[[dict[str, Tensor]], tuple[Tensor, training.Figures]]


class Batches(Dataset[dict[str, Tensor]]):
    """Random batches; a step's depends on its number alone."""

    def __len__(self) -> int:
        return PHASE.steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return {"x": torch.randn(4, 3, generator=torch.Generator().manual_seed(step))}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint at every step, figures at every second, no compilation, no probe."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(training, "LOGGED", 2)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))


def fit(model: nn.Module, phase: Phase, work: Path, until: int = 99, hit: float = 0.0) -> int:
    """Trains to reproduce the input, up to a step that fails; how many steps were taken."""
    taken = 0

    def loss_of(batch: dict[str, Tensor]) -> tuple[Tensor, training.Figures]:
        nonlocal taken
        if taken == until:
            raise KeyboardInterrupt
        taken += 1
        return (model(batch["x"]) - batch["x"]).square().mean(), {"hit": (hit, 1)}

    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    groups: list[dict[str, Any]] = [
        {"params": rest, "lr": phase.lr}, {"params": matrices, "lr": phase.muon, "muon": True}
    ]  # fmt: skip
    training.fit(phase, {"model": model}, groups, Batches(), loss_of, work)
    return taken


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "fastest_precision", nullcontext)


@pytest.mark.usefixtures("plain")
def test_a_training_that_was_stopped_comes_to_the_same_weights(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    straight = small()
    assert fit(straight, PHASE, whole) == PHASE.steps
    with pytest.raises(KeyboardInterrupt):
        fit(small(), PHASE, parts, until=3)
    resumed = small()
    assert fit(resumed, PHASE, parts) == PHASE.steps - 3
    assert torch.equal(weights(resumed), weights(straight))
    assert not torch.equal(weights(straight), weights(small()))
    logs = [(folder / "small.jsonl").read_text().splitlines() for folder in (whole, parts)]
    assert [json.loads(line)["step"] for line in logs[0]] == [2, 4, 6, 8]
    assert logs[0] == logs[1]


@pytest.mark.usefixtures("plain")
def test_what_is_finished_is_not_trained_again(tmp_path: Path) -> None:
    first, second = small(), small()
    fit(first, PHASE, tmp_path)
    assert fit(second, PHASE, tmp_path, until=0) == 0
    assert torch.equal(weights(first), weights(second))


@pytest.mark.usefixtures("plain")
def test_a_gate_ends_the_training_as_soon_as_it_is_passed(tmp_path: Path) -> None:
    gated = replace(PHASE, gate={"hit": 0.9})
    first, second = small(), small()
    assert fit(first, gated, tmp_path, hit=0.95) == 2
    assert fit(second, gated, tmp_path, until=0) == 0
    assert torch.equal(weights(first), weights(second))
    assert torch.load(tmp_path / "small.pt")["finished"]


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("gate", [{"hit": 0.9}, {"hit": 0.5, "another": 0.1}])
def test_a_gate_that_is_not_passed_ends_the_command(tmp_path: Path, gate: dict[str, float]) -> None:
    gated = replace(PHASE, gate=gate)
    with pytest.raises(SystemExit, match=r"small: the gate .* was not passed in 8 steps"):
        fit(small(), gated, tmp_path, hit=0.8)
    assert not torch.load(tmp_path / "small.pt")["finished"]
    with pytest.raises(SystemExit, match="was not passed"):
        fit(small(), gated, tmp_path, hit=0.8)


def test_the_rate_rises_stays_and_falls_to_nearly_zero() -> None:
    phase = Phase("any", 1000, 1, 1.0, 0.4, 1)
    rates = [training._rate(phase, step) for step in range(1000)]
    assert rates[0] == 0.01
    assert rates[99:600] == [1.0] * 501
    assert rates[600:] == sorted(rates[600:], reverse=True)
    assert 0 < rates[-1] < 0.01


@pytest.mark.parametrize(
    ("single", "half", "native"), [(1.0, 0.5, True), (1.0, 17.0, False), (1, 0.9, False)]
)
def test_the_faster_precision_is_taken_by_the_best_of_its_rounds(
    monkeypatch: pytest.MonkeyPatch, single: float, half: float, native: bool
) -> None:
    # How long each round takes: the first warms up, and others may wait for other work.
    rounds = [50, single, 40, *[single] * 5, 90, *[half] * 6, 80]
    clock = iter([moment for seconds in rounds for moment in (0.0, seconds)])
    monkeypatch.setattr(
        training, "time", SimpleNamespace(perf_counter=lambda: next(clock), monotonic=time.monotonic)
    )
    found = training.fastest_precision()
    assert isinstance(found, torch.autocast) is native
    if isinstance(found, torch.autocast):
        assert found.fast_dtype == torch.bfloat16


# ---------------------------------------------------------------- what the decoder is shown


def test_batches_depend_on_the_step_alone(pocket_words: PreTrainedTokenizerFast) -> None:
    phase = replace(PHASES["joint"], batch=4)
    one, other = (batches.Conversations(phase, pocket_words) for _ in range(2))
    first = {step: one[step] for step in (0, 1, 2, 9)}
    for step in (9, 2, 1, 0):
        again = other[step]
        assert again.keys() == first[step].keys()
        assert all(torch.equal(again[name], first[step][name]) for name in again)


def test_recall_counts_what_can_be_told(pocket_words: PreTrainedTokenizerFast) -> None:
    rows = batches.Rows(replace(PHASES["recall few"], batch=3), "few", pocket_words)
    kinds = set()
    for step in range(20):
        batch = rows[step]
        counted = batch["weights"] > 0
        assert torch.equal(counted, batch["skills"] >= 0)
        assert 0 < counted.float().mean() < 1
        (kind,) = {batches.SKILLS[i] for i in batch["skills"][counted].tolist()}
        kinds.add(kind)
    assert kinds <= set(recall.KINDS) and len(kinds) > 3


def test_the_loss_is_of_weighted_tokens_and_figures_are_by_skill(
    pocket_words: PreTrainedTokenizerFast,
) -> None:
    torch.manual_seed(0)
    model = recipe.build_model(pocket_words)
    batch = batches.Conversations(replace(PHASES["reading"], batch=6), pocket_words)[0]
    asked, figures = build.answer_loss(model, batch)
    keys, clues = figures.pop("key"), figures.pop("clue")
    assert 0 <= keys[0] <= keys[1] and 0 <= clues[0] <= clues[1] and keys[1] + clues[1] == len(batch["clues"])
    loss, _ = build.answer_loss(model, {k: v for k, v in batch.items() if k != "clues"})
    assert asked.item() > loss.item() + 0.1
    with torch.inference_mode():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    target, weights_ = batch["input_ids"][:, 1:], batch["weights"][:, 1:]
    losses = nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), target, reduction="none")
    assert loss.item() == pytest.approx(((losses * weights_).sum() / weights_.sum()).item(), rel=1e-4)
    named = batch["skills"][:, 1:]
    assert sum(n for _, n in figures.values()) == int((named >= 0).sum())
    assert all(0 <= right <= n for right, n in figures.values())
    assert wordings().keys() >= {name.removeprefix("read ") for name in figures if name.startswith("read ")}


# ---------------------------------------------------------------- the command


def test_every_training_runs_after_the_ones_before_it_and_leaves_a_model(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pocket_words: PreTrainedTokenizerFast,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two steps of each; the model that is written loads by name of its folder and answers."""
    from stic_eval.models.hf_model import HFModel
    from stic_eval.pocket.rows import picture
    from stic_eval.pocket.world import draw_spec
    from stic_eval.types import Generation, Message, Request

    tiny = {name: replace(phase, steps=2, batch=2, gate={}) for name, phase in PHASES.items()}
    monkeypatch.setattr(build, "PHASES", tiny)
    monkeypatch.setattr(recipe, "build_tokenizer", lambda: pocket_words)
    monkeypatch.setattr(torch, "compile", lambda function, **how: function)  # a minute
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)  # of this process, for other tests
    work, out = tmp_path / "work", tmp_path / "out"
    for name in tiny:
        monkeypatch.setattr(sys, "argv", ["build", "--work", str(work), "--phase", name])
        build.main()
        assert f"{name} 2/2" in capsys.readouterr().out
    build.export(work, out)
    logs = {path.stem for path in out.glob("*.jsonl")}
    assert logs == {name.replace(" ", "-") for name in tiny}
    spec = draw_spec("val", 1)
    asked = Request((Message("user", "Hello?"),), (picture(spec, "val", 1),), Generation(max_new_tokens=4))
    ((_, answer),) = HFModel.load(str(out)).generate([asked])
    assert 0 < answer.n_tokens <= 4
    assert sum(path.stat().st_size for path in out.iterdir()) < 16 * 2**20
