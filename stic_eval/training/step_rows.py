"""Which rows of a step a process has in which micro-batch, and what each of them weighs.

A step's rows are dealt out a micro-batch at a time: the first to rank 0, the second to rank 1, and so on
around, as accelerate does it. Where the last step of an epoch has too few rows for that, accelerate fills up
with others; those weigh nothing here.

The loss of a step is the mean over groups of consecutive rows of the mean in each. All groups have as many
rows but the last of a smaller batch, so that this is the mean over rows everywhere else; and it depends
neither on the size of micro-batches nor on the number of processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stic_eval.errors import UserError


@dataclass(frozen=True)
class StepRows:
    """How an epoch's rows are dealt out.

    Attributes:
        rows: Of an epoch.
        batch: Rows of a step, of all processes together.
        micro: Rows of a micro-batch.
        group: Rows whose mean counts as one.
        rank: Which process this is.
        ranks: How many there are; `micro * ranks` divides `batch`.
    """

    rows: int
    batch: int
    micro: int
    group: int
    rank: int = 0
    ranks: int = 1

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return math.ceil(self.rows / self.batch)

    def weights(self, step: int) -> list[list[float]]:
        """What the rows of each micro-batch of this rank weigh, in a step of the epoch; of fillers 0.

        A micro-batch's loss is the sum of its rows', so weighted. It is divided by the number of
        micro-batches afterwards, and averaged over ranks, as transformers and DDP do.
        """
        there = min(self.batch, self.rows - step % self.steps * self.batch)
        micros = math.ceil(math.ceil(there / self.micro) / self.ranks)
        groups = math.ceil(there / self.group)

        def weight(place: int) -> float:
            if place >= there:
                return 0.0
            size = min(self.group, there - place // self.group * self.group)
            return micros * self.ranks / (groups * size)

        firsts = [(at * self.ranks + self.rank) * self.micro for at in range(micros)]
        found = [[weight(place) for place in range(first, first + self.micro)] for first in firsts]
        # A process by itself has no fillers: its last micro-batch is smaller.
        return found if self.ranks > 1 else [[one for one in part if one] for part in found]


def check_divides(batch: int, ranks: int, what: str) -> None:
    """Refuses a batch that so many processes cannot have equal parts of.

    Args:
        what: Whose batch it is, for the message.

    Raises:
        UserError: Names the nearest sizes, and the nearest numbers of processes, that fit.
    """
    if batch % ranks == 0:
        return
    below = batch // ranks * ranks
    sizes = [str(size) for size in (below, below + ranks) if size]
    fewer = max(n for n in range(1, ranks) if batch % n == 0)
    raise UserError(
        f"{what}: batch_size {batch} cannot be divided evenly among {ranks} processes; the nearest that can: "
        f"{' and '.join(sizes)}; or train with {fewer} ({'one GPU' if fewer == 1 else f'--gpus {fewer}'})"
    )
