"""Stage 2: supervised fine-tuning with TRL's SFT trainer; the loss is on answers alone, as in LLaVA."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.contracts.method import SFTItem, TrainingImages
from stic_eval.errors import UserError
from stic_eval.training.gang import Gang
from stic_eval.training.hyperparameters import Training
from stic_eval.training.lora import LoraSettings

if TYPE_CHECKING:
    from torch import Tensor

    from stic_eval.models.hf_model import HFModel

_LOG = logging.getLogger(__name__)


def sft_collator(
    processor: Any, items: Sequence[SFTItem], max_length: int | None
) -> Callable[[Sequence[dict[str, int]]], dict[str, Tensor]]:
    """A collator of rows `{"row": index into items}`; images are decoded when their batch is made.

    TRL's own collator masks by a template's generation markers, which most templates lack, and leaves out
    the start token that generation adds; `stic_eval.models.conversation` does neither.

    Args:
        max_length: Text tokens of a row; what goes beyond is cut, prompts excepted.
    """

    def collate(rows: Sequence[dict[str, int]]) -> dict[str, Tensor]:
        from stic_eval.models.conversation import encode

        chosen = [items[row["row"]] for row in rows]
        images = [item.image.load() for item in chosen]
        batch = encode(processor, images, [item.turns for item in chosen], max_length)
        batch["labels"] = batch["input_ids"].masked_fill(batch.pop("answer_mask") == 0, -100)
        return batch

    return collate


def train_sft(
    hf: HFModel | Gang,
    items: Sequence[SFTItem],
    out: Path,
    *,
    training: Training,
    lora: LoraSettings,
    seed: int,
    images: TrainingImages = "as_generated",
    start: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    log: Callable[[str], None] = _LOG.info,
) -> None:
    """Fine-tunes an adapter; writes `adapter/` and `log.jsonl` into `out`, resuming what is there.

    The loss of a step is the mean over the answer tokens of its whole batch. Rows that the limit on text
    leaves without an answer token are left out; `cuts.json` lists them.

    Args:
        hf: The model, which is left as it was, or the gang that trains it.
        log: Told what the limit on text cuts. All else is as for `train.custom_trainer.train_adapter`.

    Raises:
        UserError: There is nothing to train on, the model has no single tiles, or memory does not suffice.
        RunError: Training diverged, or nothing was learned.
    """
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from stic_eval.training import length_limits, row_sharing, training_loop
    from stic_eval.training.lora import lora_config
    from stic_eval.training.trainer_arguments import on_one_device, trainer_arguments
    from stic_eval.training.training_memory import row_size

    class Trainer(training_loop.Durable, SFTTrainer):
        """TRL's trainer with checkpoints that can be relied on, and a head that sees answers alone."""

        def __init__(self, **kwargs: Any) -> None:
            self.ways: dict[row_sharing.Sharing, bool] = {}
            super().__init__(**kwargs)
            row_sharing.answers_only(self._peft().get_base_model())

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            """The loss of a micro-batch."""
            if self.args.gradient_checkpointing and not self.is_sharded:
                # Encoded here, images take no part in it. Otherwise gradients would run through the tower.
                inputs = row_sharing.share(self._peft(), inputs, row_sharing.ROWS, self.ways)
            trl: Any = super()
            return trl.compute_loss(model, inputs, *args, **kwargs)

        def weigh(self, batch: dict[str, Any], weights: Sequence[float]) -> dict[str, Any]:
            """The batch without what fillers would teach; tokens count alike, whatever row they are of."""
            for row, weight in enumerate(weights):
                if not weight:
                    batch["labels"][row] = -100
            return batch

        def _peft(self) -> Any:
            return self.accelerator.unwrap_model(self.model)

    if training_loop.is_trained(out):
        training_loop.clear_away(out)
        return
    if not items:
        raise UserError("no item to fine-tune on; give --sft-data with images, or more of it")
    if isinstance(hf, Gang):
        hf.train(
            items, out, training=training, lora=lora, seed=seed, images=images, start=start,
            progress=progress, log=log, checkpoint_seconds=training_loop.CHECKPOINT_SECONDS,
        )  # fmt: skip
        return
    processor = training_loop.processor_for(hf, images)
    if training.max_length is not None:
        found = length_limits.cuts(processor, ([item.turns] for item in items), training.max_length)
        names = [f"{item.id} ({item.image.source})" for item in items]
        length_limits.report(found, out, training_loop.FINE_TUNING, names.__getitem__, log)
        items = [items[row] for row in found.rows]
    with training_loop.lent_model(hf, images) as model:
        rows = Dataset.from_dict({"row": list(range(len(items)))})
        collate = sft_collator(processor, items, training.max_length)
        settings = trainer_arguments(
            hf, out, training, seed, len(items), model=model, row=row_size(collate, rows), rank=lora.r
        )
        # Rows are looked up and encoded by the collator, batch by batch.
        settings["dataset_kwargs"] = {"skip_prepare_dataset": True}
        trainer = Trainer(
            model=training_loop.adapt(model, start),
            args=on_one_device(SFTConfig(**settings), hf.device),
            train_dataset=rows,
            processing_class=hf.processor,
            data_collator=collate,
            peft_config=lora_config(model, lora) if start is None else None,
        )
        training_loop.run(trainer, out, progress, model, training_loop.FINE_TUNING, start)
