"""What a training step costs: TRL as it comes against this program, on the same rows.

Preference training and fine-tuning, of the embedded model and of a larger random LLaVA whose images take 576
tokens, on a CPU. Both sides get the same rows in the same order, the same batches, LoRA, optimiser and number
of steps. There are two rivals, each in its own precision, which this program takes too; and once both come as
they are, in different precisions:

- TRL with its defaults: its own collator, bfloat16 autocast, gradient checkpointing. This program is given
  `--dtype bfloat16`, and does not checkpoint small models. (TRL is told to log each step and to save nothing:
  losses are compared, and nothing but steps is timed.)
- TRL with this program's defaults on a CPU: float32 and no checkpointing. Then both compute the same: the
  first step's loss and log-probabilities have to agree.

A step lasts from the end of the one before. The first is left out: in it this program checks, once in a
training, that rows of pairs give what separate rows give.
"""

from __future__ import annotations

import gc
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.ratio import Ratio
from bench.rivals.works import larger_model, photograph

SEED = 0
HEADS, LAYERS = "num_attention_heads", "num_hidden_layers"
TOWER = {"hidden_size": 384, "intermediate_size": 1536, LAYERS: 4, HEADS: 6}
DECODER = {"hidden_size": 512, "intermediate_size": 1408, LAYERS: 6, HEADS: 8}
VOCABULARY = 32064  # LLaVA-1.5's
STEPS = 4  # optimiser steps of each training
# Title, pairs and rows in a batch, rounds.
MODELS = (("embedded", 8, 16, 2), ("576 tokens", 2, 4, 1))
# What TRL is set to, the precision that this program is given, and whether both compute the same.
RIVALS: dict[str, tuple[dict[str, Any], str, bool]] = {
    "TRL, its defaults": ({}, "bfloat16", False),
    "TRL, float32, no checkpointing": ({"bf16": False, "gradient_checkpointing": False}, "float32", True),
    "TRL, its defaults in bfloat16": ({}, "float32", False),
}
GOAL = 1.0  # never slower
# "Same" for a loss of float32 that is summed in another order.
CLOSE = 1e-4


@dataclass(frozen=True)
class Row:
    """An image, what is asked about it, and two answers."""

    image: Any
    question: str
    good: str
    bad: str


@dataclass(frozen=True)
class Trained:
    """Seconds of each step after the first, and what the first logged."""

    seconds: tuple[float, ...]
    first: Mapping[str, float]


def measure() -> list[Ratio]:
    """Trains with every side in turn, on both models; some minutes.

    Raises:
        RuntimeError: The sides do not compute the same.
    """
    ratios: list[Ratio] = []
    with quiet(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        larger = str(widened(larger_model(folder / "larger", TOWER, DECODER)))
        for title, pairs, items, rounds in MODELS:
            model = "pocket" if title == "embedded" else larger
            rows = made_rows(STEPS * max(pairs, items))
            models = {kind: loaded(model, kind) for kind in ("float32", "bfloat16")}
            for stage, batch in (("DPO", pairs), ("SFT", items)):
                place = folder / f"{title}-{stage}".replace(" ", "-")
                work = f"{stage} step, {batch} {'pairs' if stage == 'DPO' else 'rows'}, {title}"
                ratios += compared(work, models, stage, rows[: STEPS * batch], batch, place, rounds)
    return ratios


def compared(
    work: str,
    models: Mapping[str, Any],
    stage: str,
    rows: Sequence[Row],
    batch: int,
    folder: Path,
    rounds: int,
) -> Iterator[Ratio]:
    """Times the sides in turn, so often; TRL always starts from the weights in float32."""
    theirs = {"DPO": stock_dpo, "SFT": stock_sft}[stage]
    ours = {"DPO": our_dpo, "SFT": our_sft}[stage]
    for place, (rival, (settings, kind, same)) in enumerate(RIVALS.items()):
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds):
            out = folder / f"{place}-{number}"
            found = theirs(models["float32"], rows, batch, out / "trl", settings)
            own = ours(models[kind], rows, batch, out / "ours")
            times[0].extend(found.seconds)
            times[1].extend(own.seconds)
            if same:
                check(work, own.first, found.first)
        yield Ratio(f"{work}, {kind}", rival, GOAL, tuple(times[0]), tuple(times[1]))


def check(work: str, ours: Mapping[str, float], theirs: Mapping[str, float]) -> None:
    """Refuses a comparison of two things that are not the same."""
    for name in ("loss", "logps/chosen", "logps/rejected"):
        if name in theirs and not math.isclose(ours[name], theirs[name], rel_tol=CLOSE):
            raise RuntimeError(f"{work}: first {name} is {ours[name]} here, {theirs[name]} with TRL")


# ---------------------------------------------------------------- rows and model


def widened(model: Path) -> Path:
    """Gives the larger model a vocabulary of the usual size, whose head is a good part of a step."""
    from transformers import AutoModelForImageTextToText

    loaded = AutoModelForImageTextToText.from_pretrained(model, dtype="auto")
    loaded.resize_token_embeddings(VOCABULARY, mean_resizing=False)
    loaded.save_pretrained(model)
    return model


