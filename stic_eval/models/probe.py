"""Which of the engine's ways a model allows, found out by comparing with transformers' own `generate`.

A decoder may see the question while it reads the image (PaliGemma), keep more than keys and values, or
count positions in a way of its own. Rather than knowing every family, the engine's logits for one prompt are
held against those of `generate`. A way that is wrong is wrong by far more than rounding.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from stic_eval.errors import UserError
from stic_eval.models import plain_generation, vision
from stic_eval.models.forward_passes import ActiveRow, Passes
from stic_eval.models.free_memory import out_of_memory, too_small
from stic_eval.models.kv_cache import Lanes, Pool
from stic_eval.models.prompt_tokens import Prompter
from stic_eval.types import Generation, ImageRef, Message, Request

if TYPE_CHECKING:
    from stic_eval.models.loading import LoadedWeights

_TOKENS = 4
# Root mean square difference of the logits, as a share of their spread. Rounding moves them by a hundredth or
# two in bfloat16, and by far less in float32; a way that is wrong, by as much as the spread itself.
_FLOAT32, _HALF = 1e-3, 0.15
_LOG = logging.getLogger(__name__)


def prompter(loaded: LoadedWeights) -> Prompter:
    """What makes prompts for a model; one for as long as it is in memory."""
    if loaded.prompter is None:
        config = loaded.base.config
        token = getattr(config, "image_token_id", None)
        token = getattr(config, "image_token_index", None) if token is None else token
        inner = vision.encoder(loaded.base)
        loaded.prompter = Prompter(loaded.processor, loaded.control, token, inner, share=bool(loaded.reuse))
    return loaded.prompter


def probe(loaded: LoadedWeights) -> frozenset[str]:
    """Compares, with the adapter that is attached.

    Returns:
        `loop` if prompts and tokens come out alike, `prefix` if a beginning may be shared as well.
    """
    if vision.encoder(loaded.base) is None:
        return frozenset()
    try:
        return _compare(loaded)
    except Exception as error:  # whatever a model does that does not fit
        if out_of_memory(error):
            raise too_small(loaded.device) from error
        if isinstance(error, UserError):
            raise
        _LOG.info("answered by transformers' generate: %s: %s", type(error).__name__, error)
        return frozenset()


def _compare(loaded: LoadedWeights) -> frozenset[str]:
    first, second = (_request(text) for text in ("Is anything red in this picture?", "What is it?"))
    batch = [plain_generation.render_request(loaded, second)]
    output, width = plain_generation.generate(
        loaded, loaded.adapter, loaded.adapter_key, batch, output_logits=True
    )
    expected = torch.stack([logits[0].float() for logits in output.logits])
    tokens = output.sequences[0, width:].tolist()[: len(expected)]
    maker, passes = prompter(loaded), Passes(loaded)
    with torch.inference_mode():
        other, prompt = maker.cut(maker.render([first, second]), None)
        features = passes.features([other, prompt])

        def agree(rows: list[ActiveRow], lanes: Lanes) -> bool:
            for token in tokens[:-1]:
                lanes.last = torch.full_like(lanes.last, token)
                passes.decode(rows, lanes)
            got = torch.cat(passes.trace or [])
            return _close(got, expected, _FLOAT32 if loaded.dtype == torch.float32 else _HALF)

        shared = False
        if prompt.group is other.group and len(prompt.group.beginning.ids):
            try:
                _, before = passes.prefill([other], features, Pool(1, len(other)))
                loaded.bytes_per_token = before.bytes_per_token
                passes.trace = []
                prefix = before.prefix(0, len(prompt.group.beginning.ids))
                shared = agree(*passes.prefill_rest([prompt], [prefix], Pool(1, len(prompt))))
            except Exception as error:
                if out_of_memory(error):
                    raise
                _LOG.info("no shared beginnings: %s: %s", type(error).__name__, error)
        if shared:  # it goes through everything that a whole prompt does
            return frozenset({"loop", "prefix"})
        passes.trace = []
        rows, lanes = passes.prefill([prompt], features, Pool(1, len(prompt)))
        loaded.bytes_per_token = lanes.bytes_per_token
        if agree(rows, lanes):
            return frozenset({"loop"})
        _LOG.info("answered by transformers' generate: logits differ")
        return frozenset()


def _close(got: torch.Tensor, expected: torch.Tensor, share: float) -> bool:
    """Whether logits of shape (tokens, vocabulary) differ, on average, by at most a share of their spread."""
    finite = expected.isfinite()
    if got.shape != expected.shape or not got[finite].isfinite().all():
        return False
    return bool((got[finite] - expected[finite]).square().mean().sqrt() <= share * expected[finite].std())


def _request(text: str) -> Request:
    from PIL import Image

    gradient = Image.linear_gradient("L").resize((96, 64))
    picture = Image.merge("RGB", (gradient, gradient.transpose(Image.Transpose.ROTATE_180), gradient))
    return Request(
        (Message("user", text),), (ImageRef("probe", "probe", lambda: picture),), Generation(_TOKENS)
    )
