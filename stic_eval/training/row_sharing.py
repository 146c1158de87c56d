"""What rows of a training step have in common, computed once instead of for each of them.

The two answers of a preference pair follow the same image and prompt, and policy and reference see them
through the same frozen vision tower. So images are encoded once a step, and a pair is one row, `prompt,
preferred answer, dispreferred answer`, whose attention keeps the answers apart: each sees the prompt and
itself, at the positions that it has in a row of its own. Log-probabilities are those of separate rows but
for rounding. (Wang and Hegde 2024, arXiv 2410.20305, share prompts in this way.)

The head is applied to what predicts an answer's token, and to nothing else. TRL does so where it has its
Triton kernels; elsewhere it scores every position, all image tokens included, and then drops them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any

from stic_eval.models import vision
from stic_eval.models.free_memory import out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

# (states, their labels, whether each is of a dispreferred answer): changes labels in place.
Choose = Callable[["Tensor", "Tensor", "Tensor"], None]

_WORTH = 0.9  # joined rows must have at most so much of the separate rows' places
# Between log-probabilities of tokens by joined and by separate rows, in nats: the largest difference that is
# rounding in float32, and the largest mean difference that is rounding in 16 bits.
_FLOAT32_MOST, _HALF_MOST = 1e-3, 0.05
_TARGETS = ("labels", "completion_mask")  # what of a batch the model does not take, or takes apart
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sharing:
    """What rows of a step share.

    Attributes:
        images: Whether images are encoded once for all rows and passes, by a tower that is not trained.
        pairs: Whether the two answers to a prompt stand in one row.
    """

    images: bool
    pairs: bool


PAIRS = (
    Sharing(images=True, pairs=True),
    Sharing(images=False, pairs=True),
    Sharing(images=True, pairs=False),
)
ROWS = (Sharing(images=True, pairs=False),)


@dataclass(frozen=True)
class TokenLayout:
    """Where the tokens of rows (preferred, then dispreferred answers) stand in rows of pairs.

    Attributes:
        source: Shape (pairs, width): which token of the separate rows, flattened, stands there.
        mask: Shape (pairs, 1, width, width), bool: which place (last axis) each place attends to.
        places: Shape (answer tokens,): the place, in the flattened rows of pairs, that predicts the token;
            in the order of the separate rows.
    """

    source: Tensor
    mask: Tensor
    places: Tensor


def layout(input_ids: Tensor, attention_mask: Tensor, answer_mask: Tensor) -> TokenLayout | None:
    """How to join the rows of a batch in pairs.

    Args:
        input_ids: Shape (2 * pairs, tokens), padded on the right; row `pairs + i` is the other answer to the
            prompt of row `i`.
        attention_mask: The same shape; 0 on padding.
        answer_mask: The same shape; 1 on tokens of answers.

    Returns:
        None where rows do not begin alike, have no answer, or little would be saved.
    """
    import torch

    ids, answers = input_ids.cpu(), answer_mask.cpu().bool()
    rows, tokens = ids.shape
    pairs = rows // 2
    lengths = attention_mask.sum(dim=1).tolist()
    if not answers.any(dim=1).all():
        return None
    firsts = answers.int().argmax(dim=1).tolist()
    starts = [min(firsts[i], firsts[pairs + i]) for i in range(pairs)]
    if any(n == 0 or not torch.equal(ids[i, :n], ids[pairs + i, :n]) for i, n in enumerate(starts)):
        return None
    widths = [lengths[i] + lengths[pairs + i] - start for i, start in enumerate(starts)]
    width = max(widths)
    if width > _WORTH * 2 * tokens:
        return None
    source = torch.empty(pairs, width, dtype=torch.long)
    part = torch.full((pairs, width), -1)  # 0 in the prompt, 1 and 2 in the answers
    places = []
    for i, start in enumerate(starts):
        left, other = lengths[i], lengths[pairs + i] - start
        source[i] = i * tokens + left - 1  # padding repeats an answer's token: an image's would be counted
        source[i, :left] = torch.arange(left) + i * tokens
        source[i, left : left + other] = torch.arange(other) + (pairs + i) * tokens + start
        part[i, :start], part[i, start:left], part[i, left : left + other] = 0, 1, 2
    for row in range(rows):
        i, before = row % pairs, answers[row].nonzero().flatten() - 1
        moved = before if row < pairs else before.where(before < starts[i], before - starts[i] + lengths[i])
        places.append(moved + i * width)
    seen = (part[:, None, :] == 0) | (part[:, None, :] == part[:, :, None])
    mask = seen.tril() | torch.eye(width, dtype=torch.bool)
    device = input_ids.device
    return TokenLayout(source.to(device), mask[:, None].to(device), torch.cat(places).to(device))


def join_rows(model: Any, inputs: Mapping[str, Any], how: TokenLayout) -> dict[str, Any]:
    """A model's inputs for rows of pairs, from those for separate rows.

    Args:
        model: The model, for its positions and kind of attention.
        inputs: `input_ids`, `attention_mask` and others of their shape, images' inputs for each *pair*.
    """
    import torch

    ids = inputs["input_ids"]
    own = inputs.get("position_ids")
    if own is None:
        own = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
    moved = {
        name: value.flatten()[how.source] if _per_token(value, ids) else value
        for name, value in inputs.items()
    }
    moved["position_ids"] = own.flatten(-2)[..., how.source]  # (pairs, width), or (axes, pairs, width)
    moved["attention_mask"] = how.mask
    if model.config.get_text_config()._attn_implementation == "eager":
        dtype = model.get_input_embeddings().weight.dtype
        blocked = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=ids.device)
        moved["attention_mask"] = torch.zeros_like(blocked).where(how.mask, blocked)
    return moved


def joinable(model: Any, inputs: Mapping[str, Any]) -> bool:
    """Whether a decoder attends in plain causal order, wherever the mask lets it.

    Not so where image tokens see each other both ways, where states run along the row or attention goes
    to another encoder's states, and with kernels that take no mask. Nor is a pair to share a row where the
    loss has a part that counts how often experts are chosen, for prompts as well.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    return (
        config._attn_implementation in ("sdpa", "eager")
        and not (kinds or model.config.is_encoder_decoder or getattr(config, "router_aux_loss_coef", 0))
        and "token_type_ids" not in inputs
        # A window counts places, and in rows of pairs an answer stands further from its prompt.
        and (window is None or inputs["input_ids"].shape[1] <= window)
    )


