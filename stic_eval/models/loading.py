"""Weights in memory: loading them, and attaching one adapter at a time."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stic_eval.errors import UserError
from stic_eval.models.fingerprint import local_model, model_fingerprint
from stic_eval.models.text import control_tokens

if TYPE_CHECKING:
    import torch

# Requests in a batch. On a CPU a step of 64 takes twice as long as one of 32, so more would only make
# more answers wait for the longest. On a GPU one a GiB of free memory leaves room for the key-value
# cache of a 7B model without grouped queries (0.5 MB a token, 2,000 tokens).
_CPU_BATCH, _GPU_BATCH = 32, 64


@dataclass
class Loaded:
    """Weights in memory, and which adapter is attached to them; shared by all views of a model."""

    base: Any  # PreTrainedModel, without any trace of an adapter unless `peft` is set
    processor: Any
    device: torch.device
    dtype: torch.dtype
    fingerprint: str
    batch_size: int
    ends: frozenset[int]
    control: tuple[str, ...]
    adapter: Path | None = None
    peft: Any = None  # PeftModel
    # Padding is a setting of the one tokenizer: changing it while another thread uses it is an error.
    tokenizing: threading.Lock = field(default_factory=threading.Lock)

    def attach(self, adapter: Path | None) -> Any:
        """Gives the model with exactly this adapter, or the base with its own, unwrapped layers."""
        if adapter != self.adapter:
            if self.peft is not None:
                # Unloaded rather than disabled: training then finds the model as it was loaded.
                self.base, self.peft, self.adapter = self.peft.unload(), None, None
            if adapter is not None:
                self.peft, self.adapter = _adapted(self.base, adapter), adapter
        model = self.base if self.peft is None else self.peft
        return model.eval()


def load(
    model: str,
    *,
    revision: str | None,
    device: str,
    dtype: str,
    batch_size: int | Literal["auto"],
    trust_remote_code: bool,
) -> Loaded:
    """Loads a model and its processor; see `HFModel.load`."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    where = _device(device)
    source = str(local_model(model) or model)
    common: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(source, **common)
        kind = _dtype(dtype, where, config)
        place: dict[str, Any] = {} if where.type == "cpu" else {"device_map": {"": where}}
        base = AutoModelForImageTextToText.from_pretrained(
            source, dtype=kind, use_safetensors=True, **place, **common
        )
        processor = AutoProcessor.from_pretrained(source, **common)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"--model {model}: does not fit in the memory of {where}; try --device cpu"
        ) from error
    except Exception as error:  # transformers and safetensors raise a dozen kinds
        if "Unrecognized configuration class" in str(error):
            raise UserError(f"--model {model}: takes no images; give a vision-language model") from error
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"--model {model}: cannot be loaded: {first}") from error
    if getattr(processor, "image_processor", None) is None:
        raise UserError(f"--model {model}: has no image processor; give a vision-language model")
    tokenizer = processor.tokenizer
    if not processor.chat_template:
        processor.chat_template = tokenizer.chat_template
    if not processor.chat_template:
        raise UserError(f"--model {model}: has no chat template; put one beside it as chat_template.jinja")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    ends = base.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    ends = sorted({int(end) for end in (ends if isinstance(ends, list) else [ends])})
    # Decoding is what a request says, not the penalties and temperatures that a checkpoint brings.
    base.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    return Loaded(
        base=base.eval(),
        processor=processor,
        device=where,
        dtype=kind,
        fingerprint=model_fingerprint(model, revision),
        batch_size=_batch_size(where) if batch_size == "auto" else batch_size,
        ends=frozenset(ends),
        control=control_tokens(processor),
    )


def _adapted(base: Any, adapter: Path) -> Any:
    from peft import PeftModel

    if not (adapter / "adapter_model.safetensors").is_file():  # PEFT would go on to look for pickles
        raise UserError(f"adapter {adapter}: holds no adapter_model.safetensors; give a PEFT adapter folder")
    try:
        return PeftModel.from_pretrained(base, str(adapter), is_trainable=False).eval()
    except Exception as error:  # PEFT and safetensors raise a dozen kinds
        strip(base)
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"adapter {adapter}: does not fit this model: {first}") from error


def strip(base: Any) -> None:
    """Puts a model's own layers back where an adapter's have been left around them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(base.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            parent, _, last = name.rpartition(".")
            setattr(base.get_submodule(parent), last, layer.get_base_layer())
    if hasattr(base, "peft_config"):
        del base.peft_config


def _device(device: str) -> torch.device:
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, usable in there.items() if usable))
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UserError(f"--device {device}: give auto, cpu, cuda or mps") from None
    if not there.get(chosen.type, False):
        raise UserError(f"--device {device}: not available on this machine; leave it out, or give cpu")
    return chosen


def _dtype(dtype: str, device: torch.device, config: Any) -> torch.dtype:
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype != "auto":
        if dtype not in known:
            raise UserError(f"--dtype {dtype}: give auto, {', '.join(known)}")
        return known[dtype]
    stored = getattr(config, "dtype", None)
    return torch.float32 if device.type == "cpu" or stored == torch.float32 else torch.bfloat16


def _batch_size(device: torch.device) -> int:
    import torch

    if device.type != "cuda":
        return _CPU_BATCH
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(_GPU_BATCH, free >> 30))
