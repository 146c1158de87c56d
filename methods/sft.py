"""Fine-tuning alone: the items of STIC's stage 2 as they are, a new adapter, direct answers.

What STIC gains over this comes from its first stage and its descriptions, not from more fine-tuning.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from stic_eval.contracts.method import Data, Method, Plan
from stic_eval.selftrain import stages
from stic_eval.training.hyperparameters import FineTuning
from stic_eval.training.lora import LoraSettings


class SftConfig(BaseModel):
    """STIC's values, so that the two differ in one thing."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stage2: FineTuning = FineTuning()  # as STIC's stage 2, without what concerns descriptions
    lora: LoraSettings = LoraSettings()


def plan(config: SftConfig, data: Data) -> Plan:
    """One stage, or none without items."""
    two = config.stage2
    return Plan(stages.infused_sft(data, tuning=two, lora=config.lora) if two.items else None, "direct")


NOTES = {"training": "fine-tuning on instruction data as it is", "reads": "instruction data"}
method = Method("sft", "SFT only", plan, SftConfig, notes=NOTES)
