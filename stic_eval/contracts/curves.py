"""What a stage says is drawn of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Curves:
    """What is drawn of a stage's training.

    Attributes:
        title: Of the figure's part, which stages with the same curves share.
        measures: Column of `log.jsonl` -> title, in the order of the panels.
    """

    title: str
    measures: Mapping[str, str]


PREFERENCE_CURVES = Curves(
    "Preference training",
    {"loss": "Loss", "rewards/margins": "Reward margin", "rewards/accuracies": "Reward accuracy"},
)
TUNING_CURVES = Curves("Fine-tuning", {"loss": "Loss", "mean_token_accuracy": "Token accuracy"})
