"""What rows of a training step share: nothing that is learnt may depend on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stic_eval.contracts.method import SFTItem
from stic_eval.errors import UserError
from stic_eval.image_sources import scan_images
from stic_eval.models.hf_model import HFModel
from stic_eval.store import request_key
from stic_eval.training import row_sharing, training_loop
from stic_eval.training.dpo import make_trainer, preference_collator, train_preferences
from stic_eval.training.hyperparameters import PairSettings, PreferenceLoss, Training
from stic_eval.training.lora import LoraSettings
from stic_eval.training.preference_pairs import open_pairs, pair_requests, write_pairs
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.training.sft import train_sft
from tests.support.zoo import FAMILIES

LORA = LoraSettings(r=4, alpha=8)
TRAINING = Training(learning_rate=1e-3, batch_size=4)
BOTH, ROW, PIXELS = (row_sharing.Sharing(*how) for how in ((True, True), (False, True), (True, False)))


@pytest.fixture(scope="module")
def pairs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    asked = list(pair_requests(scan_images(photos)[0], load_prompts(), PairSettings(), 0))
    good = ["a red box", "two blue dots", "a circle", "", "round and square", "a, b", "green", "a wall"]
    answers = {request_key(pair.chosen): good[i] for i, pair in enumerate(asked)}
    answers |= {request_key(pair.rejected): f"{good[-i]} and more {i}" for i, pair in enumerate(asked)}
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    write_pairs(asked, answers, path, PairSettings())
    return path


@pytest.fixture(scope="module")
def items(photos: Path) -> list[SFTItem]:
    turns = (("user", "How many?"), ("assistant", "Two."))
    return [SFTItem(str(n), image, turns) for n, image in enumerate(scan_images(photos)[0])]


@pytest.fixture(scope="module")
def hf(tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm), device="cpu")


@contextmanager
def trainer_of(
    hf: HFModel, pairs: Path, folder: Path, **options: Any
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A trainer whose adapter changes what the model says, and a batch of four pairs."""
    rows = open_pairs(pairs, folder / "rows")
    how: dict[str, Any] = {"loss": PreferenceLoss(alpha=0.01), "training": TRAINING, "lora": LORA, "seed": 0}
    with training_loop.lent_model(hf) as model:
        trainer: Any = make_trainer(hf, model, rows, folder / "out", **how | options)
        torch.manual_seed(5)
        for name, parameter in trainer.model.named_parameters():
            if ".lora_B.default" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        trainer.model.train()
        yield trainer, preference_collator(hf.processor)([rows[i] for i in range(4)])


def measured(trainer: Any, batch: dict[str, Any], share: bool) -> tuple[float, dict[str, torch.Tensor]]:
    trainer.share = share
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    named = trainer.model.named_parameters()
    return loss.item(), {name: p.grad.clone() for name, p in named if p.grad is not None}


