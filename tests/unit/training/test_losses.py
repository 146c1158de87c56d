"""Preference losses: the paper's against numbers worked out from its formula, TRL's against TRL's code."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl import DPOTrainer

from stic_eval import config, registry
from stic_eval.contracts.loss import Logps, Loss
from stic_eval.errors import UserError
from stic_eval.training.hyperparameters import PreferenceLoss
from stic_eval.training.losses import check_per_pair, regularizer, runner_up, weighted_sum


def papers_loss(
    w: torch.Tensor, lo: torch.Tensor, rw: torch.Tensor, rl: torch.Tensor, *, beta: float, alpha: float
) -> torch.Tensor:
    tokens = torch.ones_like(w)
    of = Logps(w, lo, rw, rl, tokens, tokens)
    return weighted_sum(of, PreferenceLoss(beta=beta)) + regularizer(w, alpha=alpha)


def by_hand(w: float, lo: float, rw: float, rl: float, beta: float, alpha: float) -> float:
    return math.log(1 + math.exp(-beta * ((w - rw) - (lo - rl)))) - alpha * w


def test_each_pair_has_the_papers_loss() -> None:
    w, lo = [-12.0, -80.5, -3.25], [-14.0, -60.0, -3.25]
    rw, rl = [-13.0, -80.0, -3.25], [-13.5, -62.0, -3.25]
    loss = papers_loss(*map(torch.tensor, (w, lo, rw, rl)), beta=0.1, alpha=1 / 1024)
    expected = [by_hand(*values, 0.1, 1 / 1024) for values in zip(w, lo, rw, rl, strict=True)]
    assert loss.shape == (3,)
    assert loss.tolist() == pytest.approx(expected, rel=1e-6)
    # Worked out once outside of this program: log(1 + e^-0.15) + 12/1024.
    assert loss[0].item() == pytest.approx(0.6209571 + 0.01171875, abs=1e-6)


def test_without_alpha_it_is_dpo_and_starts_at_log_two() -> None:
    same = torch.tensor([-5.0, -9.0])
    assert papers_loss(same, same, same, same, beta=0.3, alpha=0.0).tolist() == pytest.approx(
        [math.log(2)] * 2
    )


def test_gradients_push_the_answers_apart() -> None:
    w, lo = (torch.tensor([-5.0], requires_grad=True) for _ in range(2))
    ref = torch.tensor([-5.0])
    papers_loss(w, lo, ref, ref, beta=0.1, alpha=0.25).sum().backward()
    assert w.grad is not None
    assert lo.grad is not None
    assert w.grad.item() == pytest.approx(-0.1 * 0.5 - 0.25)
    assert lo.grad.item() == pytest.approx(0.1 * 0.5)


def test_half_precision_is_computed_in_float32() -> None:
    low = torch.tensor([-1000.0], dtype=torch.bfloat16)
    added = regularizer(low, alpha=1 / 1024)
    assert added.dtype == torch.float32
    assert added.item() == pytest.approx(1000 / 1024)


def test_the_regulariser_can_be_a_mean_over_tokens() -> None:
    logps, tokens = torch.tensor([-12.0, -3.0, 0.0]), torch.tensor([4, 1, 0])
    assert regularizer(logps, alpha=0.5).tolist() == [6.0, 1.5, 0.0]
    assert regularizer(logps, alpha=0.5, tokens=tokens).tolist() == [1.5, 1.5, 0.0]


@given(st.data())
def test_a_runner_up_is_the_likeliest_token_that_the_answer_does_not_have(data: st.DataObject) -> None:
    vocabulary = data.draw(st.integers(2, 7))
    rows = data.draw(st.lists(st.permutations(range(vocabulary)), min_size=1, max_size=5))
    labels = [data.draw(st.integers(0, vocabulary - 1)) for _ in rows]
    found = runner_up(torch.tensor(rows, dtype=torch.float32), torch.tensor(labels)).tolist()
    for logits, label, token in zip(rows, labels, found, strict=True):
        others = {i: value for i, value in enumerate(logits) if i != label}
        assert token == max(others, key=others.__getitem__)


# ---------------------------------------------------------------- TRL's


class _Passes(torch.nn.Module):
    """In the place of a model: log-probabilities of tokens, of the policy, then of the reference."""

    is_gradient_checkpointing = False

    def __init__(self, *logps: torch.Tensor) -> None:
        super().__init__()
        self.logps = iter(logps)

    def forward(self, **inputs: Any) -> Any:
        logps, nothing = next(self.logps), torch.zeros(inputs["input_ids"].shape)[:, 1:]
        return SimpleNamespace(log_probs=logps, entropy=nothing, mean_logits=nothing, is_top1=nothing > 0)


def of_trl(
    mix: Mapping[str, float], beta: float, constants: Mapping[str, float], *logps: torch.Tensor
) -> Any:
    """What TRL's own trainer computes of these tokens, shape (chosen and rejected, tokens), 0 outside."""
    trainer = DPOTrainer.__new__(DPOTrainer)
    accelerator = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    known = {
        "model": (model := _Passes(*logps)), "ref_model": model, "ld_alpha": None,
        "accelerator": accelerator, "aux_loss_enabled": False, "precompute_ref_logps": False,
        "f_divergence_type": "reverse_kl", "loss_types": [*mix], "loss_weights": [*mix.values()],
        "beta": beta, "label_smoothing": constants.get("label_smoothing", 0.0), "use_weighting": False,
        "args": SimpleNamespace(
            discopop_tau=constants.get("discopop_tau"), gradient_checkpointing_kwargs=None, max_length=None
        ),
        "_metrics": {"train": defaultdict(list)}, "_total_train_tokens": 0, "_tp_size": 1,
    }  # fmt: skip
    trainer.__dict__.update(known)
    mask = torch.cat([torch.zeros(len(logps[0]), 1, dtype=torch.long), (logps[0] != 0).long()], dim=1)
    inputs = {"input_ids": torch.ones_like(mask), "attention_mask": mask, "completion_mask": mask}
    return trainer._compute_loss(model, inputs, return_outputs=False)


