"""What workers take of a cluster's nodes: one GPU to answer, or several that train together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stic_eval.errors import UserError
from stic_eval.experiment.executors.ray import Room

if TYPE_CHECKING:
    from stic_eval.experiment.graph import Task
    from stic_eval.experiment.resources import Resources

_ANSWERING_ON_ALL = ("vllm",)  # engines that start servers on all GPUs of a worker


@dataclass(frozen=True)
class Rooms:
    """What there is on a cluster for a run's workers.

    Attributes:
        nodes: What each node has, by Ray's names (`CPU`, `GPU`).
        answering: GPUs of a worker that answers; 0: its model is on the CPU, or at a server.
        training: GPUs that train an adapter together, all of one node (or processes, on a CPU).
    """

    nodes: Sequence[Mapping[str, float]]
    answering: int
    training: int

    @property
    def workers(self) -> int:
        """How many workers that answer there is room for: by GPUs, or one for each node."""
        rooms = [node.get("GPU", 0.0) // self.answering if self.answering else 1.0 for node in self.nodes]
        return max(1, int(sum(rooms)))

    def check(self) -> None:
        """Refuses what no node has.

        Raises:
            UserError: More GPUs train together than any node has.
        """
        most = int(max((node.get("GPU", 0.0) for node in self.nodes), default=0.0))
        if self.answering and self.training > max(1, most):
            raise UserError(
                f"--gpus {self.training}: GPUs that train together must be on one node, and no node of "
                f"the cluster has more than {most}; give that at most, or auto"
            )

    def of(self, task: Task, jobs: int) -> Room:
        """What the worker of a task takes, where there are so many workers."""
        if self.answering and task.trains:
            return Room(self.cores(jobs, self.training), self.training)
        return Room(self.cores(jobs, self.answering), self.answering)

    def cores(self, jobs: int, gpus: int) -> int:
        """Cores of a worker with so many GPUs: its share of the node that has the fewest for one.

        Args:
            jobs: How many workers there are, which share the nodes where they have no GPUs.
            gpus: Of the worker.
        """
        there = [node for node in self.nodes if node.get("GPU", 0.0) >= gpus]
        each = max(1, -(-jobs // max(1, len(there))))
        shares = [node.get("CPU", 0.0) * gpus // node["GPU"] if gpus else node.get("CPU", 0.0) // each
                  for node in there]  # fmt: skip
        return max(1, int(min(shares, default=1.0)))


def rooms_of(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> Rooms:
    """What workers of a run take of a cluster's nodes.

    One GPU for a model in their process, where the cluster has any. By `--gpus auto` as many train together
    as each node with GPUs has.
    """
    config = resources.config
    has = [int(node["GPU"]) for node in nodes if node.get("GPU", 0.0) >= 1]
    kind = config.device.partition(":")[0]
    in_process = resources.engine.trains_in(config) and kind in ("auto", "cuda")
    on_gpu = in_process and (bool(has) or kind == "cuda")
    together = (min(has, default=1) if on_gpu else 1) if config.gpus == "auto" else config.gpus
    answering = together if config.engine in _ANSWERING_ON_ALL else 1
    return Rooms(nodes, answering if on_gpu else 0, together)
