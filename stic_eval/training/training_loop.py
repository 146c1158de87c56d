"""What preference training and fine-tuning share: one adapter on a model that is left as it was found,
checkpoints that survive `kill -9`, progress, and the files that come out.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, Trainer, TrainerCallback, set_seed

from stic_eval.contracts.method import TrainingImages
from stic_eval.durable_files import publish, temporary_name
from stic_eval.errors import RunError
from stic_eval.models.loading import strip
from stic_eval.models.single_tile import SingleTile, check_single_tile, features_of_tiles
from stic_eval.store import atomic_write
from stic_eval.training import checkpoints, learning_check, ranks, trackers, training_memory
from stic_eval.training.step_rows import StepRows
from stic_eval.training.tracking_callback import TrackerCallback
from stic_eval.training.trainer_arguments import step_rows

if TYPE_CHECKING:
    from stic_eval.models.hf_model import HFModel

StepProgress = Callable[[int, int], None]  # (steps done, steps in all)

# A kill costs at most so much training; writing a checkpoint takes a fraction of it.
CHECKPOINT_SECONDS = 60.0
PREFERENCES, FINE_TUNING = "preference training", "fine-tuning"  # the stages, in words
_AHEAD = 2  # micro-batches that are made while the model is busy
_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "output_router_logits")


# ---------------------------------------------------------------- the model, lent and returned


def processor_for(hf: HFModel, images: TrainingImages) -> Any:
    """What makes model input of a row's images.

    Raises:
        UserError: The model has no single tiles.
    """
    if images == "as_generated":
        return hf.processor
    check_single_tile(hf.config.to_dict())
    return SingleTile(hf.processor)


@contextmanager
def lent_model(hf: HFModel, images: TrainingImages = "as_generated") -> Iterator[Any]:
    """Gives the base model without any adapter, and takes back whatever a trainer did to it.

    Trainers wrap `forward`, switch dropout off, align special tokens, freeze weights, and put adapter
    layers in; all of that is undone, after a failure as well. What they say on stderr meanwhile is left
    to the log: remarks on special tokens, and on names that TRL uses and transformers has retired.
    """
    from torch import nn
    from transformers.utils import logging

    model = hf.with_adapter(None).model
    if hasattr(model, "peft_config"):
        del model.peft_config  # left behind by an adapter that was unloaded; PEFT takes it for a second one
    forward = model.__dict__.get("forward")
    configs = {id(config): config for config in (model.config, model.config.get_text_config())}
    tokens = [(config, name, getattr(config, name, None)) for config in configs.values() for name in _TOKENS]
    decoding = copy.deepcopy(model.generation_config)
    verbosity = logging.get_verbosity()
    dropout = [(module, module.p) for module in model.modules() if isinstance(module, nn.Dropout)]
    frozen = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    training = model.training
    logging.set_verbosity_error()
    shown = features_of_tiles(model) if images == "single_tile" else nullcontext()
    try:
        with shown, warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield model
    finally:
        logging.set_verbosity(verbosity)
        strip(model)
        if forward is None:
            model.__dict__.pop("forward", None)
        else:
            model.forward = forward
        for config, name, value in tokens:
            if getattr(config, name, None) != value:
                setattr(config, name, value)
        model.generation_config = decoding
        if model.is_activation_checkpointing:
            model.activation_checkpointing_disable()
        if getattr(model, "_require_grads_hook", None) is not None:
            model.disable_input_require_grads()
        for module, p in dropout:
            module.p = p
        for parameter, wanted in frozen:
            parameter.requires_grad_(wanted)
            parameter.grad = None
        model.train(training)


def adapt(model: Any, start: Path | None) -> Any:
    """The model with a trainable copy of an adapter around it; the model itself for None."""
    from peft import PeftModel

    return model if start is None else PeftModel.from_pretrained(model, str(start), is_trainable=True)


# ---------------------------------------------------------------- trainers


def ahead(batches: Iterator[Any], pool: ThreadPoolExecutor, most: int = _AHEAD) -> Iterator[Any]:
    """The same batches in the same order, the next ones made by a pool's one thread meanwhile.

    What making one raises is raised where that one would come.
    """
    end = object()
    upcoming = deque(pool.submit(next, batches, end) for _ in range(most))
    while (batch := upcoming.popleft().result()) is not end:
        upcoming.append(pool.submit(next, batches, end))
        yield batch


class Durable(Trainer):
    """Mixed in front of a TRL trainer: sealed checkpoints, nothing sent or written beside them, and
    images decoded ahead of the step that needs them.
    """

    step_rows: StepRows | None = None  # None: no row has a weight of its own
    _source: Any = None
    _batches: Iterator[Any] = iter(())

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.train`."""
        with ThreadPoolExecutor(1, initializer=partial(_take_device, self.args.device)) as pool:
            self._pool = pool
            try:
                return super().train(*args, **kwargs)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The micro-batches of a step, and how many tokens these learn from."""
        if epoch_iterator is not self._source:
            self._source, self._batches = epoch_iterator, ahead(epoch_iterator, self._pool)
            if (how := self.step_rows) is not None:
                first = self.state.global_step % how.steps
                weights = chain.from_iterable(map(how.weights, range(first, how.steps)))
                self._batches = map(self.weigh, self._batches, weights)
        return super().get_batch_samples(self._batches, num_batches, device)

    def weigh(self, batch: Any, weights: Sequence[float]) -> Any:
        """A micro-batch whose rows weigh so much in the loss; of fillers (`StepRows`) it is 0."""
        return batch

    def _send_telemetry(self) -> None:
        """Nobody is told what is trained here."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """No cards in checkpoints."""

    @property
    def is_sharded(self) -> bool:
        """Whether the model is sharded among processes, none of which may call a piece of it by itself."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As `Trainer.save_model`; of a sharded model the adapter alone is put together."""
        if not self.is_sharded:
            super().save_model(output_dir, _internal_call)
        elif (state := whole_adapter(self)) and ranks.leads():
            self._save(output_dir, state)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # The default looks the base model up on the hub to see whether embeddings have changed.
        adapter: Any = self.accelerator.unwrap_model(self.model)
        where = output_dir or self.args.output_dir
        adapter.save_pretrained(where, save_embedding_layers=False, state_dict=state_dict)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        checkpoints.seal(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}")


