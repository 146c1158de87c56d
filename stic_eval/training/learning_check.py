"""Whether training teaches anything: what would leave a model as it was is an error and no adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stic_eval.errors import RunError

_FIRST = 3  # steps, of which at least one has to teach something


def check_first_steps(log: Sequence[Mapping[str, Any]], steps: int) -> None:
    """Looks at the first steps once they are logged. The rate is 0 while it warms up; gradients are not.

    Raises:
        RunError: Loss or gradient is exactly 0 in each of them.
    """
    first = [entry for entry in log if "loss" in entry]
    if len(first) != min(_FIRST, steps):
        return
    for name, what in (("loss", "the loss"), ("grad_norm", "the gradient")):
        if all(entry.get(name) == 0 for entry in first):
            count = f"the first {len(first)} steps" if len(first) > 1 else "the first step"
            raise RunError(
                f"training learns nothing: {what} is exactly 0 in {count}; look for rows without an answer, "
                "and for pairs of two equal ones"
            )


def check_changed(
    peft: Any,
    start: Path | None,
    log: Sequence[Mapping[str, Any]],
    stage: str,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Looks at a trained adapter.

    Args:
        start: What it went on from; None: it was new, its second factors 0.
        state: Its tensors, where the model itself does not hold all of them.

    Raises:
        RunError: It is as it was at its start.
    """
    if not _is_unchanged(peft, start, state):
        return
    count = f"all {len(log):,} steps" if len(log) > 1 else "its only step"
    raise RunError(
        f"{stage} learns nothing: {count} left the adapter unchanged; set a larger learning_rate, or look "
        "for rows that teach nothing"
    )


def _is_unchanged(peft: Any, start: Path | None, state: Mapping[str, Any] | None) -> bool:
    """Whether a trained adapter is what it was at its start, to the bit; a new one's second factors are 0."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    found = get_peft_model_state_dict(
        peft, state_dict=state, adapter_name="default", save_embedding_layers=False
    )
    now = {str(name): value.detach().cpu() for name, value in found.items()}
    if start is None:
        return not any(bool(value.any()) for name, value in now.items() if ".lora_B." in name)
    before = load_file(start / "adapter_model.safetensors")
    # A file may hold 16 bits, of which training has made 32.
    return set(now) == set(before) and all(
        torch.equal(value, before[name].to(value.dtype)) for name, value in now.items()
    )
