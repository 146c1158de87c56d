"""Whatever trains must learn, and says what of its rows it could not learn from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from stic_eval.contracts.method import SFTItem
from stic_eval.errors import RunError, UserError
from stic_eval.image_sources import scan_images
from stic_eval.models.hf_model import HFModel
from stic_eval.store import request_key
from stic_eval.training import dpo, learning_check, sft
from stic_eval.training.dpo import train_preferences
from stic_eval.training.hyperparameters import PairSettings, PreferenceLoss, Training
from stic_eval.training.lora import LoraSettings
from stic_eval.training.preference_pairs import pair_requests, write_pairs
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.training.sft import train_sft
from stic_eval.types import ImageRef
from tests.families.checks import random_adapter

LORA = LoraSettings(r=2, alpha=4, dropout=0.0)
Kind = Literal["preference training", "fine-tuning"]
KINDS: tuple[Kind, ...] = ("preference training", "fine-tuning")
LONG, SHORT = "And what else? " * 20, "What?"


@pytest.fixture(scope="module")
def hf(tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm), device="cpu")


@pytest.fixture(scope="module")
def images(photos: Path) -> list[ImageRef]:
    return sorted(scan_images(photos)[0], key=lambda image: image.source)


Train = Callable[..., list[str]]


@pytest.fixture
def train(hf: HFModel, images: list[ImageRef], tmp_path: Path) -> Train:
    """Trains on a row for each prompt; returns what was logged."""

    def of(
        kind: Kind, prompts: list[str], *, equal: bool = False, alpha: float = 0.0, **how: Any
    ) -> list[str]:
        rate = Training(**{"learning_rate": 1e-3, "batch_size": 2, "warmup_ratio": 0.0} | how.pop("rate", {}))
        lines: list[str] = []
        common = {"training": rate, "lora": LORA, "seed": 0, "log": lines.append} | how
        out = tmp_path / "out"
        if kind == "fine-tuning":
            talks = [(("user", prompt), ("assistant", "A red box.")) for prompt in prompts]
            rows = zip(images, talks, strict=False)
            items = [SFTItem(f"row {n}", image, talk) for n, (image, talk) in enumerate(rows)]
            train_sft(hf, items, out, **common)
            return lines
        asked = list(pair_requests(images[: len(prompts)], load_prompts(), PairSettings(), 0))
        said = {request_key(pair.chosen): f"A red box, {n}." for n, pair in enumerate(asked)}
        said |= {request_key(pair.rejected): "A dog." for pair in asked}
        if equal:
            said = dict.fromkeys(said, "A red box.")
        named = [type(p)(p.image, text, p.chosen, p.rejected, p.negative, p.seed)
                 for p, text in zip(asked, prompts, strict=True)]  # fmt: skip
        write_pairs(named, said, tmp_path / "pairs.parquet", PairSettings())
        loss = PreferenceLoss(alpha=alpha)
        train_preferences(hf, tmp_path / "pairs.parquet", out, loss=loss, **common)
        return lines

    return of


# ---------------------------------------------------------------- rows without an answer


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_an_answer_token_are_left_out_counted_and_listed(
    kind: Kind, train: Train, tmp_path: Path
) -> None:
    (line,) = train(kind, [SHORT, LONG, SHORT, LONG, SHORT], rate={"max_length": 60})
    assert line.startswith(
        f"{kind}: max_length 60 text tokens: 0 of 5 rows cut, by 0 tokens in all; 2 left out"
    )
    found = json.loads((tmp_path / "out" / "cuts.json").read_text())
    assert [name.split()[0 if kind == "preference training" else 1] for name in found["left_out"]] == [
        "1",
        "3",
    ]
    assert all("1.jpg" in name or "3.jpg" in name for name in found["left_out"])
    assert {name: found[name] for name in ("max_length", "rows", "cut_rows", "cut_tokens")} == {
        "max_length": 60, "rows": 5, "cut_rows": 0, "cut_tokens": 0,
    }  # fmt: skip
    steps = [json.loads(row) for row in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert len(steps) == 2  # three rows, two a step
    assert all(row["grad_norm"] > 0 for row in steps)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cut_is_counted(kind: Kind, train: Train, tmp_path: Path) -> None:
    # "USER: \nWhat? ASSISTANT:" and the start token; the placeholder of the image does not count.
    prompt = len("USER: \nWhat? ASSISTANT:") + 1
    tail = {"fine-tuning": [" A red box.\x00"], "preference training": [" A red box, 0.\x00", " A dog.\x00"]}[
        kind
    ]
    limit = prompt + 8
    (line,) = train(kind, [SHORT] * 4, rate={"max_length": limit})
    lost = 4 * sum(max(0, len(text) - 8) for text in tail)
    assert f"4 of 4 rows cut, by {lost} tokens in all; 0 left out" in line
    assert json.loads((tmp_path / "out" / "cuts.json").read_text())["cut_tokens"] == lost


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_is_cut_there_is_no_list(kind: Kind, train: Train, tmp_path: Path) -> None:
    (line,) = train(kind, [SHORT] * 4, rate={"max_length": 448})
    assert "0 of 4 rows cut" in line
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"adapter", "log.jsonl"}
    assert train(kind, [SHORT] * 4) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_without_any_answer_is_an_error(kind: Kind, train: Train, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        train(kind, [LONG] * 3, rate={"max_length": 60})
    said = str(caught.value)
    assert all(part in said for part in (kind, "all 3 rows", "max_length 60", "larger max_length")), said
    assert "\n" not in said
    assert not (tmp_path / "out" / "adapter").exists()


# ---------------------------------------------------------------- steps that teach nothing


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_or_gradient_of_zero_is_an_error(
    kind: Kind, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are where a collator marks no token of any answer."""
    module, name = (sft, "sft_collator") if kind == "fine-tuning" else (dpo, "preference_collator")
    made = getattr(module, name)

    def without_answers(*args: Any) -> Any:
        collate = made(*args)

        def collated(rows: Any) -> Any:
            batch = collate(rows)
            marks, none = ("labels", -100) if kind == "fine-tuning" else ("completion_mask", 0)
            return {**batch, marks: torch.full_like(batch[marks], none)}

        return collated

    monkeypatch.setattr(module, name, without_answers)
    what = "loss" if kind == "fine-tuning" else "gradient"  # of no preference the loss is log 2
    with pytest.raises(
        RunError, match=f"training learns nothing: the {what} is exactly 0 in the first 3 steps"
    ):
        train(kind, [SHORT] * 8)
    assert not (tmp_path / "out" / "adapter").exists()
    with pytest.raises(RunError, match="in the first step"):
        train(kind, [SHORT] * 2)