def arrange(
    model: Any, inputs: Mapping[str, Any], way: Sharing, copies: int, how: TokenLayout | None
) -> dict[str, Any] | None:
    """A batch's inputs in a way of sharing.

    Args:
        model: The model, with an adapter in it or without.
        inputs: Of a batch of separate rows, on the model's device.
        copies: How many rows, each a batch's share apart, are about the same image.
        how: The layout of pairs, where these are shared.

    Returns:
        Inputs, with `layout` for `answers_only` where pairs share rows; None if images have to stay in.
    """
    import torch

    ids = inputs["input_ids"]
    part = vision.encoder(model)
    if way.images and (part is None or not vision.frozen(model)):
        return None
    images = {name: value[: len(value) // copies] for name, value in inputs.items() if _per_image(value, ids)}
    arranged = {name: value for name, value in inputs.items() if name not in images}
    if way.pairs:
        arranged["layout"] = how
    # A model that numbers positions by the images' sizes is asked while these are there, of separate rows.
    positions = getattr(model.base_model, "compute_3d_position_ids", None)
    if positions is not None:
        asked = {name: inputs.get(name) for name in signature(positions).parameters}
        arranged["position_ids"] = positions(**asked)
    if not way.images:
        return {**arranged, **images}
    with torch.no_grad():
        (features,) = vision.encode(model, [images])
    return {**arranged, "mm_encoder_outputs": vision.join_features([features] * (1 if way.pairs else copies))}


def share(
    model: Any,
    inputs: Mapping[str, Any],
    ways: Sequence[Sharing],
    known: dict[Sharing, bool],
    how: TokenLayout | None = None,
) -> dict[str, Any]:
    """A batch in the first way that is found to give the model's own log-probabilities; else as it is.

    What a decoder makes of masks, positions and encoded images no list of models could tell, so each way is
    compared with separate rows once, on the first batch that it fits. That costs two forward passes.

    Args:
        model: The adapter around a model, as `answers_only` has left it.
        inputs: Of separate rows, with `labels` or `completion_mask`.
        known: What has been found out about them; added to.
        how: The layout of the batch's pairs; None where these cannot share a row.
    """
    base = model.get_base_model()
    copies = 1 if "labels" in inputs else 2
    for way in ways:
        if known.get(way) is False or (way.pairs and (how is None or not joinable(base, inputs))):
            continue  # the batch may not fit the way, whatever others did
        if way in known:
            arranged = arrange(base, inputs, way, copies, how)
        else:
            arranged = _try(model, inputs, way, copies, how)
            known[way] = arranged is not None
        if arranged is not None:
            return arranged
    return dict(inputs)


def _try(
    model: Any, inputs: Mapping[str, Any], way: Sharing, copies: int, how: TokenLayout | None
) -> dict[str, Any] | None:
    import torch

    base = model.get_base_model()
    labels = inputs.get("labels")
    if labels is None:
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    training = model.training
    model.eval()
    try:
        arranged = arrange(base, inputs, way, copies, how)
        if arranged is None:
            return None
        with torch.no_grad():
            taken = [{n: v for n, v in batch.items() if n not in _TARGETS} for batch in (inputs, arranged)]
            found = [model(**batch, labels=labels, fused_lm_head=True) for batch in taken]
    except Exception as error:  # whatever a model's own code makes of inputs that it does not expect
        if out_of_memory(error):
            raise
        _LOG.info("%s: not for this model: %s", way, error)
        return None
    finally:
        model.train(training)
    apart = (found[0].log_probs - found[1].log_probs)[labels[:, 1:] != -100].float().abs()
    half = any(parameter.dtype != torch.float32 for parameter in base.parameters())
    if not len(apart):
        return None  # no answer to compare
    if not bool(apart.mean() <= _HALF_MOST if half else apart.max() <= _FLOAT32_MOST):
        _LOG.info("%s: not for this model: log p is up to %g off", way, apart.max().item())
        return None
    return arranged


def answers_only(model: Any, choose: Choose | None = None) -> None:
    """Makes a model whose forward TRL has fused with the head score answers' tokens and nothing else.

    Forward then takes `layout` too: rows of pairs, and labels and results as of separate rows.

    Args:
        model: The model. Its forward is replaced, which `lent_model` undoes.
        choose: May change the labels, knowing the states that predict them. There are no logits of whole rows
            and no further forward pass: TRL reads labels only after the decoder.
    """
    fused = model.forward

    @wraps(fused)
    def forward(
        *args: Any,
        labels: Any = None,
        fused_lm_head: bool = False,
        layout: TokenLayout | None = None,
        **kwargs: Any,
    ) -> Any:
        if not fused_lm_head:
            return fused(*args, labels=labels, **kwargs)
        answers = labels[:, 1:] != -100
        own = labels[:, 1:][answers]
        if not len(own):  # what TRL returns is zero, and part of the graph all the same
            return fused(*args, labels=labels, fused_lm_head=True, **kwargs)

        if layout is not None:
            kwargs = join_rows(model, kwargs, layout)

        def narrow(module: Any, inputs: Any, output: Any) -> Any:
            states = output.last_hidden_state
            if layout is None:
                states = states[:, :-1][answers.to(states.device)]
            else:
                states = states.flatten(0, 1)[layout.places.to(states.device)]
            if choose is not None:
                choose(states, own, answers.nonzero()[:, 0] >= len(answers) // 2)
            output.last_hidden_state = states[None]
            return output

        hook = model.base_model.register_forward_hook(narrow)
        try:
            output = fused(*args, shift_labels=own[None], fused_lm_head=True, **kwargs)
        finally:
            hook.remove()
        shape = (1, len(own))
        for name, value in list(output.items()):
            if hasattr(value, "shape") and value.shape == shape:
                places = answers.to(value.device)
                output[name] = value.new_zeros(places.shape).masked_scatter(places, value)
        return output

    model.forward = forward


def _per_token(value: Any, ids: Tensor) -> bool:
    return hasattr(value, "shape") and value.shape == ids.shape


def _per_image(value: Any, ids: Tensor) -> bool:
    return hasattr(value, "shape") and value.shape != ids.shape
