"""A method's own trainer. Heavy: import it where a stage runs.

A stage's `run` is given a `StageContext` and leaves two things in `ctx.out`: `adapter/`, a PEFT folder, and,
for curves and costs, `log.jsonl`, a line of JSON for each optimiser step. Whatever does that is a trainer.
The rules of stages hold for it: what changes its output is in `Stage.params`, its seed is `ctx.seed`, it says
`trains=True` if it trains on images, and it may be killed and started again. `Stage.curves` says what is
drawn of its log.

`train_adapter` does this for any trainer of transformers or TRL, so that a method brings a class with a loss:

    class Trainer(loop.Durable, transformers.Trainer):   # checkpoints that survive a kill
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs): ...

    def run(ctx):
        def build(peft, arguments):
            arguments.pop("max_length")                   # which only TRL's configurations have
            return Trainer(peft, transformers.TrainingArguments(**arguments), collator, rows)

        train_adapter(ctx.model(None), ctx.out, build, len(rows), training=..., lora=..., seed=ctx.seed)

    Stage("mine", 1, run, {...}, needs=(pairs,), steps=..., trains=True, kind="pair_training")

Collators: `stic_eval.training.dpo.preference_collator` for pairs (`open_pairs` reads them), and
`stic_eval.training.sft.sft_collator` for items.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft import get_peft_model
from transformers import set_seed

from stic_eval.contracts.method import TrainingImages
from stic_eval.errors import UserError
from stic_eval.models.hf_model import HFModel
from stic_eval.training import training_loop
from stic_eval.training.gang import Gang
from stic_eval.training.hyperparameters import Training
from stic_eval.training.lora import LoraSettings, lora_config
from stic_eval.training.trainer_arguments import trainer_arguments


def train_adapter(
    hf: HFModel | Gang,
    out: Path,
    build: Callable[[Any, dict[str, Any]], training_loop.Durable],
    rows: int,
    *,
    training: Training,
    lora: LoraSettings,
    seed: int,
    images: TrainingImages = "as_generated",
    start: Path | None = None,
    progress: training_loop.StepProgress | None = None,
    what: str = "training",
) -> None:
    """Trains an adapter by a trainer of one's own; writes `adapter/` and `log.jsonl`, resuming what is there.

    Args:
        hf: The model; it is left as it was.
        out: Folder to write into and to resume from.
        build: (model with the adapter to train, arguments of TRL's configurations) -> trainer.
        rows: That are trained on in an epoch.
        lora: Size of a new adapter; one that is gone on from keeps its own.
        seed: Of the order of rows, dropout and a new adapter's weights.
        images: How they are shown to the model; the collator's processor is `loop.processor_for(hf, images)`.
        start: Adapter to go on from; None: a new one on the base.
        progress: Told (steps done, steps in all).

    Raises:
        UserError: The memory does not suffice, or a gang is to train, whose processes do not know `build`.
        RunError: Training diverged, or nothing was learned.
    """
    if training_loop.is_trained(out):
        training_loop.clear_away(out)
        return
    if isinstance(hf, Gang):
        raise UserError(f"{what}: has its own trainer, which trains in one process; leave out --gpus")
    with training_loop.lent_model(hf, images) as model:
        arguments = trainer_arguments(hf, out, training, seed, rows, model=model, rank=lora.r)
        set_seed(seed)
        new = start is None
        peft = get_peft_model(model, lora_config(model, lora)) if new else training_loop.adapt(model, start)
        training_loop.run(build(peft, arguments), out, progress, model, what, start)
