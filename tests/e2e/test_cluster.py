"""`--cluster ray` on simulated nodes with made-up GPUs: the table of one process, whatever nodes are lost."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from stic_eval.experiment import cluster as clusters
from stic_eval.experiment import parts
from stic_eval.experiment.executors.ray import Ray, Room
from tests.support import executor_tasks, lost_nodes

if TYPE_CHECKING:
    from conftest import Finished, Lab

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.usefixtures("only_cluster")


def _patiently(start: Callable[[], Any]) -> Any:
    """Starts a node; Ray gives it 30 seconds, which on a busy machine may be too few."""
    for left in range(4, -1, -1):
        try:
            return start()
        except Exception as error:  # which is all that it is
            if not left or "timed out" not in str(error):
                raise
    raise AssertionError


class Nodes:
    """Simulated nodes of one GPU each, beside a head that has none."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self.started = folder, 0
        small: dict[str, Any] = {"object_store_memory": 80 << 20, "include_dashboard": False}
        self._small = small
        self.cluster = _patiently(
            lambda: Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, **small})
        )
        self.name = f"ray:{self.cluster.address}"
        for _ in range(2):
            self.add()
        self.cluster.wait_for_nodes(timeout=300)

    def add(self, gpus: int = 1) -> Any:
        """Starts one, with a folder for temporary files of its own."""
        self.started += 1
        own = self.folder / f"node{self.started}"
        own.mkdir()
        # What its workers read; no other process does.
        environment = {"TMPDIR": str(own), "LOST_NODES": str(self.folder / "moments")}
        node = {"num_cpus": gpus, "num_gpus": gpus, "env_vars": environment, **self._small}
        return _patiently(lambda: self.cluster.add_node(wait=False, **node))

    def lose(self, node: str) -> None:
        """Ends one as a power cut does, and starts another."""
        (found,) = [one for one in self.cluster.list_all_nodes() if one.node_id == node]
        self.cluster.remove_node(found, allow_graceful=False)
        self.add()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, only_cluster: None) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        # Machines that run tests are busy: to be slow is not to be dead.
        patch.setenv("RAY_health_check_timeout_ms", "120000")
        patch.setattr(clusters, "_ANSWER", 300.0)
        patch.setattr(parts, "LEAST", 2)
        folder = tmp_path_factory.mktemp("nodes")
        (folder / "moments").mkdir()
        found = Nodes(folder)
        yield found
        found.cluster.shutdown()


def records(run: Path) -> dict[str, list[Any]]:
    """Records but for the time that they took."""
    return {
        path.relative_to(run).as_posix(): [
            {k: v for k, v in json.loads(line).items() if k != "seconds"}
            for line in path.read_text().splitlines()
        ]
        for path in run.glob("records/*/*.jsonl")
    }


def table(run: Path) -> Any:
    """The table but for the seconds that training took."""
    found = json.loads((run / "table.json").read_text())
    found["notes"] = [re.sub(r", [\d,]+ s\b", "", note) for note in found["notes"]]
    return found


def same(lab: Lab, finished: Finished) -> None:
    """A run on the cluster has come to what one process came to."""
    (folder,) = lab.runs()
    assert table(folder) == table(finished.folder)
    assert records(folder) == records(finished.folder)
    same_stages(lab, finished)


def same_stages(lab: Lab, finished: Finished) -> None:
    """Stages have come out on the cluster as in one process, to the byte where it matters."""
    for stage in ("pairs", "preference", "descriptions", "infused_sft"):
        (whole,) = finished.lab.done(stage)
        (found,) = lab.done(stage)
        assert found.name == whole.name
        if (whole / "adapter").is_dir():
            file = "adapter/adapter_model.safetensors"
            assert (found / file).read_bytes() == (whole / file).read_bytes()
    kept, usual = ({path.name for path in one.stages.iterdir()} for one in (lab, finished.lab))
    assert kept <= usual


def test_it_says_what_the_other_executors_say(nodes: Nodes, tmp_path: Path) -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(executor_tasks)  # which nodes do not have
    try:
        with clusters.join(nodes.name):
            executor = Ray(executor_tasks.setup, tmp_path, 2, lambda task: Room(gpus=1))
            assert executor_tasks.said(executor, tmp_path) == executor_tasks.SAID
            dying = executor_tasks.Task("dies", (), "die")
            said = [(e.kind, str(e.value)) for e in executor.run([dying]) if e.kind != "progress"]
    finally:
        cloudpickle.unregister_pickle_by_value(executor_tasks)
    assert [kind for kind, _ in said] == ["started", "line", "line", "failed"]
    assert said[1][1].startswith("dies: its worker was lost") and said[1][1].endswith("it starts again")
    assert said[3][1].startswith("its worker was lost 3 times")


