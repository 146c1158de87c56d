"""What a step of decoding asks of the device: `python -m bench.launches`, counted on a CPU.

On a GPU a step of a few rows is bound by launches: every operation that is no view is at least one kernel,
and every number that the host waits for stops the queue. Neither needs a GPU to be counted. Counted are a
step of the embedded model (6 layers), as it is and with an adapter on all of its decoder's matrices, for rows
of one length: operations, those that a layer has, new tensors, and waits of the host (`tolist`, `item`, ...).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.__main__ import machine, write
from stic_eval.models import forward_passes, vision
from stic_eval.models.hf_model import HFModel
from stic_eval.pocket.rows import unlabeled_images
from stic_eval.training.lora import LoraSettings, lora_config
from stic_eval.types import Generation, Message, Request

ROWS, TOKENS = 8, 12
_WAITS = ("tolist", "item", "__bool__", "__int__", "__float__", "cpu")


@dataclass(frozen=True)
class Launches:
    """What one step takes.

    Attributes:
        work: Which step.
        operations: Operations of torch that are no views.
        layer: Those of one decoder layer.
        tensors: New tensors.
        waits: For how many numbers the host waits.
    """

    work: str
    operations: int
    layer: int
    tensors: int
    waits: int


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: Counter[str] = Counter()
        self.tensors = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema = func._schema
        aliases = [one.alias_info for one in schema.returns if one.alias_info is not None]
        if not aliases:
            self.tensors += len(schema.returns)
        if not aliases or any(alias.is_write for alias in aliases):
            self.operations[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def _counted_waits(found: list[str]) -> Iterator[None]:
    with mock.patch.multiple(torch.Tensor, **{name: _noting(name, found) for name in _WAITS}):
        yield


def _noting(name: str, found: list[str]) -> Any:
    original = getattr(torch.Tensor, name)

    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(name)
        return original(self, *args, **kwargs)

    return noting


def counted(work: str, model: HFModel) -> Launches:
    """The last step of decoding some rows at once."""
    images = unlabeled_images(ROWS)
    how = Generation(max_new_tokens=TOKENS)
    asked = [Request((Message("user", "Describe the image."),), (image,), how) for image in images]
    decode, layers = forward_passes.Passes.decode, model.config.get_text_config().num_hidden_layers
    last: list[tuple[_Counting, list[str], int]] = []

    def counting(self: Any, rows: Any, lanes: Any) -> None:
        mode = _Counting()
        waits: list[str] = []
        inside: list[int] = []
        text = vision.text_decoder(self._model).layers
        hooks = [
            text[0].register_forward_pre_hook(lambda *_: inside.append(sum(mode.operations.values()))),
            text[-1].register_forward_hook(lambda *_: inside.append(sum(mode.operations.values()))),
        ]
        with _counted_waits(waits), mode:
            decode(self, rows, lanes)
        for hook in hooks:
            hook.remove()
        last[:] = [(mode, waits, (inside[1] - inside[0]) // layers)]

    with mock.patch.object(forward_passes.Passes, "decode", counting):
        list(model.generate(asked))
    mode, waits, layer = last[0]
    return Launches(work, sum(mode.operations.values()), layer, mode.tensors, len(waits))


def random_adapter(folder: Path) -> Path:
    """An adapter on all of the decoder's matrices, of the paper's kind; its weights are of no account."""
    from peft import get_peft_model

    base = HFModel.load("pocket").model
    adapted = get_peft_model(base, lora_config(base, LoraSettings(r=16, alpha=32)))
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def measure() -> list[Launches]:
    """All of them."""
    model = HFModel.load("pocket")
    with tempfile.TemporaryDirectory() as name:
        adapter = random_adapter(Path(name))
        return [
            counted("a step of decoding", model),
            counted("a step with an adapter", model.with_adapter(adapter)),
        ]


def main() -> None:
    """Counts, prints and writes bench/results/launches.json."""
    found = measure()
    for one in found:
        print(one)
    write("launches", machine(), {"launches": [asdict(one) for one in found]})


if __name__ == "__main__":
    main()