def check_same(trainer: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    loss, gradients = measured(trainer, batch, False)
    found, shared = measured(trainer, batch, True)
    assert found == pytest.approx(loss, rel=1e-5)
    assert set(shared) == set(gradients)
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    assert largest > 1e-3
    assert all(torch.allclose(shared[n], gradients[n], rtol=1e-4, atol=1e-5 * largest) for n in shared)
    return gradients


@pytest.mark.parametrize(
    ("family", "fits"),
    [
        ("llava", BOTH),
        ("llava_next", BOTH),
        ("qwen2_vl", BOTH),  # positions in three axes
        ("qwen3_vl", BOTH),  # features for several layers
        ("gemma3", PIXELS),  # image tokens see each other both ways
        ("ovis2", ROW),  # wants more of its encoder than features
        ("qwen3_5", PIXELS),  # states run along the row
        ("mllama", None),  # attends to another encoder's states
    ],
)
def test_loss_and_gradients_are_those_of_separate_rows(
    family: str, fits: row_sharing.Sharing | None, pairs: Path, tmp_path: Path
) -> None:
    model = HFModel.load(str(FAMILIES[family].build(tmp_path / family)), device="cpu")
    with trainer_of(model, pairs, tmp_path) as (trainer, batch):
        check_same(trainer, batch)
        assert [way for way, fit in trainer.ways.items() if fit] == ([] if fits is None else [fits])


def test_eager_attention_keeps_the_answers_apart_too(hf: HFModel, pairs: Path, tmp_path: Path) -> None:
    with trainer_of(hf, pairs, tmp_path) as (trainer, batch):
        base = trainer.model.get_base_model()
        before = base.config._attn_implementation
        base.set_attn_implementation("eager")
        try:
            check_same(trainer, batch)
            assert trainer.ways[BOTH]
        finally:
            base.set_attn_implementation(before)


def test_a_step_looks_at_each_image_once(
    hf: HFModel, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trainer_of(hf, pairs, tmp_path) as (trainer, batch):
        tower = trainer.model.get_base_model().model.vision_tower
        seen: list[int] = []
        hook = tower.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(len(kwargs.get("pixel_values", args[:1] and args[0]))),
            with_kwargs=True,
        )
        trainer.compute_loss(trainer.model, dict(batch))  # finds out what fits
        seen.clear()
        trainer.compute_loss(trainer.model, dict(batch))
        assert seen == [4]
        trainer.share = False
        seen.clear()
        trainer.compute_loss(trainer.model, dict(batch))
        assert seen == [8, 8]
        hook.remove()


def test_a_tower_that_an_adapter_touches_is_trained_with_the_rest(
    hf: HFModel, tiny_vlm: Path, pairs: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    base = AutoModelForImageTextToText.from_pretrained(tiny_vlm)
    wide = get_peft_model(base, LoraConfig(r=2, target_modules=r".*(q_proj|linear_1)"))
    wide.save_pretrained(tmp_path / "wide", save_embedding_layers=False)
    with trainer_of(hf, pairs, tmp_path, start=tmp_path / "wide") as (trainer, batch):
        gradients = check_same(trainer, batch)
        assert any("vision_tower" in name and value.abs().max() > 0 for name, value in gradients.items())
        assert any("projector" in name and value.abs().max() > 0 for name, value in gradients.items())
        assert [way for way, fit in trainer.ways.items() if fit] == [ROW]


def test_a_way_that_changes_what_a_model_says_is_not_gone(
    hf: HFModel, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = row_sharing.layout

    def leaking(*args: Any) -> Any:
        how = right(*args)
        assert how is not None
        return row_sharing.TokenLayout(how.source, torch.ones_like(how.mask).tril(), how.places)

    monkeypatch.setattr(row_sharing, "layout", leaking)
    with trainer_of(hf, pairs, tmp_path) as (trainer, batch):
        check_same(trainer, batch)
        assert trainer.ways == {BOTH: False, ROW: False, PIXELS: True}


# ---------------------------------------------------------------- layouts

TOKENS = st.integers(1, 9)
PAIR = st.tuples(
    st.lists(TOKENS, min_size=1, max_size=12),
    st.lists(TOKENS, min_size=1, max_size=6),
    st.lists(TOKENS, min_size=1, max_size=6),
)


def padded(rows: list[list[int]]) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


@settings(deadline=None, max_examples=200)
@given(st.lists(PAIR, min_size=1, max_size=4))
def test_a_token_is_predicted_from_the_tokens_before_it_in_its_own_row(
    drawn: list[tuple[list[int], list[int], list[int]]],
) -> None:
    rows = [prompt + good for prompt, good, _ in drawn] + [prompt + bad for prompt, _, bad in drawn]
    prompts = [prompt for prompt, _, _ in drawn] * 2
    ids = padded(rows)
    attention = padded([[1] * len(row) for row in rows])
    answers = padded([[0] * len(p) + [1] * (len(r) - len(p)) for p, r in zip(prompts, rows, strict=True)])
    how = row_sharing.layout(ids, attention, answers)
    if how is None:
        longest = max(len(p) + len(a) + len(b) for p, a, b in drawn)
        assert longest > 0.9 * 2 * ids.shape[1]
        return
    width = how.source.shape[1]
    joined = ids.flatten()[how.source]
    own = torch.arange(ids.shape[1]).expand(ids.shape).flatten()[how.source]
    wanted = [(row, at) for row, mask in enumerate(answers) for at in mask.nonzero().flatten().tolist()]
    for (row, at), place in zip(wanted, how.places.tolist(), strict=True):
        pair, column = divmod(place, width)
        seen = how.mask[pair, 0, column]
        assert joined[pair][seen].tolist() == rows[row][:at]
        assert own[pair][seen].tolist() == list(range(at))
        # And so do all the tokens that it sees: what is told further on is of the same row.
        for inner in seen.nonzero().flatten().tolist():
            assert not (how.mask[pair, 0, inner] & ~seen).any()


def test_rows_that_begin_otherwise_or_have_no_answer_stay_apart() -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 9]])
    ones, answers = torch.ones_like(ids), torch.tensor([[0] * 7 + [1]] * 2)
    assert row_sharing.layout(ids, ones, answers) is not None
    other = ids.clone()
    other[1, 3] = 9
    assert row_sharing.layout(other, ones, answers) is None
    assert row_sharing.layout(ids, ones, answers * torch.tensor([[1], [0]])) is None
    assert row_sharing.layout(ids, ones, ones) is None  # no prompt


# ---------------------------------------------------------------- the head


