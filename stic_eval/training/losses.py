"""Preference losses: tensors in, tensors out, every constant an argument."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from stic_eval import plugins, registry
from stic_eval.contracts.loss import Logps, Loss, Tensor
from stic_eval.errors import Contained, UserError

if TYPE_CHECKING:
    from stic_eval.training.hyperparameters import PreferenceLoss


# Which losses are of single pairs, by identity and constants: what is called need not have a hash.
_looked_at: dict[tuple[Any, ...], Loss] = {}


def regularizer(policy_chosen_logps: Tensor, *, alpha: float, tokens: Tensor | None = None) -> Tensor:
    """What the paper adds to DPO: `-alpha * log p(y_w)`, which keeps the preferred answer likely.

    Args:
        policy_chosen_logps: Shape (batch,): log-probability of the preferred answer under the model that
            is trained, summed over the answer's tokens, in nats.
        alpha: Weight; the paper's is 1/1024.
        tokens: Shape (batch,): the answers' tokens, for the mean over them instead of the paper's sum. An
            answer without any counts 0.

    Returns:
        Shape (batch,), float32.
    """
    logps = policy_chosen_logps.float()
    return -alpha * (logps if tokens is None else logps / tokens.clamp(min=1))


def runner_up(logits: Tensor, labels: Tensor) -> Tensor:
    """At each position the most likely token, or the second most likely where the label is the first.

    Source: the released code of Deng et al. 2024, whose trainer takes the log-probabilities of the
    dispreferred answer of these tokens instead of the answer's own.

    Args:
        logits: Shape (positions, vocabulary): of what comes next.
        labels: Shape (positions,): token that the answer has there.

    Returns:
        Shape (positions,): token ids, none of them the label.
    """
    first, second = logits.topk(2, dim=-1).indices.unbind(-1)
    return second.where(first == labels, first)


def weighted_sum(of: Logps, loss: PreferenceLoss) -> Tensor:
    """The sum of a setting's losses, each by its weight; shape (pairs,), without the regulariser."""
    parts = [
        weight * found.compute(of, loss.beta, **loss.constants_of(found)) for weight, found in loss.parts()
    ]
    return sum(parts[1:], parts[0])


def check_per_pair(loss: PreferenceLoss) -> None:
    """Makes sure on made-up pairs that a pair's value depends on that pair alone; once for its constants.

    Raises:
        UserError: One of the losses cannot be computed, gives no value for each pair, or gives others when it
            sees other pairs or sees them again. Names the loss and its file.
    """
    for _, found in loss.parts():
        constants = loss.constants_of(found)
        key = (id(found), loss.beta, *sorted(constants.items()))
        if _looked_at.get(key) is not found:
            _look_at(found, loss.beta, constants)
            _looked_at[key] = found


def _look_at(loss: Loss, beta: float, constants: Mapping[str, float]) -> None:
    import torch

    file = registry.losses().file(loss.name)
    where = f"loss {loss.name}" + (f" ({plugins.display_path(file)})" if file else "")
    draw = torch.Generator().manual_seed(0)
    logps = [-50 * torch.rand(4, generator=draw) for _ in range(4)]
    whole = Logps(*logps, *(torch.arange(start, start + 4) for start in (7, 5)))
    pairs = [Logps(*(value[at : at + 1] for value in vars(whole).values())) for at in range(4)]
    try:
        with Contained():
            together, *alone = [loss.compute(of, beta, **constants) for of in (whole, *pairs)]
        tensors = all(isinstance(value, torch.Tensor) for value in (together, *alone))
        per_pair = tensors and together.shape == (4,)
        if per_pair:
            one_by_one = torch.cat([value.reshape(-1) for value in alone])
            per_pair = torch.allclose(together, one_by_one, rtol=1e-4, atol=1e-6)
    except Exception as error:  # of a plug-in
        raise UserError(f"{where}: cannot be computed on made-up pairs: {registry.explain(error)}") from error
    if not tensors:
        kinds = f"`Loss.compute` gives a {type(together).__name__}"
        raise UserError(f"{where}: {kinds}; it has to be a tensor with a value for each pair")
    if not per_pair:
        raise UserError(
            f"{where}: its value for a pair depends on more than the pair (on the others of a "
            "batch, or on earlier ones), so the size of a batch would change what is learned"
        )


