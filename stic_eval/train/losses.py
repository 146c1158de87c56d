"""The preference loss: tensors in, tensors out, every constant an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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


def regularized_dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float,
    alpha: float,
) -> Tensor:
    """STIC's loss of each pair: `-log sigmoid(beta * ((w - rw) - (l - rl))) - alpha * w`.

    Source: Deng et al. 2024 (arXiv 2405.19716), algorithm 1; with alpha = 0 it is DPO, Rafailov et al.
    2023 (arXiv 2305.18290), equation 7.

    Args:
        policy_chosen_logps: w, shape (batch,): summed log-probability of the preferred answer, nats.
        policy_rejected_logps: l, shape (batch,): the same of the dispreferred answer.
        ref_chosen_logps: rw, shape (batch,): w under the reference model.
        ref_rejected_logps: rl, shape (batch,): l under the reference model.
        beta: How strongly the model is held to the reference.
        alpha: Weight of the regulariser.

    Returns:
        Shape (batch,), float32. Training takes its mean.
    """
    from torch.nn.functional import logsigmoid

    chosen = policy_chosen_logps.float() - ref_chosen_logps.float()
    rejected = policy_rejected_logps.float() - ref_rejected_logps.float()
    return -logsigmoid(beta * (chosen - rejected)) + regularizer(policy_chosen_logps, alpha=alpha)
