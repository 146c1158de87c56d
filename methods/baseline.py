"""The model as it is, answering directly: what everything is compared with."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from stic_eval.contracts.method import Data, Method, Plan


class BaselineConfig(BaseModel):
    """Nothing to set."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def plan(config: BaselineConfig, data: Data) -> Plan:
    """No stages."""
    return Plan(None, "direct")


method = Method("baseline", "Baseline", plan, BaselineConfig)
