"""A model in this process, by transformers; adapters are trained with it."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from stic_eval.contracts.engine import Answering, Engine, Estimate
from stic_eval.errors import UserError
from stic_eval.models import devices, weight_memory
from stic_eval.models.fingerprint import adapter_fingerprint, local_model
from stic_eval.models.profile_detection import profile_of, tags_written
from stic_eval.settings import RunConfig
from stic_eval.store import content_key

if TYPE_CHECKING:
    from stic_eval.models.hf_model import HFModel

# Sustained throughput assumed for estimates, in FLOP/s: a laptop core's, and a current GPU's at
# the batch sizes that fit beside a 7B model. Estimates are good to a factor of about three.
_CPU_CORE_FLOPS, _GPU_FLOPS = 2.0e10, 1.0e14
_TOKENS_PER_GENERATION, _TOKENS_PER_ROW = 200, 400
_ROWS_PER_STEP = 8
_PROCESS_BYTES = 1.2e9  # Python with torch and transformers


def refuse_of_vllm(config: RunConfig) -> None:
    """Refuses what only servers that this program starts could act on.

    Raises:
        UserError: Some of it is given.
    """
    if config.server.command:
        raise UserError("--serve-command: starts vLLM; add --engine vllm")
    if config.server.tensor_parallel > 1:
        raise UserError("--tensor-parallel: splits a model that vLLM serves; add --engine vllm")


class HFEngine(Engine):
    """A model in this process."""

    config: RunConfig

    name: ClassVar[str] = "hf"
    trains: ClassVar[bool] = True

    @classmethod
    def settled(cls, config: RunConfig, given: Mapping[str, Any], named: bool) -> RunConfig:
        """Refuses what only a server could act on."""
        for flag, value in (
            ("--base-url", config.server.base_url), ("--adapter-name", config.server.adapters),
            ("--model-id", config.server.model_id),
        ):  # fmt: skip
            if value:
                raise UserError(f"{flag}: is for a model at a server; add --engine openai")
        refuse_of_vllm(config)
        return config

    @classmethod
    def answering(cls, config: RunConfig) -> Mapping[str, Any]:
        """How weights are packed and who attends, where that is named."""
        named = {"quantization": config.quantization, "attn": config.attn}
        return {name: value for name, value in named.items() if value}

    _here: bool = True

    @cached_property
    def device(self) -> str:
        """What the device comes to: `cuda`, `mps` or `cpu`."""
        return devices.device_of(self.config.device)

    def computed_on(self, device: str, dtype: str) -> None:
        """Takes in what device and type of weights come to where the model runs."""
        self.device, self.dtype, self._here = device, dtype, False

    @cached_property
    def dtype(self) -> str:  # type: ignore[override]
        """The type of the weights in memory."""
        return devices.dtype_of(self.config)

    @property
    def adapter_dtype(self) -> str:  # type: ignore[override]
        """The weights' own, where that is not float32, in which adapters are trained and stored."""
        return "" if self.dtype == "float32" else self.dtype

    @cached_property
    def profile(self) -> Any:
        """How the model is asked; None: as its checkpoint has it."""
        return profile_of(self.config)

    @property
    def loaded(self) -> bool:  # type: ignore[override]
        """Whether the base model is in memory."""
        return "base" in self.__dict__

    def check(self) -> None:
        """Looks at the device, and at how weights are packed."""
        if self._here:
            devices.check_device(self.config.device)
        if self.config.quantization and self._here:
            weight_memory.check_packing(self.config.quantization)

    @cached_property
    def model(self) -> str:  # type: ignore[override]
        """The base model's content."""
        from stic_eval.models.hf_model import model_fingerprint

        return model_fingerprint(self.config.model, self.config.revision)

    @cached_property
    def _own(self) -> str:
        config = self.config
        written = tags_written(config.model, config.revision, self.profile)
        # Tags that are no known ones may be tokens that answers are given without.
        tags, asked = config.thinking.more_tags, self.profile and self.profile.content
        ways: list[Any] = [config.quantization, config.attn, tags, asked, written]
        return content_key([self.model, self.dtype, *(way for way in ways if way)])

    def identity(self, adapter: Path | None = None) -> str:
        """The base model's content, its weights' type, how it is packed, attends and is asked; adapter."""
        return adapter_fingerprint(self._own, adapter, self.adapter_dtype)

    @cached_property
    def base(self) -> HFModel:
        """The base model, in memory."""
        from stic_eval.models.hf_model import HFModel

        config = self.config
        with self.step(f"load {config.model}"):
            base = HFModel.load(
                config.model,
                revision=config.revision,
                device=config.device,
                dtype=self.dtype,  # by name: answers are never filed under another than they were given in
                batch_size=config.batch_size,
                trust_remote_code=config.trust_remote_code,
                attn=config.attn,
                quantization=config.quantization,
                gradient_checkpointing=config.gradient_checkpointing,
                tags=config.thinking.more_thinking,
                answer_tags=config.thinking.more_answer,
                profile=self.profile,
            )
        for adapter in config.adapters:
            _ = base.with_adapter(adapter).model  # one that does not fit is told of before hours of work
        return base

    def answers(self, adapter: Path | None = None) -> HFModel:
        """The base model with an adapter attached, or as it is."""
        return self.base.with_adapter(adapter)

    trainable = likelihoods = answers

    def release(self) -> None:
        """Lets go of the model; it is loaded again when it is asked something."""
        if self.loaded:
            from stic_eval.models import free_memory

            device = self.base.device
            del self.base
            gc.collect()  # modules refer to each other
            free_memory.release(device)

    def alone(self, adapter: Path | None = None) -> Answering | None:
        """By transformers alone, where the weights' type makes it differ: in float32 on a CPU it does not."""
        exact = self.dtype == "float32" and self.config.quantization is None
        if exact and self.device == "cpu":
            return None
        return self.answers(adapter).one_by_one

    def described(self) -> str:
        """Who answers, in words for a log."""
        config = self.config
        return (
            f"{config.model} in {config.quantization or self.dtype} on {self.device}, "
            f"attention {config.attn or 'as transformers chooses'}, batch size {config.batch_size}"
        )

    def notes(self, rows: Mapping[str, Any]) -> list[str]:
        """What a table says about the weights; nothing of float32."""
        config = self.config
        bits = {"4bit": "4 bits (NF4)", "8bit": "8 bits"}.get(config.quantization or "")
        if bits:
            return [f"The model's weights in {bits}, by bitsandbytes."]
        attention = f", attention {config.attn}" if config.attn else ""
        plain = self.dtype == "float32" and not attention
        return [] if plain else [f"The model's weights in {self.dtype}{attention}."]

    def estimate(self, generations: int, steps: int) -> Estimate:
        """By a model's size and the device, to a factor of about three.

        Two FLOPs a parameter and token for generation, six for training (Kaplan et al. 2020, section 2.1),
        over an assumed throughput. A model on the hub counts as one of 7e9 parameters.

        Raises:
            UserError: A file of its weights is no safetensors file.
        """
        device, (size, width) = self.device, self.size()
        flops = _GPU_FLOPS if device in ("cuda", "mps") else _CPU_CORE_FLOPS * (os.cpu_count() or 1)
        work = 2.0 * size * _TOKENS_PER_GENERATION * generations
        work += 6.0 * size * _TOKENS_PER_ROW * _ROWS_PER_STEP * steps
        taken = _PROCESS_BYTES + size * width * (2.0 if steps else 1.3)
        return Estimate(work / flops, taken, f"{device}, {size / 1e6:,.1f} M parameters")

    def size(self) -> tuple[float, float]:
        """Parameters of the model, and bytes of each; one on the hub counts as one of 7e9."""
        folder = local_model(self.config.model)
        local = folder is not None and folder.is_dir()
        parameters = weight_memory.local_parameters(folder) if folder and local else 7_000_000_000
        return parameters, weight_memory.WIDTHS[self.config.quantization or self.dtype]


engine = HFEngine