def test_the_head_scores_answers_as_trls_does_and_nothing_else(hf: HFModel, items: list[SFTItem]) -> None:
    from trl.trainer.utils import add_fused_lm_head

    from stic_eval.training.sft import sft_collator

    batch = sft_collator(hf.processor, items, None)([{"row": n} for n in range(3)])
    fields = ("log_probs", "entropy", "mean_logits", "is_top1")
    with training_loop.lent_model(hf) as model, torch.no_grad():
        add_fused_lm_head(model, outputs=fields)
        theirs = model(**batch, fused_lm_head=True)
        row_sharing.answers_only(model)
        ours = model(**batch, fused_lm_head=True)
        nothing = model(**{**batch, "labels": torch.full_like(batch["labels"], -100)}, fused_lm_head=True)
        plain = model(**batch).logits
    for name in fields:
        assert torch.allclose(ours[name].float(), theirs[name].float(), atol=1e-5), name
    assert ours.log_probs.abs().max() > 0.1
    assert torch.equal(ours.label_mask, theirs.label_mask)
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=1e-5)
    assert nothing.log_probs.abs().max() == 0
    assert plain.shape[:2] == batch["input_ids"].shape


# ---------------------------------------------------------------- checkpointing, memory, batches ahead


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def trained(stage: str, hf: HFModel, pairs: Path, items: list[SFTItem], out: Path, **more: Any) -> None:
    how: dict[str, Any] = {"training": TRAINING, "lora": LORA, "seed": 0, **more}
    if stage == "preference training":
        train_preferences(hf, pairs, out, loss=PreferenceLoss(), **how)
    else:
        train_sft(hf, items, out, **how)


@pytest.mark.parametrize("stage", ["preference training", "fine-tuning"])
def test_checkpointed_gradients_are_the_same(
    stage: str,
    hf: HFModel,
    pairs: Path,
    items: list[SFTItem],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from safetensors.torch import load_file

    tower = hf.with_adapter(None).model.model.vision_tower
    graphs: list[bool] = []
    hook = tower.register_forward_hook(
        lambda module, inputs, output: graphs.append(bool(output.last_hidden_state.requires_grad))
    )
    trained(stage, hf, pairs, items, tmp_path / "off")
    graphs.clear()
    monkeypatch.setattr(hf, "gradient_checkpointing", True, raising=False)
    trained(stage, hf, pairs, items, tmp_path / "on")
    hook.remove()
    assert losses(tmp_path / "on") == pytest.approx(losses(tmp_path / "off"), rel=1e-5)
    off, on = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("off", "on"))
    assert any(value.abs().max() > 0 for name, value in off.items() if "lora_B" in name)
    assert all(torch.allclose(on[name], value, rtol=0, atol=1e-5) for name, value in off.items())
    assert graphs
    assert not any(graphs)  # no gradient runs through a tower that is not trained
    assert not hf.with_adapter(None).model.is_gradient_checkpointing


@pytest.mark.parametrize("stage", ["preference training", "fine-tuning"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_too_little_memory_says_what_takes_less(
    error: Exception,
    stage: str,
    hf: HFModel,
    pairs: Path,
    items: list[SFTItem],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(done: int, total: int) -> None:
        raise error

    with pytest.raises(UserError) as caught:
        trained(stage, hf, pairs, items, tmp_path, progress=fail)
    said = str(caught.value)
    assert said.startswith(f"{stage}: does not fit in the memory of cpu; try --gradient-checkpointing, ")
    assert "lora.r" in said
    assert "\n" not in said
    assert "max_length" in said
    monkeypatch.setattr(hf, "gradient_checkpointing", True, raising=False)
    with pytest.raises(UserError) as caught:
        trained(stage, hf, pairs, items, tmp_path, progress=fail)
    assert "--gradient-checkpointing" not in str(caught.value)


def test_another_error_stays_what_it_is(
    hf: HFModel, pairs: Path, items: list[SFTItem], tmp_path: Path
) -> None:
    def fail(done: int, total: int) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        trained("fine-tuning", hf, pairs, items, tmp_path, progress=fail)


@settings(deadline=None)
@given(st.lists(st.integers()), st.integers(1, 4))
def test_batches_made_ahead_come_in_their_order(drawn: list[int], most: int) -> None:
    with ThreadPoolExecutor(max_workers=1) as pool:
        assert list(training_loop.ahead(iter(drawn), pool, most)) == drawn


def test_no_more_batches_are_made_than_asked_and_an_error_comes_at_its_place() -> None:
    made: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number
        raise UserError("image 5: is damaged")

    with ThreadPoolExecutor(max_workers=1) as pool:
        source = training_loop.ahead(batches(), pool, 2)
        assert next(source) == 0
        pool.submit(lambda: None).result()  # what was asked for is made
        assert made == [0, 1, 2]
        assert [next(source) for _ in range(4)] == [1, 2, 3, 4]
        with pytest.raises(UserError, match="image 5"):
            next(source)


def test_an_image_that_cannot_be_read_is_the_trainings_error(
    hf: HFModel, items: list[SFTItem], tmp_path: Path
) -> None:
    from stic_eval.types import ImageRef

    def damaged() -> Any:
        raise UserError("image x: is damaged")

    bad = SFTItem("x", ImageRef("f" * 64, "x", damaged), items[0].turns)
    with pytest.raises(UserError, match="image x"):
        train_sft(hf, [*items, bad], tmp_path, training=TRAINING, lora=LORA, seed=0)