@pytest.mark.campaign  # minutes
def test_nodes_that_are_lost_in_pairs_training_and_evaluation_cost_time_alone(
    nodes: Nodes, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STIC_EVAL_PLUGINS", str(tmp_path / "plugins"))
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "lost_nodes.py").write_text(Path(lost_nodes.__file__).read_text())
    lab, moments, taken = finished.lab.at(tmp_path / "lab"), nodes.folder / "moments", []
    listen = Ray._listen

    def listen_and_take(self: Ray, workers: list[Any]) -> Iterator[Any]:
        for path in moments.iterdir():
            if path.suffix != ".part" and path.name not in taken:
                nodes.lose(path.read_text())
                taken.append(path.name)
        yield from listen(self, workers)

    monkeypatch.setattr(Ray, "_listen", listen_and_take)
    done = lab.invoke(*finished.argv, "--cluster", nodes.name)
    assert done.code == 0, done.err
    assert sorted(taken) == sorted(lost_nodes.MOMENTS)
    assert done.err.count("it starts again") >= 3 and "raylet" not in done.out + done.err
    assert "(resumed)" in (lab.runs()[0] / "run.log").read_text()
    same(lab, finished)


def only_chartqa(argv: list[str]) -> list[str]:
    """Without rows of benchmarks that are not asked."""
    drop = {index for index, arg in enumerate(argv) if arg.startswith(("rows.textvqa", "rows.mmbench"))}
    return [arg for index, arg in enumerate(argv) if not {index, index + 1} & drop]


@pytest.mark.campaign  # minutes
def test_without_a_common_file_system_stages_are_sent(
    nodes: Nodes, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "_mark", lambda stages: tmp_path / "elsewhere")
    lab = finished.lab.at(tmp_path)
    argv = lab.argv("run", "--method", "stic", "--no-dar", "--benchmarks", "chartqa")
    done = lab.invoke(*only_chartqa(argv), "--cluster", nodes.name, "--quiet")
    assert (done.code, done.err) == (0, "")
    (folder,) = lab.runs()
    ours, theirs = records(folder), records(finished.folder)
    assert set(ours) == {"records/baseline/chartqa.jsonl", "records/stic/chartqa.jsonl"}
    assert ours == {name: theirs[name] for name in ours}
    same_stages(lab, finished)
    sent = {path.name.partition("-")[0] for path in nodes.folder.glob("node*/stic-eval-*/*/stages/*")}
    assert sent >= {"pairs", "preference", "descriptions", "infused_sft"}


@pytest.mark.campaign  # minutes; others kill, and train as a gang, at less cost
def test_two_gpus_of_a_node_train_together(nodes: Nodes, finished: Finished, tmp_path: Path) -> None:
    lab = finished.lab.at(tmp_path)
    (pairs,) = finished.lab.done("pairs")  # the pairs are there: it is training alone that takes both
    shutil.copytree(pairs, lab.stages / pairs.name)
    argv = lab.argv("run", "--method", "stic", "-o", "stage2.use=false", "--no-dar", leave=("stage2.",))
    argv += ["--benchmarks", "chartqa", "--gpus", "2", "--cluster", nodes.name, "--quiet"]
    argv = only_chartqa(argv)
    refused = lab.invoke(*argv)
    assert refused.code == 2 and len(refused.err.splitlines()) == 1
    assert "--gpus 2: GPUs that train together must be on one node" in refused.err
    assert lab.runs() == []
    larger = nodes.add(gpus=2)
    try:
        done = lab.invoke(*argv)
    finally:
        nodes.cluster.remove_node(larger, allow_graceful=False)
    assert (done.code, done.err) == (0, "")
    (folder,) = lab.runs()
    assert (folder / "run.log").read_text().count("2 processes train (ddp)") == 1
    (ours,), (theirs,) = lab.done("preference"), finished.lab.done("preference")
    assert ours.name == theirs.name
    file = "adapter/adapter_model.safetensors"
    found, wanted = load_file(ours / file), load_file(theirs / file)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-4)


def test_what_cannot_be_joined_is_said_in_a_line(finished: Finished, tmp_path: Path) -> None:
    lab = finished.lab.at(tmp_path)
    for given, said in (
        ("slurm", "--cluster slurm: give local, ray, or ray:ADDRESS"),
        ("ray:ray://head:10001", "give the address of the head node (HOST:6379)"),
    ):
        done = lab.invoke(*finished.argv, "--cluster", given)
        assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1
    assert os.listdir(tmp_path) == []
