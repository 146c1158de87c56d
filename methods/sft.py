"""Fine-tuning alone: the items of STIC's stage 2 as they are, a new adapter, direct answers.

What STIC gains over this comes from its first stage and its descriptions, not from more fine-tuning.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from stic_eval.selftrain import stages
from stic_eval.selftrain.method import Data, Method, Plan
from stic_eval.train.lora import LoraSettings
from stic_eval.train.settings import Training


class Stage2(Training):
    """As STIC's stage 2, without what concerns descriptions."""

    items: int = Field(default=5000, ge=1)
    learning_rate: float = Field(default=2e-5, gt=0)
    batch_size: int = Field(default=64, ge=1)
    max_length: int | None = Field(default=2048, ge=1)


class SftConfig(BaseModel):
    """STIC's values, so that the two differ in one thing."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stage2: Stage2 = Stage2()
    lora: LoraSettings = LoraSettings()


def plan(config: SftConfig, data: Data) -> Plan:
    """One stage."""
    two = config.stage2
    adapter = stages.infused_sft(
        data, items=two.items, training=two, lora=config.lora, max_length=two.max_length
    )
    return Plan(adapter, "direct")


method = Method("sft", "SFT only", plan, SftConfig)