def test_pairs_of_equal_answers_alone_are_an_error(train: Train, tmp_path: Path) -> None:
    """Their gradient is rounding, which Adam would make whole steps of."""
    with pytest.raises(UserError, match="nothing to learn: the two answers of all 8 pairs are the same"):
        train("preference training", [SHORT] * 8, equal=True)
    assert not (tmp_path / "out" / "adapter").exists()


def test_equal_answers_teach_where_the_loss_has_a_term_on_them(train: Train, tmp_path: Path) -> None:
    train("preference training", [SHORT] * 8, equal=True, alpha=0.01)
    assert (tmp_path / "out" / "adapter").is_dir()


def test_one_step_in_which_something_is_learned_is_enough() -> None:
    nothing, something = {"loss": 0.0, "grad_norm": 0.0}, {"loss": 0.1, "grad_norm": 0.1}
    learning_check.check_first_steps([nothing, nothing], 5)  # a third is to come
    learning_check.check_first_steps([nothing, nothing, something], 5)
    learning_check.check_first_steps([something, nothing, nothing, nothing, nothing], 5)
    learning_check.check_first_steps([nothing, {"eval": 1}, something], 2)
    with pytest.raises(RunError, match="in the first 2 steps"):
        learning_check.check_first_steps([nothing, nothing], 2)


# ---------------------------------------------------------------- adapters that stay as they were


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_step_is_no_warm_up(kind: Kind, train: Train, tmp_path: Path) -> None:
    """It would be at a rate of 0, and the adapter stay as it was made."""
    train(kind, [SHORT] * 2, rate={"warmup_ratio": 0.03})
    (step,) = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    assert json.loads(step)["learning_rate"] == 1e-3
    weights = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert any(bool(value.any()) for name, value in weights.items() if "lora_B" in name)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_that_ends_as_it_began_is_an_error(
    kind: Kind, train: Train, tiny_vlm: Path, tmp_path: Path
) -> None:
    start = random_adapter(tmp_path / "start", tiny_vlm, 0)
    with pytest.raises(RunError, match="all 4 steps left the adapter unchanged; set a larger learning_rate"):
        train(kind, [SHORT] * 8, start=start, rate={"learning_rate": 1e-30})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_papers_smallest_rate_counts_as_learning(
    kind: Kind, dtype: str, train: Train, hf: HFModel, tiny_vlm: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if dtype == "bfloat16":
        for name, value in vars(HFModel.load(str(tiny_vlm), device="cpu", dtype=dtype)).items():
            monkeypatch.setattr(hf, name, value)
    train(kind, [SHORT] * 6, rate={"learning_rate": 1e-7, "warmup_ratio": 0.03})
    first = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert any(bool(value.any()) for name, value in first.items() if "lora_B" in name)
    (tmp_path / "out").rename(tmp_path / "first")
    rate = {"learning_rate": 1e-7, "warmup_ratio": 0.03}
    train(kind, [SHORT] * 6, start=tmp_path / "first" / "adapter", rate=rate)
    second = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert any(not torch.equal(second[name], value) for name, value in first.items())


def test_an_adapter_in_16_bits_is_compared_as_it_was_loaded(tiny_vlm: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from transformers import AutoModelForImageTextToText

    start = random_adapter(tmp_path / "start", tiny_vlm, 0)
    path = start / "adapter_model.safetensors"
    save_file({name: value.bfloat16() for name, value in load_file(path).items()}, path)
    base = AutoModelForImageTextToText.from_pretrained(tiny_vlm, use_safetensors=True)
    peft = PeftModel.from_pretrained(base, str(start), is_trainable=True)
    with pytest.raises(RunError, match="learns nothing"):
        learning_check.check_changed(peft, start, [{}, {}], "fine-tuning")
    name = next(name for name, _ in peft.named_parameters() if "lora_A" in name)
    with torch.no_grad():
        peft.get_parameter(name).view(-1)[0] += 1e-6
    learning_check.check_changed(peft, start, [{}, {}], "fine-tuning")