def _loss(title: str, **constants: tuple[float, float, float]) -> Callable[[Callable[..., Tensor]], Loss]:
    return lambda compute: Loss(compute.__name__, compute, title, constants)


def _log_sigmoid(values: Tensor) -> Tensor:
    from torch.nn.functional import logsigmoid

    return logsigmoid(values)


# ---------------------------------------------------------------- those of TRL that are of single pairs


@_loss("DPO, Rafailov et al. 2023 (arXiv 2305.18290), equation 7")
def sigmoid(of: Logps, beta: float) -> Tensor:
    return -_log_sigmoid(beta * of.margin)


@_loss("DPO of means over tokens")
def sigmoid_norm(of: Logps, beta: float) -> Tensor:
    return -_log_sigmoid(beta * of.mean_margin)


@_loss("SLiC, Zhao et al. 2023 (arXiv 2305.10425)")
def hinge(of: Logps, beta: float) -> Tensor:
    return (1 - beta * of.margin).relu()


@_loss("IPO, Azar et al. 2023 (arXiv 2310.12036), equation 17, of means over tokens")
def ipo(of: Logps, beta: float) -> Tensor:
    return (of.mean_margin - 1 / (2 * beta)) ** 2


@_loss("EXO, Ji et al. 2024 (arXiv 2402.00856), equation 16", label_smoothing=(1e-3, 0, 0.5))
def exo_pair(of: Logps, beta: float, label_smoothing: float) -> Tensor:
    log_w, log_l = _log_sigmoid(beta * of.margin), _log_sigmoid(-beta * of.margin)
    won = log_w.exp() * (log_w - math.log1p(-label_smoothing))
    return won + log_l.exp() * (log_l - math.log(label_smoothing))


@_loss("NCA, Chen et al. 2024 (arXiv 2402.05369)")
def nca_pair(of: Logps, beta: float) -> Tensor:
    chosen, rejected = beta * of.chosen_gain, beta * of.rejected_gain
    return -_log_sigmoid(chosen) - 0.5 * _log_sigmoid(-chosen) - 0.5 * _log_sigmoid(-rejected)


@_loss("robust DPO, Chowdhury et al. 2024 (arXiv 2403.00409)", label_smoothing=(0.1, 0, 0.5))
def robust(of: Logps, beta: float, label_smoothing: float) -> Tensor:
    clean, flipped = _log_sigmoid(beta * of.margin), _log_sigmoid(-beta * of.margin)
    return (label_smoothing * flipped - (1 - label_smoothing) * clean) / (1 - 2 * label_smoothing)


@_loss("BCO, Jung et al. 2024 (arXiv 2404.04656), without its running mean")
def bco_pair(of: Logps, beta: float) -> Tensor:
    return -_log_sigmoid(beta * of.chosen_gain) - _log_sigmoid(-beta * of.rejected_gain)


@_loss("SPPO with hard labels, Wu et al. 2024 (arXiv 2405.00675), equation 4.7")
def sppo_hard(of: Logps, beta: float) -> Tensor:
    return (of.chosen_gain - 0.5 / beta) ** 2 + (of.rejected_gain + 0.5 / beta) ** 2


@_loss("APO-zero, D'Oosterlinck et al. 2024 (arXiv 2408.06266), equation 7")
def apo_zero(of: Logps, beta: float) -> Tensor:
    return 1 - (beta * of.chosen_gain).sigmoid() + (beta * of.rejected_gain).sigmoid()


@_loss("APO-down, D'Oosterlinck et al. 2024 (arXiv 2408.06266), equation 8")
def apo_down(of: Logps, beta: float) -> Tensor:
    return (beta * of.chosen_gain).sigmoid() + 1 - (beta * of.margin).sigmoid()


@_loss("DiscoPOP, Lu et al. 2024 (arXiv 2406.08414), equation 5", discopop_tau=(0.05, 0, math.inf))
def discopop(of: Logps, beta: float, discopop_tau: float) -> Tensor:
    logits = beta * of.margin
    share = (logits / discopop_tau).sigmoid()
    return -_log_sigmoid(logits) * (1 - share) + (-logits).exp() * share