def random_logps(pairs: int = 5, tokens: int = 7) -> list[torch.Tensor]:
    """Tokens' log-probabilities of answers of different lengths, by policy and reference."""
    draw = torch.Generator().manual_seed(pairs)
    lengths = torch.randint(1, tokens + 1, (2 * pairs, 1), generator=draw)
    there = torch.arange(tokens) < lengths
    both = [torch.randn(2 * pairs, tokens, generator=draw) for _ in range(2)]
    return [(-0.1 - values.abs() * there) * there for values in both]


MIXES: list[dict[str, float]] = [
    *({name: 1.0} for name in registry.losses().own()),
    {"sigmoid": 0.8, "bco_pair": 0.2},
    {"ipo": 2.0, "robust": 0.5, "hinge": 1.5},
]


@pytest.mark.parametrize("mix", MIXES, ids="+".join)
@pytest.mark.parametrize("beta", [0.05, 0.7])
def test_losses_and_their_gradients_are_trls_own(mix: dict[str, float], beta: float) -> None:
    policy, reference = random_logps()
    constants = {"label_smoothing": 0.2} if {"robust", "exo_pair"} & {*mix} else {}
    constants |= {"discopop_tau": 0.3} if "discopop" in mix else {}
    loss = PreferenceLoss(loss=mix, beta=beta, loss_constants=constants)
    found, theirs = (policy.clone().requires_grad_() for _ in range(2))
    counts = (policy != 0).sum(dim=1).chunk(2)
    ours = weighted_sum(Logps(*found.sum(1).chunk(2), *reference.sum(1).chunk(2), *counts), loss)
    expected = of_trl(mix, beta, constants, theirs, reference)
    assert ours.shape == (5,)
    torch.testing.assert_close(ours.mean(), expected)
    ours.mean().backward()
    expected.backward()
    assert found.grad is not None and found.grad.abs().max() > 1e-6
    torch.testing.assert_close(found.grad, theirs.grad)
    check_per_pair(loss)


