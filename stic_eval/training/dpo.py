"""Stage 1: preference training with TRL's DPO trainer, a loss of pairs and the paper's regulariser."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from stic_eval.contracts.loss import Logps
from stic_eval.contracts.method import TrainingImages
from stic_eval.errors import UserError
from stic_eval.models.conversation import encode
from stic_eval.training import length_limits, ranks, row_sharing, training_loop
from stic_eval.training.gang import Gang
from stic_eval.training.hyperparameters import PreferenceLoss, Training
from stic_eval.training.lora import LoraSettings, lora_config
from stic_eval.training.losses import regularizer, runner_up, weighted_sum
from stic_eval.training.preference_pairs import open_pairs
from stic_eval.training.trainer_arguments import on_one_device, trainer_arguments
from stic_eval.training.training_loop import PREFERENCES
from stic_eval.training.training_memory import row_size

if TYPE_CHECKING:
    from torch import Tensor

    from stic_eval.models.hf_model import HFModel


_LOG = logging.getLogger(__name__)
_CHUNK = 256  # positions whose logits are held at a time


class RegularizedDPOTrainer(training_loop.Durable, DPOTrainer):
    """TRL's trainer with a loss of pairs, plus `-alpha * log p(y_w)`, averaged over the batch.

    Args:
        loss: The loss and its constants; alpha = 0 and the defaults of the others are DPO. TRL's own loss
            has no weight.
        share: Whether images and prompts of a pair go through the model once (`row_sharing`).
        **kwargs: As `DPOTrainer`.
    """

    def __init__(self, *, loss: PreferenceLoss, share: bool = True, **kwargs: Any) -> None:
        self.constants, self.share = loss, share
        self.ways: dict[row_sharing.Sharing, bool] = {}  # tried with the model, and whether they fit
        super().__init__(**kwargs)
        if self.is_sharded:
            self.share = False
            if loss.rejected_logp == "runner_up":
                raise UserError("rejected_logp=runner_up: needs a model that is not sharded among processes")
        base = self.accelerator.unwrap_model(self.model).get_base_model()
        runner_ups = loss.rejected_logp == "runner_up"
        row_sharing.answers_only(base, partial(choose_runner_ups, base) if runner_ups else None)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a micro-batch: a scalar, float32, in nats."""
        weights = inputs.pop("row_weights", None)
        given = self._share_rows(inputs) if self.share else inputs
        # TRL calls the model for the policy, then for the reference. What it computes its own loss of, which
        # has no weight here, is had without further passes. Log-probabilities are zero outside of answers.
        passes: list[Any] = []
        peft = self.accelerator.unwrap_model(self.model)
        hook = peft.register_forward_hook(lambda _, args, output: passes.append(output))
        trl: Any = super()
        try:
            loss = trl.compute_loss(model, given)
        finally:
            hook.remove()
        policy, reference = (one.log_probs.float().sum(dim=1).chunk(2) for one in passes)
        of = Logps(*policy, *reference, *inputs["completion_mask"][:, 1:].sum(dim=1).chunk(2))
        tokens = of.chosen_tokens if self.constants.alpha_over == "token_mean" else None
        added = regularizer(of.chosen, alpha=self.constants.alpha, tokens=tokens)
        parts = [weighted_sum(of, self.constants), added]
        means = [part.mean() if weights is None else (part * weights).sum() for part in parts]
        loss = loss + means[0] + means[1]
        return (loss, passes[0]) if return_outputs else loss

    def weigh(self, batch: dict[str, Any], weights: Sequence[float]) -> dict[str, Any]:
        """The batch, with its pairs' weights where the mean over them is not what counts."""
        import torch

        if all(math.isclose(weight * len(weights), 1) for weight in weights):
            return batch
        return {**batch, "row_weights": torch.tensor(weights)}

    def _share_rows(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        peft = self.accelerator.unwrap_model(self.model)
        how = row_sharing.layout(inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"])
        return row_sharing.share(peft, inputs, row_sharing.PAIRS, self.ways, how)


def choose_runner_ups(model: Any, states: Tensor, labels: Tensor, dispreferred: Tensor) -> None:
    """Makes the log-probabilities of dispreferred answers those of the model's own tokens.

    At each position of such an answer (teacher forced: what stands before it are the answer's own
    tokens) the token that the model holds most likely takes the label's place, or the second most
    likely where the first is the label. Policy and reference each choose by their own logits, as in
    the released code: when weights differ, they may score different tokens. No gradient passes through
    the choice.

    Args:
        states: Shape (positions, width): what answers' tokens are predicted from.
        labels: Shape (positions,): these tokens; changed in place.
        dispreferred: Shape (positions,): whether they belong to a dispreferred answer.
    """
    import torch

    head = model.get_output_embeddings()
    with torch.no_grad():
        own = labels[dispreferred]
        places = dispreferred.to(states.device)
        parts = zip(torch.split(states[places], _CHUNK), torch.split(own, _CHUNK), strict=True)
        chosen = [runner_up(head(part.to(head.weight.device)).to(own.device), label) for part, label in parts]
        if len(own):
            labels[dispreferred] = torch.cat(chosen)


def preference_collator(processor: Any, max_length: int | None = None) -> Any:
    """A collator of `pairs.parquet` rows: chosen rows first, then rejected ones, as TRL has them.

    Args:
        max_length: Text tokens of a prompt with one answer; each answer is cut by itself.
    """

    def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        images = [row["images"][0].convert("RGB") for row in rows]
        both = [_conversations(row) for row in rows]
        turns = [conversations[side] for side in (0, 1) for conversations in both]
        # Of several turns the last answer is the preferred one; the others are what it answers to.
        batch = encode(processor, images, turns, max_length, last_alone=True)
        batch["completion_mask"] = batch.pop("answer_mask")
        return batch

    return collate


def _conversations(row: Mapping[str, Any]) -> list[list[tuple[str, str]]]:
    """The turns of a pair with its preferred answer, and with the other."""
    return [
        [(turn["role"], turn["content"]) for turn in [*row["prompt"], *row[side]]]
        for side in ("chosen", "rejected")
    ]


def make_trainer(
    hf: HFModel,
    model: Any,
    dataset: Any,
    out: Path,
    *,
    loss: PreferenceLoss,
    training: Training,
    lora: LoraSettings,
    seed: int,
    images: TrainingImages = "as_generated",
    start: Path | None = None,
    reference: Literal["previous", "base"] = "previous",
) -> RegularizedDPOTrainer:
    """The trainer of `train_preferences`, ready to run on a lent model."""
    collate = preference_collator(training_loop.processor_for(hf, images), training.max_length)
    settings = trainer_arguments(
        hf, out, training, seed, len(dataset),
        model=model, row=row_size(collate, dataset), rank=lora.r,
    )  # fmt: skip
    settings |= {"beta": loss.beta, "loss_weights": [0.0], "disable_dropout": True}
    trainer = RegularizedDPOTrainer(
        loss=loss,
        model=training_loop.adapt(model, start),
        args=on_one_device(DPOConfig(**settings), hf.device),
        train_dataset=dataset,
        processing_class=hf.processor,
        data_collator=collate,
        # With a configuration the reference is the base; with an adapter to go on from, that adapter.
        peft_config=lora_config(model, lora) if start is None else None,
    )
    if start is not None and reference == "base":
        # TRL has frozen a copy of the adapter to refer to. Where there is none it switches adapters off.
        trainer.accelerator.unwrap_model(trainer.model).delete_adapter("ref")
    return trainer


def train_preferences(
    hf: HFModel | Gang,
    pairs: Path,
    out: Path,
    *,
    loss: PreferenceLoss,
    training: Training,
    lora: LoraSettings,
    seed: int,
    images: TrainingImages = "as_generated",
    start: Path | None = None,
    reference: Literal["previous", "base"] = "previous",
    progress: training_loop.StepProgress | None = None,
    log: Callable[[str], None] = _LOG.info,
) -> None:
    """Trains an adapter to prefer; writes `adapter/` and `log.jsonl` into `out`, resuming what is there.

    Pairs that the limit on text leaves without a token of both answers are left out; `cuts.json` lists them.

    Args:
        hf: The model, which is left as it was, or the gang that trains it.
        pairs: `pairs.parquet` of `stic_eval.training.preference_pairs`.
        reference: What the model is held to where there is an adapter to go on from: that one, as it was
            (`previous`), or the base model. A new adapter's reference is the base model.
        log: Told what the limit on text cuts. All else is as for `train.custom_trainer.train_adapter`.

    Raises:
        UserError: There are no pairs, the model has no single tiles, or the memory does not suffice.
        RunError: Training diverged, or nothing was learned.
    """
    if training_loop.is_trained(out):
        training_loop.clear_away(out)
        return
    if isinstance(hf, Gang):
        hf.train(
            pairs, out, loss=loss, training=training, lora=lora, seed=seed, images=images, start=start,
            reference=reference, progress=progress, log=log,
            checkpoint_seconds=training_loop.CHECKPOINT_SECONDS,
        )  # fmt: skip
        return
    with ranks.leader_first():
        dataset = open_pairs(pairs, training_loop.rows_folder(out))
    if training.max_length is not None:
        text = dataset.select_columns(["prompt", "chosen", "rejected", "source"])
        processor = training_loop.processor_for(hf, images)
        found = length_limits.cuts(processor, map(_conversations, text), training.max_length)
        length_limits.report(found, out, PREFERENCES, lambda row: f"{row} ({text[row]['source']})", log)
        dataset = dataset.select(found.rows) if found.left_out else dataset
    if loss.alpha == 0 and loss.rejected_logp == "label":
        answers = dataset.select_columns(["chosen", "rejected"])
        if all(row["chosen"] == row["rejected"] for row in answers):
            # Their gradient is rounding, of which Adam makes whole steps.
            raise UserError(
                f"{PREFERENCES}: nothing to learn: the two answers of all {len(dataset):,} pairs are "
                "the same; set filter=identical, and give more data"
            )
    dataset = dataset.select_columns(["prompt", "chosen", "rejected", "images"])
    with training_loop.lent_model(hf, images) as model:
        trainer = make_trainer(
            hf, model, dataset, out,
            loss=loss, training=training, lora=lora, seed=seed, images=images, start=start,
            reference=reference,
        )  # fmt: skip
        training_loop.run(trainer, out, progress, model, PREFERENCES, start)
        if ranks.leads():
            shutil.rmtree(training_loop.rows_folder(out), ignore_errors=True)
