"""`python -m stic_eval.training.worker spec.json`: trains one stage, alone or as one process of a gang.

The file is a `stic_eval.training.gang.StageSpec`. Started by torchrun or by `accelerate launch`, each process
has its own GPU (by LOCAL_RANK), or all share the CPU; rank 0 alone writes. Its output is a line of JSON for
each step and each line of the log. What goes wrong is one line, and `failed-<rank>.json` beside the file.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval import registry
from stic_eval.errors import Contained, RunError, UserError
from stic_eval.hub_access import go_offline
from stic_eval.models import devices
from stic_eval.parent_death import end_with_parent
from stic_eval.settings import RunConfig
from stic_eval.store import atomic_write
from stic_eval.training import ranks
from stic_eval.training.gang import FOLDER, StageSpec
from stic_eval.training.gang_launch import WHILE_INPUT_IS_OPEN, is_sharded
from stic_eval.training.trackers import reporting

if TYPE_CHECKING:
    from stic_eval.contracts.engine import Engine

_USAGE = f"usage: python -m stic_eval.training.worker spec.json [{WHILE_INPUT_IS_OPEN}]"


def main(arguments: Sequence[str]) -> int:
    """Trains the stage of a file; gives the exit code: 2 for the user's mistakes, 1 for other failures."""
    if not arguments or not {*arguments[1:]} <= {WHILE_INPUT_IS_OPEN}:
        print(_USAGE, file=sys.stderr)
        return 2
    path = Path(arguments[0])
    logging.basicConfig(level=logging.WARNING)
    if WHILE_INPUT_IS_OPEN in arguments:
        end_with_parent(os.getppid())  # the launcher; of whoever started that its input tells
        threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        spec = _read(path)
        with Contained(), reporting(spec.tracking):
            train(spec)
    except Exception as error:
        expected = isinstance(error, (UserError, RunError))
        if not expected:
            traceback.print_exc()
        text = str(error) if expected else registry.explain(error)
        print(text, file=sys.stderr, flush=True)
        said = {"kind": type(error).__name__, "text": text, "time": time.time()}
        atomic_write(path.parent / f"failed-{os.environ.get('RANK', '0')}.json", json.dumps(said))
        sys.stderr.flush()
        # Not as Python leaves: others of the gang may wait for this process in vain, and it for them.
        os._exit(2 if isinstance(error, UserError) else 1)
    return 0


def _read(path: Path) -> StageSpec:
    try:
        return StageSpec.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a training stage: {registry.explain(error)}") from error


def _end_with_input() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def train(spec: StageSpec) -> None:
    """Trains a stage with the other processes of the gang, if there are any; see `training_loop.run`."""
    from stic_eval.training import training_loop

    config = spec.config
    go_offline(config.offline)
    for plugin in config.plugins:
        registry.register(plugin, "a worker")
    engine = _engine(config)
    model = _model(config, engine)
    training_loop.CHECKPOINT_SECONDS = spec.checkpoint_seconds
    common: dict[str, Any] = {
        "training": spec.training, "lora": spec.lora, "seed": spec.seed, "images": spec.images,
        "start": spec.start, "progress": _progress if ranks.leads() else None, "log": _log,
    }  # fmt: skip
    if spec.kind == "preferences":
        from stic_eval.training.dpo import train_preferences

        assert spec.loss is not None
        train_preferences(
            model, spec.data, spec.out, loss=spec.loss, reference=spec.reference, **common
        )  # fmt: skip
    else:
        from stic_eval.training.item_files import read_items
        from stic_eval.training.sft import train_sft

        with ranks.leader_first():
            items = read_items(spec.data, spec.out / FOLDER / "rows")
        train_sft(model, items, spec.out, **common)
    if ranks.leads() and not is_sharded(config.strategy):  # of which no process has the whole model
        engine.trained(spec.out / "adapter")


def _engine(config: RunConfig) -> Engine:
    """Who trains, on this process's device; in the machine's memory, where the model is to be sharded."""
    device = "cpu" if is_sharded(config.strategy) else _device(config)
    own = {"device": device, "dtype": devices.dtype_of(config), "adapters": ()}
    provider = registry.engines().get(config.engine)
    return provider(config.model_copy(update=own), lambda _: nullcontext(), lambda: False)


def _device(config: RunConfig) -> str:
    kind, local = devices.device_of(config.device), os.environ.get("LOCAL_RANK")
    return config.device if local is None or kind == "cpu" else f"{kind}:{local}"


def _model(config: RunConfig, engine: Engine) -> Any:
    """The base model, of a process that has joined the gang."""
    from accelerate import PartialState

    if "LOCAL_RANK" in os.environ:
        PartialState(cpu=devices.device_of(config.device) == "cpu")
    model = engine.trainable(None)
    if is_sharded(config.strategy):
        import torch

        model.device = torch.device(_device(config))
    return model


def _progress(done: int, total: int) -> None:
    print(json.dumps({"done": done, "total": total}), flush=True)


def _log(line: str) -> None:
    if ranks.leads():
        print(json.dumps({"log": line}), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