def _take_device(device: Any) -> None:
    """Has a thread compute where its process does: CUDA keeps that by thread."""
    import torch

    if device.type == "cuda":
        torch.cuda.set_device(device)


class _Watch(TrainerCallback):
    """Tells progress, asks for checkpoints by the clock, stops when a loss is no number or 0."""

    def __init__(self, progress: StepProgress | None) -> None:
        self.progress, self.saved = progress, time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved = time.monotonic()
        if ranks.number():  # all begin with the same adapter, and then draw dropout of their own
            set_seed(args.seed + ranks.number())
        if self.progress:
            self.progress(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress:
            self.progress(state.global_step, state.max_steps)
        last = state.global_step >= state.max_steps
        # By rank 0's clock: a checkpoint takes all of them.
        if not last and ranks.of_leader(time.monotonic() - self.saved >= CHECKPOINT_SECONDS):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        bad = [name for name in ("loss", "grad_norm") if not math.isfinite((logs or {}).get(name, 0.0))]
        if bad:
            raise RunError(
                f"training diverged: {bad[0]} is not finite at step {state.global_step}; lower learning_rate"
            )
        learning_check.check_first_steps(state.log_history, state.max_steps)


# ---------------------------------------------------------------- running one


def is_trained(out: Path) -> bool:
    """Whether a stage's folder holds a finished adapter: it appears whole, as the last thing."""
    return (out / "adapter" / "adapter_config.json").is_file()


def rows_folder(out: Path) -> Path:
    """Where a stage's rows lie while they are trained on, mapped into memory."""
    return out / "rows"


def clear_away(out: Path) -> None:
    """Removes what training has needed beside its adapter, where it was killed before it did so itself."""
    for folder in (checkpoints.folder_of(out), rows_folder(out)):
        shutil.rmtree(folder, ignore_errors=True)


def run(
    trainer: Any, out: Path, progress: StepProgress | None, model: Any, stage: str, start: Path | None = None
) -> None:
    """Trains, from the last whole checkpoint if there is one, and writes `adapter/` and `log.jsonl`.

    Args:
        trainer: A `Durable` trainer on a PeftModel.
        start: Adapter that it goes on from; None: a new one, whose update is 0.

    Raises:
        RunError: A loss was not finite, or nothing was learned.
        UserError: The memory does not suffice.
    """
    trainer.remove_callback(PrinterCallback)  # it would print every log line to stdout
    tracking = trackers.current()
    reported = TrackerCallback(tracking, out) if tracking else None
    if reported is not None:
        trainer.add_callback(reported)  # before the watch, which ends a training that diverges
    trainer.add_callback(_Watch(progress))
    trainer.step_rows = step_rows(trainer.args, len(trainer.train_dataset), model.num_parameters())
    checkpoint = checkpoints.latest(checkpoints.folder_of(out))
    if checkpoint is not None:
        trainer._total_train_tokens = _seen_tokens(checkpoint)  # TRL would count from 0 again
    checkpointing = bool(trainer.args.gradient_checkpointing)
    try:
        with training_memory.advise(stage, model, checkpointing=checkpointing):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        if reported is not None:
            reported.close()
    state = whole_adapter(trainer) if trainer.is_sharded else None  # all processes take part
    if ranks.leads():
        _write(trainer, state, out, model, stage, start)
    ranks.wait()


def _seen_tokens(checkpoint: Path) -> int:
    """How many tokens had been trained on when a checkpoint was last logged before."""
    history = json.loads((checkpoint / "trainer_state.json").read_bytes())["log_history"]
    return next((int(row["num_tokens"]) for row in reversed(history) if "num_tokens" in row), 0)


def whole_adapter(trainer: Any) -> dict[str, Any]:
    """The tensors of an adapter whose model is sharded, put together; all processes have to call it."""
    if trainer.is_deepspeed_enabled:
        from deepspeed.zero import GatheredParameters as gathered
    else:
        gathered = nullcontext
    peft, found = trainer.accelerator.unwrap_model(trainer.model), {}
    for name, parameter in peft.named_parameters():
        if parameter.requires_grad:
            with gathered(parameter):
                whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
                found[name] = whole.detach().cpu().clone()
    return found


def _write(
    trainer: Any, state: dict[str, Any] | None, out: Path, model: Any, stage: str, start: Path | None
) -> None:
    rows = [entry for entry in trainer.state.log_history if "loss" in entry]
    atomic_write(out / "log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    adapter = trainer.accelerator.unwrap_model(trainer.model)
    learning_check.check_changed(adapter, start, rows, stage, state)
    save_adapter(adapter, out / "adapter", public_name(model), state)
    shutil.rmtree(checkpoints.folder_of(out), ignore_errors=True)


def save_adapter(peft: Any, folder: Path, model_name: str, state: dict[str, Any] | None = None) -> None:
    """Writes a PEFT folder whose bytes depend on nothing but the adapter, whole or not at all.

    Args:
        state: Its tensors, where the model itself does not hold all of them.
    """
    temporary = temporary_name(folder)
    peft.save_pretrained(
        str(temporary), selected_adapters=["default"], save_embedding_layers=False, state_dict=state
    )
    (temporary / "README.md").unlink(missing_ok=True)  # a template that names the model by its path
    path = temporary / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = model_name
    config["inference_mode"] = True
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])  # PEFT keeps a set
    atomic_write(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    publish(temporary, folder)


def public_name(model: Any) -> str:
    """A model's hub id, or the last part of its path."""
    name = str(getattr(model.config, "_name_or_path", "") or "")
    return Path(name).name if Path(name).is_absolute() or Path(name).exists() else name
