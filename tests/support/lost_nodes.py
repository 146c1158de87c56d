"""A method that is nobody's: a plug-in file that has workers on simulated nodes wait at given moments.

At each moment, once, a worker writes down which node it is on, and waits until that node is taken from it.
Where no folder for that is named, as in the process that runs the command, nothing is changed.
"""

import os
import sys
import time
from pathlib import Path
from threading import current_thread

from stic_eval.contracts.method import Method, Plan
from stic_eval.contracts.solver import NoOptions

method = Method("nobody", "Nobody", lambda config, data: Plan(None), NoOptions)
MOMENTS = {
    "pairs": "pairs ",  # some answers have been sent
    "training": "preference ",  # the first checkpoint is sealed
    "evaluation": "evaluate stic+dar/",
}


def wait(moment: str) -> None:
    import ray

    path = Path(os.environ["LOST_NODES"]) / moment
    if path.exists() or not current_thread().name.startswith(MOMENTS[moment]):
        return
    path.with_suffix(".part").write_text(ray.get_runtime_context().get_node_id())
    path.with_suffix(".part").rename(path)
    time.sleep(120)
    raise AssertionError(f"nobody has taken the node at {moment}")


def change() -> None:
    from stic_eval.experiment.far_worker import FarStore
    from stic_eval.models import response_cache
    from stic_eval.training import training_loop

    put_many = FarStore.put_many

    def put_and_wait(self, responses, *, replace=False):  # type: ignore[no-untyped-def]
        put_many(self, responses, replace=replace)
        if responses:
            wait("pairs")
            wait("evaluation")

    def watch(event: str, args: tuple[object, ...]) -> None:
        if event == "os.rename" and str(args[1]).endswith("checkpoint-2/complete.json"):
            wait("training")

    response_cache._COMMIT_ANSWERS = 1
    training_loop.CHECKPOINT_SECONDS = 0.0
    FarStore.put_many = put_and_wait  # type: ignore[method-assign]
    sys.addaudithook(watch)


if "LOST_NODES" in os.environ:
    change()
