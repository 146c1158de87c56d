"""Weights in memory: loading them, and attaching one adapter at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stic_eval.errors import RunError, UserError, first_line
from stic_eval.models import devices, weight_memory
from stic_eval.models.adapter_patterns import check_patterns
from stic_eval.models.adapter_values import check_sizes
from stic_eval.models.bounded_store import BoundedStore, nbytes_of
from stic_eval.models.detokenize import Detokenizer
from stic_eval.models.fingerprint import local_model, model_fingerprint
from stic_eval.models.free_memory import RowLimit, out_of_memory
from stic_eval.models.fused_lora import fuse
from stic_eval.models.profile_detection import tags_written
from stic_eval.models.profile_processor import apply
from stic_eval.models.prompt_text import control_tokens
from stic_eval.models.still_image_processors import load_processor
from stic_eval.models.weight_memory import Packed, free_bytes
from stic_eval.store import content_key
from stic_eval.thinking_tags import ANSWER, THINKING, TagPair, opening
from stic_eval.types import Request, Response

if TYPE_CHECKING:
    import torch

    from stic_eval.models.kv_cache import Prefix
    from stic_eval.models.prompt_tokens import Beginning, Prompter
    from stic_eval.profiles import ConversationProfile

# Most rows of `--batch-size auto`; memory may allow fewer. On a CPU a step takes twice as long with twice
# as many rows from 64 on, so more would only make answers wait for each other.
_CPU_ROWS, _GPU_ROWS = 64, 256
# Shares of the free memory: of the machine's for images' features, of the device's for prompts' beginnings.
_FEATURES, _FEATURES_BYTES = 1 / 8, 4 << 30
_PREFIXES = 1 / 4


@dataclass
class LoadedWeights:
    """Weights in memory, and which adapter is attached to them; shared by all views of a model."""

    base: Any  # PreTrainedModel, without any trace of an adapter unless `peft` is set
    processor: Any
    device: torch.device
    dtype: torch.dtype
    fingerprint: str
    rows: RowLimit
    ends: frozenset[int]
    control: tuple[str, ...]
    detokenizer: Detokenizer
    tags: tuple[TagPair, ...]  # of what it may think, and around answers
    batch_size_given: bool = False
    reuse: bool | Literal["always"] = True
    gradient_checkpointing: bool | None = None  # in training; None: by the memory
    adapter: Path | None = None
    adapter_key: str = ""  # its content, for a folder may be written again
    peft: Any = None  # PeftModel
    # What `stic_eval.models.probe` has found the model to allow; None before it was asked.
    ways: frozenset[str] | None = None
    bytes_per_token: int = 0  # of the key-value cache
    prompter: Prompter | None = None
    beginnings: BoundedStore[Beginning] = field(default_factory=lambda: BoundedStore(_features_bytes()))
    prefixes: BoundedStore[Prefix] = field(default_factory=lambda: BoundedStore(0, nbytes_of))

    def attach(self, adapter: Path | None, key: str) -> Any:
        """Gives the model with exactly this adapter, or the base with its own, unwrapped layers.

        Raises:
            UserError: The adapter does not fit the model, or is of a kind that cannot be taken off again.
        """
        if key != self.adapter_key:
            self.prefixes.clear()
            if self.peft is not None:
                # Unloaded rather than disabled: training then finds the model as it was loaded.
                restore(self.base)
                self.base, self.peft, self.adapter, self.adapter_key = self.peft.unload(), None, None, ""
            if adapter is not None:
                self.peft, self.adapter, self.adapter_key = wrap(self.base, adapter), adapter, key
        model = self.base if self.peft is None else self.peft
        return model.eval() if model.training else model

    @property
    def batch_size(self) -> int:
        """How many requests may be under way."""
        return self.rows.now

    def to_device(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Moves a processor's tensors to the model's device, and floating-point ones to its type."""
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }

    def response(
        self, tokens: Sequence[int], seconds: float, stop: Sequence[str] = (), prompt: str = ""
    ) -> Response:
        """An answer, with the tag in front of it that the prompt ends with.

        Args:
            tokens: Ids, the end token included if there was one.
            stop: Texts that end it, behind what is thought.
            prompt: What it answers, or the end of it.
        """
        text, stopped = self.detokenizer.answer(tokens, stop, prompt)
        ended = tokens[-1] in self.ends or stopped
        return Response(
            opening(prompt, self.tags) + text.strip(), len(tokens), "stop" if ended else "length", seconds
        )

    @property
    def workers(self) -> int:
        """Threads that prepare requests: on a CPU one, for the model needs the others."""
        return min(8, os.cpu_count() or 1) if self.device.type == "cuda" else 1


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded.

    Attributes:
        device: `auto` takes CUDA, MPS or the CPU, the first that there is.
        dtype: `auto` is float32 on a CPU and for float32 checkpoints, bfloat16 otherwise.
        batch_size: Most requests under way; `auto` goes by device and free memory.
        trust_remote_code: Lets transformers execute code from the model's repository.
        reuse: False computes every image and every prompt from its first token anew, `always` shares even
            what is not worth the copies; answers are the same.
        attn: Implementation of attention, as transformers names it; None is its choice.
        quantization: Packs the weights by bitsandbytes.
        gradient_checkpointing: While training; None goes by the memory.
        tags: More tags of what it may think: where they are special tokens, or the end of a prompt, its
            answers have them nevertheless.
        answer_tags: More such around answers.
        profile: How it is asked; None: as the checkpoint's own processor has it.
    """

    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int | Literal["auto"] = "auto"
    trust_remote_code: bool = False
    reuse: bool | Literal["always"] = True
    attn: str | None = None
    quantization: Packed | None = None
    gradient_checkpointing: bool | None = None
    tags: Sequence[TagPair] = ()
    answer_tags: Sequence[TagPair] = ()
    profile: ConversationProfile | None = None


def load(model: str, how: LoadOptions) -> LoadedWeights:
    """Loads a model and its processor; see `HFModel.load`."""
    from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    where, attn, profile, quantization = _device(how.device), how.attn, how.profile, how.quantization
    rows = _GPU_ROWS if where.type == "cuda" else _CPU_ROWS
    source = str(local_model(model) or model)
    common: dict[str, Any] = {"revision": how.revision, "trust_remote_code": how.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(source, **common)
        kind = _dtype(how.dtype, where, config)
        count = weight_memory.parameters(model, how.revision, _name(getattr(config, "dtype", None)))
        weight_memory.check(model, count, _name(kind), quantization, where)
        place = _placement(where, kind, attn, quantization)
        processor = load_processor(source, config, **common)
        # Before the weights are read: of a setting that does not fit one is told at once.
        _prepare(processor, model, profile)
        base = AutoModelForImageTextToText.from_pretrained(
            source, dtype=kind, use_safetensors=True, **place, **common
        )
    except UserError:
        raise
    except Exception as error:  # transformers and safetensors raise a dozen kinds
        if out_of_memory(error):
            free = free_bytes(where)
            message = weight_memory.too_large(model, count, _name(kind), quantization, where, free)
            raise UserError(message) from error
        if "Unrecognized configuration class" in str(error):
            raise UserError(f"--model {model}: takes no images; give a vision-language model") from error
        if attn is not None and re.search(r"attn|attention|kernels", str(error), re.IGNORECASE):
            raise UserError(f"--attn {attn}: is not available: {first_line(error)}") from error
        raise UserError(f"--model {model}: cannot be loaded: {first_line(error)}") from error
    tokenizer = processor.tokenizer
    if profile is not None and (tiles := profile.processor.get("image_grid_pinpoints")):
        base.config.image_grid_pinpoints = tiles  # by which the model puts an image's tiles together again
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    ends = base.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    if ends is None:
        raise UserError(f"--model {model}: does not say which token ends an answer (eos_token_id)")
    ends = sorted({int(end) for end in (ends if isinstance(ends, list) else [ends])})
    tags, answer_tags = (*THINKING, *how.tags), (*ANSWER, *how.answer_tags)
    # Decoding is what a request says, not the penalties and temperatures that a checkpoint brings.
    base.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    return LoadedWeights(
        base=base.eval(),
        processor=processor,
        device=where,
        dtype=kind,
        fingerprint=_fingerprint(model, how.revision, profile),
        rows=RowLimit(rows if how.batch_size == "auto" else how.batch_size),
        ends=frozenset(ends),
        control=control_tokens(processor),
        detokenizer=Detokenizer(tokenizer, tags, answer_tags),
        tags=(*tags, *answer_tags),
        batch_size_given=how.batch_size != "auto",
        reuse=how.reuse,
        gradient_checkpointing=how.gradient_checkpointing,
        prefixes=BoundedStore(int(free_bytes(where) * _PREFIXES), nbytes_of),
    )


def _fingerprint(model: str, revision: str | None, profile: ConversationProfile | None) -> str:
    found, written = model_fingerprint(model, revision), tags_written(model, revision, profile)
    ways = [*([profile.content] if profile is not None else []), *([written] if written else [])]
    return content_key([found, *ways]) if ways else found


def _prepare(processor: Any, model: str, profile: ConversationProfile | None) -> None:
    """Has a processor write and see as the checkpoint says, or as a profile does.

    Raises:
        UserError: There is no image processor or chat template, or the profile does not fit.
    """
    if getattr(processor, "image_processor", None) is None:
        raise UserError(f"--model {model}: has no image processor; give a vision-language model")
    if not processor.chat_template:
        processor.chat_template = processor.tokenizer.chat_template
    if profile is not None:
        apply(processor, profile)
    if not processor.chat_template:
        raise UserError(
            f"--model {model}: has no chat template; put one beside it as chat_template.jinja, or give "
            "--chat-template"
        )


def not_finite(loaded: LoadedWeights, request: Request) -> RunError:
    """The error for a request whose logits are NaN or infinite: no answer can be read from them."""
    shown = f" about {request.images[0].source}" if request.images else ""
    who = "the model" if loaded.adapter is None else f"the model with adapter {loaded.adapter}"
    other = "" if loaded.dtype.itemsize > 2 else " or another --dtype"
    return RunError(
        f"{who} gives logits that are not finite when it is asked{shown}: its weights are broken, or "
        f"overflow in {_name(loaded.dtype)}; look for a sound copy{other}"
    )


def _placement(
    device: torch.device, kind: torch.dtype, attn: str | None, quantization: Packed | None
) -> dict[str, Any]:
    """Arguments of `from_pretrained`: where weights go, how they are packed, and which attention is used."""
    found: dict[str, Any] = {} if device.type == "cpu" and not quantization else {"device_map": {"": device}}
    if attn is not None:
        found["attn_implementation"] = attn
    if quantization is not None:
        from transformers import BitsAndBytesConfig

        weight_memory.check_packing(quantization)
        # NF4, and arithmetic in the type that weights would have had: QLoRA's (Dettmers et al. 2023).
        four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": kind}
        how = four if quantization == "4bit" else {"load_in_8bit": True}
        found["quantization_config"] = BitsAndBytesConfig(**how)
    return found


def _name(kind: object) -> str:
    """A type of weights by its name, e.g. `bfloat16`."""
    return str(kind).removeprefix("torch.")


def wrap(base: Any, adapter: Path, *, as_stored: bool = False) -> Any:
    """A base model with an adapter around it that is not to be trained.

    Its matrices have the type of the base's weights. In 16 bits float32 ones, which training writes, would
    turn most of a step into products of twice the width; servers have them in the base's type as well.

    Args:
        as_stored: Keeps them in the type that training has, float32 (for sums, not for answers).

    Raises:
        UserError: The adapter does not fit the model, or is of a kind that cannot be taken off again.
    """
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTuner

    if not (adapter / "adapter_model.safetensors").is_file():  # PEFT would go on to look for pickles
        raise UserError(f"adapter {adapter}: holds no adapter_model.safetensors; give a PEFT adapter folder")
    check_sizes(adapter, f"adapter {adapter}")
    check_patterns(adapter, [name for name, _ in base.named_modules()], f"adapter {adapter}")
    try:
        peft = PeftModel.from_pretrained(
            base, str(adapter), is_trainable=False, autocast_adapter_dtype=as_stored
        ).eval()
        if not isinstance(peft.base_model, BaseTuner):
            kind: Any = peft.peft_config["default"].peft_type
            raise UserError(
                f"adapter {adapter}: is of kind {getattr(kind, 'value', kind)}; give one that changes "
                "layers, e.g. LoRA"
            )
        _check_complete(peft, adapter)
        fuse(peft)
        return peft
    except UserError:
        strip(base)
        raise
    except Exception as error:  # PEFT and safetensors raise a dozen kinds
        strip(base)
        raise UserError(f"adapter {adapter}: does not fit this model: {first_line(error)}") from error


def _check_complete(peft: Any, adapter: Path) -> None:
    """Makes sure that every matrix of a LoRA has found its place: PEFT passes over what does not fit.

    Raises:
        UserError: Some have none, or a place is left as it was made.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        present = file.keys()  # a list: the file itself cannot be gone through
    given = {name for name in present if ".lora_" in name}
    # Embeddings are left out: whether they were trained, PEFT would look up on the hub.
    state = get_peft_model_state_dict(peft, save_embedding_layers=False)
    taken = {str(name) for name in state if ".lora_" in str(name)}
    for names, what in ((given - taken, "have no place in this model"), (taken - given, "are missing")):
        if names:
            raise UserError(
                f"adapter {adapter}: {len(names)} of {len(given | taken)} of its matrices {what}, e.g. "
                f"{min(names)}; give one that was trained on this model, with its own adapter_config.json"
            )


