"""How a Trainer goes about its steps: where, in which micro-batches, among which processes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.training import checkpoints, ranks, training_memory
from stic_eval.training.hyperparameters import Training
from stic_eval.training.step_rows import StepRows, check_divides
from stic_eval.training.training_memory import RowSize

if TYPE_CHECKING:
    from stic_eval.models.hf_model import HFModel

# Most rows of a micro-batch: beyond that a step takes as much longer as there are more of them.
_ROWS = 8
_LARGE = 1e9  # parameters, from which on each row of a last, smaller batch weighs the same
_UNKNOWN = RowSize(tokens=2048, scored=1024)  # of a trainer whose rows nobody has looked at
_LOG = logging.getLogger(__name__)


def trainer_arguments(
    hf: HFModel,
    out: Path,
    training: Training,
    seed: int,
    rows: int,
    *,
    model: Any,
    row: RowSize = _UNKNOWN,
    rank: int = 128,
) -> dict[str, Any]:
    """Arguments of TRL's trainers that do not depend on the loss.

    The batch is split into equal micro-batches, by the memory there is and among the processes that train
    together, which changes nothing but rounding.

    Args:
        hf: The model; it may say whether gradients are checkpointed.
        out: The stage's folder; checkpoints go below it.
        seed: Of the order of rows, dropout and a new adapter's weights.
        rows: That are trained on in an epoch.
        model: The model itself, in memory.
        row: What a row puts through it.
        rank: Of the adapter.

    Raises:
        UserError: The processes cannot have equal parts of the batch.
    """
    import torch

    check_divides(training.batch_size, ranks.count(), "training")
    own = training.batch_size // ranks.count()
    found = training_memory.fit(
        model.config.get_text_config(), row, rank=rank, width=hf.dtype.itemsize, most=_ROWS,
        free=training_memory.free_for_training(model, hf.device, ranks.count()),
        checkpointing=hf.gradient_checkpointing,
    )  # fmt: skip
    # The same for all of them, who take every step together.
    micro = _largest_part(own, ranks.smallest(found.rows))
    checkpointing = not ranks.smallest(not found.checkpointing)
    on_gpu = hf.device.type == "cuda"
    if on_gpu:
        _LOG.info("micro-batches of %d, gradient checkpointing %s", micro, "on" if checkpointing else "off")
    arguments = {
        "output_dir": str(checkpoints.folder_of(out)),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": own // micro,
        "num_train_epochs": training.epochs,
        "learning_rate": training.learning_rate,
        # Below 1 it is a share of all steps, rounded up: of a single one all of it, at a rate of 0.
        "warmup_steps": training.warmup_ratio if training.steps(rows) > 1 else 0,
        "lr_scheduler_type": training.scheduler,
        "weight_decay": training.weight_decay,
        "optim": "adamw_torch_fused" if on_gpu else "adamw_torch",
        "seed": seed,
        "data_seed": seed,
        "max_length": None,  # cutting would tear images; what is too long is cut behind the prompt
        "bf16": hf.dtype == torch.bfloat16,
        "fp16": hf.dtype == torch.float16,
        "use_cpu": hf.device.type == "cpu",
        "gradient_checkpointing": checkpointing,
        "dataloader_pin_memory": on_gpu,
        "remove_unused_columns": False,
        "save_strategy": "no",  # `_Watch` asks for checkpoints by the clock
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,
    }
    # An adapter has no parameter that a step does without; looking for some costs a walk through the graph.
    return arguments | ({"ddp_find_unused_parameters": False} if ranks.count() > 1 else {})


def _largest_part(rows: int, most: int) -> int:
    """The largest number of rows, up to a bound, that rows can be parted into."""
    return max(n for n in range(1, most + 1) if rows % n == 0)


def step_rows(args: Any, rows: int, parameters: int) -> StepRows:
    """How an epoch's rows are dealt out under a trainer's arguments."""
    micro, batch = args.per_device_train_batch_size, args.gradient_accumulation_steps * ranks.count()
    # What rows of a last, smaller batch weigh has always gone by these groups, which were micro-batches.
    group = _largest_part(micro * batch, _ROWS if parameters < _LARGE else 1)
    return StepRows(rows, micro * batch, micro, group, ranks.number(), ranks.count())


def on_one_device(args: Any, device: Any) -> Any:
    """Keeps a Trainer on the model's device, and from spreading over all visible GPUs, which TRL refuses.

    transformers asks accelerate where to compute, which says `cuda:0` to a process by itself; of several each
    has its own.
    """
    import torch

    if args.n_gpu > 1:
        args._n_gpu = 1
    if device.type == "cuda" and device.index and ranks.count() == 1:
        torch.cuda.set_device(device)
        args.__dict__["_setup_devices"] = device  # which `args.device` reads
        args.distributed_state.device = device
    return args
