"""Vision-language models in this process, by transformers: loading, adapters, generation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.models import loading
from stic_eval.models.fingerprint import adapter_fingerprint, model_fingerprint
from stic_eval.types import Likelihood, Request, Response

if TYPE_CHECKING:
    from stic_eval.models.loading import LoadedWeights
    from stic_eval.models.response_cache import GivenAnswer

__all__ = ["HFModel", "model_fingerprint"]

# A beginning of fewer tokens is not worth the copies.
_WORTHWHILE = 32


class HFModel:
    """A model in memory, as it is or with an adapter. Make one by `load`.

    Views of the same weights (`with_adapter`) may be used in turn; each sees to it that its own adapter is
    attached when it is asked something.

    Attributes:
        gradient_checkpointing: While training; None goes by the memory.
    """

    def __init__(self, loaded: LoadedWeights, adapter: Path | None = None) -> None:
        self._loaded, self._adapter = loaded, adapter
        self.fingerprint = adapter_fingerprint(loaded.fingerprint, adapter)
        self._key = "" if adapter is None else self.fingerprint
        self.processor, self.device, self.dtype = loaded.processor, loaded.device, loaded.dtype
        self.config = loaded.base.config
        self.gradient_checkpointing = loaded.gradient_checkpointing

    @classmethod
    def load(cls, model: str, **options: Any) -> HFModel:
        """Loads a model and its processor.

        Args:
            model: `pocket`, a folder, or a hub id.
            options: Fields of `LoadOptions`, as far as they differ from its defaults.

        Raises:
            UserError: There is no such model or device, it cannot be loaded, takes no images, has no chat
                template, or the profile does not fit it.
        """
        return cls(loading.load(model, loading.LoadOptions(**options)))

    @property
    def model(self) -> Any:
        """The PreTrainedModel, or the PeftModel around it; good until another view is used."""
        self._loaded.prefixes.clear()  # whoever asks for it needs the memory
        return self._loaded.attach(self._adapter, self._key)

    def with_adapter(self, adapter: Path | None) -> HFModel:
        """The same weights with an adapter, or without any for None.

        Raises:
            UserError: The folder holds no PEFT adapter in safetensors.
        """
        return HFModel(self._loaded, adapter)

    @property
    def ways(self) -> frozenset[str]:
        """What the model allows: `loop` (rows come and go, features are kept), `prefix` (beginnings, too)."""
        from stic_eval.models.probe import probe

        if self._loaded.ways is None:
            self._loaded.attach(self._adapter, self._key)
            self._loaded.ways = probe(self._loaded)
        return self._loaded.ways

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        """Answers requests as they come out of a stream, those of similar length together.

        Memory does not grow with the stream. On a CPU in float32 an answer does not depend on what it was
        computed beside (but for rounding, by far too small to change a token in practice); sampling is
        seeded by request.

        Yields:
            Every request with its answer, in the order in which answers are done.

        Raises:
            UserError: An image cannot be decoded, or a single request does not fit in memory.
        """
        if "loop" not in self.ways:
            from stic_eval.models.plain_generation import answers

            return answers(self._loaded, self._adapter, self._key, requests)
        from stic_eval.models.continuous_batching import Batcher
        from stic_eval.models.probe import prompter

        loaded = self._loaded
        loaded.attach(self._adapter, self._key)
        prefix = None
        if "prefix" in self.ways and loaded.reuse:
            prefix = 1 if loaded.reuse == "always" else _WORTHWHILE
        return Batcher(loaded, prompter(loaded), prefix).run(requests)

    def one_by_one(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        """Answers requests by transformers' own `generate`, each in a batch of its own and nothing reused.

        What `generate` answers can be held against it: in float32 it is the same, in 16 bits mostly.
        """
        from stic_eval.models.plain_generation import answers

        return answers(self._loaded, self._adapter, self._key, requests, alone=True)

    def likelihoods(self, asked: Iterable[GivenAnswer]) -> Iterator[tuple[GivenAnswer, Likelihood]]:
        """How likely given answers are: see `stic_eval.models.likelihood`.

        Raises:
            UserError: An image cannot be decoded, or a single row does not fit in memory.
        """
        from stic_eval.models.likelihood import likelihoods

        return likelihoods(self._loaded, self._adapter, self._key, asked)