def strip(base: Any) -> None:
    """Puts a model's own layers back where an adapter's have been left around them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    restore(base)
    for name, layer in list(base.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            parent, _, last = name.rpartition(".")
            setattr(base.get_submodule(parent), last, layer.get_base_layer())
    if hasattr(base, "peft_config"):
        del base.peft_config


def restore(base: Any) -> None:
    """Puts modules back of which an adapter holds a trained copy; unloading would leave the copy there."""
    from peft.utils.other import AuxiliaryTrainingWrapper

    for name, module in list(base.named_modules()):
        if isinstance(module, AuxiliaryTrainingWrapper):
            parent, _, last = name.rpartition(".")
            setattr(base.get_submodule(parent), last, module.original_module)


def _device(device: str) -> torch.device:
    import torch

    devices.check_device(device)
    return torch.device(devices.device_of(device) if device == "auto" else device)


def _dtype(dtype: str, device: torch.device, config: Any) -> torch.dtype:
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype != "auto":
        if dtype not in known:
            raise UserError(f"--dtype {dtype}: give auto, {', '.join(known)}")
        return known[dtype]
    stored = getattr(config, "dtype", None)
    return torch.float32 if device.type == "cpu" or stored == torch.float32 else torch.bfloat16


def _features_bytes() -> int:
    import psutil

    return min(_FEATURES_BYTES, int(psutil.virtual_memory().available * _FEATURES))