def test_every_loss_of_trl_is_one_of_ours_or_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match="Unknown loss type") as caught:
        of_trl({"nothing": 1.0}, 0.1, {}, *random_logps())
    theirs = set(re.findall(r"'(\w+)'", str(caught.value)))
    refused = theirs - set(registry.losses().own())
    assert refused == {"aot", "aot_unpaired", "sft"}
    assert set(registry.losses().own()) <= theirs
    for name in refused:
        with pytest.raises(UserError, match=rf"^-o stic.stage1.loss '{name}': {name} .* micro-batch") as said:
            config.load(flags={"methods": ["stic"]}, overrides=[f"stage1.loss={name}"])
        assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["stage1.loss=ipoo"], 'ipoo is not a loss; did you mean "ipo"?'),
        (["stage1.loss={ipo: 0}"], "above 0"),
        (["stage1.loss={ipo: -1}"], "the weight of ipo is negative"),
        (["stage1.loss_constants.label_smoothing=0.1"], "sigmoid has no label_smoothing"),
        (["stage1.loss=robust", "stage1.loss_constants.label_smoothing=0.5"], "above 0 and below 0.5"),
        (["stage1.loss=robust", "stage1.loss_constants.smoothing=0.1"], "(there are label_smoothing)"),
    ],
)
def test_a_wrong_loss_is_one_line(settings: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        config.load(flags={"methods": ["stic"]}, overrides=settings)
    assert said in str(caught.value)
    assert str(caught.value).startswith("-o stic.stage1") and "\n" not in str(caught.value)


def _raising(of: Logps, beta: float) -> torch.Tensor:
    raise ValueError("no such\nfield")


def _number(of: Logps, beta: float) -> float:
    return beta


def _of_two_lengths(of: Logps, beta: float) -> torch.Tensor:
    return of.margin if len(of.margin) > 1 else torch.zeros(3)


def _refused(compute: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(PreferenceLoss, "parts", lambda self: [(1.0, Loss("mine", compute))])
    with pytest.raises(UserError) as caught:
        check_per_pair(PreferenceLoss())
    return str(caught.value)


@pytest.mark.parametrize(
    ("compute", "said"),
    [
        (_raising, "loss mine: cannot be computed on made-up pairs: ValueError: no such"),
        (lambda of, beta: of.pairs, "Logps' object has no attribute 'pairs'"),
        (_number, "loss mine: `Loss.compute` gives a float; it has to be a tensor"),
        (_of_two_lengths, "loss mine: cannot be computed on made-up pairs: RuntimeError: The size of tensor"),
    ],
)
def test_a_loss_that_cannot_be_computed_is_refused_in_one_line(
    compute: Callable[..., Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = _refused(compute, monkeypatch)
    assert said in message and "\n" not in message


def test_a_loss_is_looked_at_once_for_its_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[float, float]] = []

    class Mine:
        """Callable, and without a hash."""

        __hash__ = None  # type: ignore[assignment]

        def __call__(self, of: Logps, beta: float, tau: float) -> torch.Tensor:
            calls.append((beta, tau))
            return of.margin * beta * tau

    found = Loss("mine", Mine(), constants={"tau": (1.0, 0, 9)})
    monkeypatch.setattr(PreferenceLoss, "parts", lambda self: [(1.0, found)])
    losses = [PreferenceLoss(), PreferenceLoss(alpha=0), PreferenceLoss(beta=0.5)]
    losses.append(PreferenceLoss(loss_constants={"tau": 2.0}))
    for loss in losses:
        check_per_pair(loss)
    once = [pair for number, pair in enumerate(calls) if number == 0 or pair != calls[number - 1]]
    assert once == [(0.1, 1.0), (0.5, 1.0), (0.1, 2.0)] and len(calls) == 3 * 5
    found = Loss("mine", Mine(), constants=found.constants)  # its file has changed
    check_per_pair(losses[0])
    assert len(calls) == 4 * 5


def _mean_of_batch(of: Logps, beta: float) -> torch.Tensor:
    return of.margin - of.margin.mean()


def _scalar(of: Logps, beta: float) -> torch.Tensor:
    return of.margin.mean()


@pytest.mark.parametrize("compute", [_mean_of_batch, _scalar])
def test_a_loss_that_looks_at_other_pairs_is_refused(
    compute: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = _refused(compute, monkeypatch)
    assert message.startswith("loss mine: its value for a pair depends on more than the pair")
