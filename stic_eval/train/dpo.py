"""Stage 1: preference training with TRL's DPO trainer and the paper's regulariser."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from stic_eval.train import loop
from stic_eval.train.encode import encode
from stic_eval.train.lora import LoraSettings, lora_config
from stic_eval.train.losses import regularizer
from stic_eval.train.preferences import open_pairs
from stic_eval.train.settings import Training

if TYPE_CHECKING:
    from torch import Tensor

    from stic_eval.models.hf import HFModel


class RegularizedDPOTrainer(loop.Durable, DPOTrainer):
    """TRL's trainer plus `-alpha * log p(y_w)`, summed over tokens, averaged over the batch.

    Args:
        alpha: Weight of the regulariser; 0 is DPO.
        **kwargs: As `DPOTrainer`.
    """

    def __init__(self, *, alpha: float, **kwargs: Any) -> None:
        self.alpha = alpha
        super().__init__(**kwargs)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a micro-batch: a scalar, float32, in nats."""
        passes: list[Any] = []

        def policy(**kwargs: Any) -> Any:
            passes.append(model(**kwargs))
            return passes[-1]

        # TRL calls the given model for the policy alone (the reference goes by `self.model`), so its
        # log-probabilities are had without a second forward pass. Zero outside of answers.
        trl: Any = super()
        loss = trl.compute_loss(policy, inputs)
        chosen_logps, _ = passes[0].log_probs.float().sum(dim=1).chunk(2)
        loss = loss + regularizer(chosen_logps, alpha=self.alpha).mean()
        return (loss, passes[0]) if return_outputs else loss


def preference_collator(processor: Any) -> Any:
    """A collator of `pairs.parquet` rows: chosen rows first, then rejected ones, as TRL has them."""

    def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        images = [row["images"][0].convert("RGB") for row in rows]
        turns = [
            [(turn["role"], turn["content"]) for turn in [*row["prompt"], *row[side]]]
            for side in ("chosen", "rejected")
            for row in rows
        ]
        batch = encode(processor, images, turns)
        batch["completion_mask"] = batch.pop("answer_mask")
        return batch

    return collate


def make_trainer(
    hf: HFModel,
    model: Any,
    dataset: Any,
    out: Path,
    *,
    beta: float,
    alpha: float,
    training: Training,
    lora: LoraSettings,
    seed: int,
    start: Path | None = None,
) -> RegularizedDPOTrainer:
    """The trainer of `train_preferences`, ready to run on a lent model."""
    settings = loop.arguments(hf, out, training, seed, model.num_parameters())
    settings |= {"beta": beta, "loss_type": ["sigmoid"], "disable_dropout": True}
    return RegularizedDPOTrainer(
        alpha=alpha,
        model=loop.adapted(model, start),
        args=loop.single_gpu(DPOConfig(**settings)),
        train_dataset=dataset,
        processing_class=hf.processor,
        data_collator=preference_collator(hf.processor),
        # With a configuration the reference is the base; with an adapter to go on from, that adapter.
        peft_config=lora_config(model, lora) if start is None else None,
    )


def train_preferences(
    hf: HFModel,
    pairs: Path,
    out: Path,
    *,
    beta: float,
    alpha: float,
    training: Training,
    lora: LoraSettings,
    seed: int,
    start: Path | None = None,
    progress: loop.Progress | None = None,
) -> None:
    """Trains an adapter to prefer; writes `adapter/` and `log.jsonl` into `out`, resuming what is there.

    Args:
        hf: The model; it is left as it was.
        pairs: `pairs.parquet` of `stic_eval.train.preferences`.
        out: Folder to write into and to resume from.
        beta: How strongly the model is held to the reference.
        alpha: Weight of the regulariser.
        training: Steps, rates and batches.
        lora: Size of a new adapter.
        seed: Of the order of rows and a new adapter's weights.
        start: Adapter to go on from, which is then the reference too; None: a new one on the base.
        progress: Told (steps done, steps in all).

    Raises:
        UserError: There are no pairs.
        RunError: Training diverged.
    """
    if loop.trained(out):
        return
    with loop.lent_model(hf) as model:
        dataset = open_pairs(pairs, out / "rows").select_columns(["prompt", "chosen", "rejected", "images"])
        trainer = make_trainer(
            hf, model, dataset, out,
            beta=beta, alpha=alpha, training=training, lora=lora, seed=seed, start=start,
        )  # fmt: skip
        loop.run(trainer, out, progress, loop.public_name(model))
        shutil.rmtree(out / "rows", ignore_errors=True)