def made_rows(count: int) -> list[Row]:
    """Pictures with answers of a description's length, in words that the embedded tokenizer knows."""
    import random

    from stic_eval.pocket.rows import MODEL_DIR

    vocabulary = json.loads((MODEL_DIR / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = sorted(word for word in vocabulary if word.isalpha() and word.islower())
    draw = random.Random(SEED)

    def text(least: int, most: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(least, most)))

    return [Row(photograph(n), text(8, 16), text(40, 80), text(40, 80)) for n in range(count)]


def loaded(model: str, kind: str, device: str = "cpu") -> Any:
    """A model whose template writes the start token, which TRL's collator does not add and ours does."""
    from stic_eval.models.hf_model import HFModel

    hf = HFModel.load(model, device=device, dtype=kind)
    hf.processor.chat_template = "{{ bos_token }}" + hf.processor.chat_template
    return hf


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the libraries from remarking on random models."""
    import warnings

    from datasets import disable_progress_bars

    disable_progress_bars()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# ---------------------------------------------------------------- this program


def _steps(train: Callable[[Callable[[int, int], None]], None], out: Path) -> Trained:
    ends: list[float] = []

    def progress(done: int, total: int) -> None:
        if done:
            ends.append(time.perf_counter())

    gc.collect()
    train(progress)
    first = json.loads((out / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    return Trained(tuple(b - a for a, b in pairwise(ends)), first)


def _lora() -> Any:
    from stic_eval.training.lora import LoraSettings

    return LoraSettings(r=64, alpha=128, dropout=0.0)


def _training(batch: int) -> Any:
    from stic_eval.training.hyperparameters import Training

    return Training(learning_rate=1e-4, batch_size=batch)


def our_dpo(hf: Any, rows: Sequence[Row], batch: int, out: Path) -> Trained:
    """STIC's stage 1 with alpha 0, which is DPO."""
    from stic_eval.training.dpo import train_preferences
    from stic_eval.training.hyperparameters import PreferenceLoss

    out.mkdir(parents=True)
    preference_rows(rows).to_parquet(out / "pairs.parquet")

    def train(progress: Callable[[int, int], None]) -> None:
        train_preferences(
            hf, out / "pairs.parquet", out, loss=PreferenceLoss(alpha=0.0), training=_training(batch),
            lora=_lora(), seed=SEED, progress=progress,
        )  # fmt: skip

    return _steps(train, out)


def our_sft(hf: Any, rows: Sequence[Row], batch: int, out: Path) -> Trained:
    """STIC's stage 2."""
    from stic_eval.contracts.method import SFTItem
    from stic_eval.training.sft import train_sft
    from stic_eval.types import ImageRef

    items = [
        SFTItem(
            str(n),
            ImageRef(str(n), str(n), row.image.copy),
            (("user", row.question), ("assistant", row.good)),
        )
        for n, row in enumerate(rows)
    ]

    def train(progress: Callable[[int, int], None]) -> None:
        train_sft(hf, items, out, training=_training(batch), lora=_lora(), seed=SEED, progress=progress)

    return _steps(train, out)


# ---------------------------------------------------------------- TRL


def preference_rows(rows: Sequence[Row]) -> Any:
    """Rows as TRL's preference data and as this program's pairs."""
    return _dataset(rows, lambda row: {"chosen": _said(row.good), "rejected": _said(row.bad)})


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _dataset(rows: Sequence[Row], answers: Callable[[Row], dict[str, Any]]) -> Any:
    from datasets import Dataset, Features, Image, List, Value

    turns = List({"role": Value("string"), "content": Value("string")})
    named = answers(rows[0])
    data = [
        {"prompt": [{"role": "user", "content": row.question}], **answers(row), "images": [row.image]}
        for row in rows
    ]
    features = Features({"prompt": turns, **dict.fromkeys(named, turns), "images": List(Image())})
    return Dataset.from_list(data, features=features)


def _stock(
    hf: Any,
    trainer_class: Any,
    config_class: Any,
    data: Any,
    batch: int,
    out: Path,
    settings: Mapping[str, Any],
) -> Trained:
    from transformers import PrinterCallback, TrainerCallback

    from stic_eval.training import training_loop
    from stic_eval.training.lora import lora_config

    ends: list[float] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ends.append(time.perf_counter())

    training = _training(batch)
    gc.collect()
    with training_loop.lent_model(hf) as model:
        trainer = trainer_class(
            model=model,
            args=config_class(
                output_dir=str(out),
                per_device_train_batch_size=batch,
                num_train_epochs=training.epochs,
                learning_rate=training.learning_rate,
                lr_scheduler_type=training.scheduler,
                warmup_steps=training.warmup_ratio,
                optim="adamw_torch",
                seed=SEED,
                data_seed=SEED,
                use_cpu=True,
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                **settings,
            ),
            train_dataset=data,
            processing_class=hf.processor,
            peft_config=lora_config(model, _lora()),
            callbacks=[Watch()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        first = trainer.state.log_history[0]
    return Trained(tuple(b - a for a, b in pairwise(ends)), first)


def stock_dpo(hf: Any, rows: Sequence[Row], batch: int, out: Path, settings: Mapping[str, Any]) -> Trained:
    """TRL's DPO trainer."""
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    return _stock(hf, DPOTrainer, DPOConfig, preference_rows(rows), batch, out, settings)


def stock_sft(hf: Any, rows: Sequence[Row], batch: int, out: Path, settings: Mapping[str, Any]) -> Trained:
    """TRL's SFT trainer on prompts and completions, which learns from completions alone."""
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    data = _dataset(rows, lambda row: {"completion": _said(row.good)})
    return _stock(hf, SFTTrainer, SFTConfig, data, batch, out, settings)
