"""Tasks of an experiment: what they hold, who does them on what."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from pydantic import TypeAdapter

from stic_eval import config
from stic_eval.experiment import driver, graph, planning, worker
from stic_eval.experiment.executors.local import Local
from stic_eval.experiment.progress import Reporter
from stic_eval.experiment.resources import Resources
from stic_eval.settings import RunConfig
from stic_eval.store import ResponseStore
from stic_eval.types import Response
from tests.support.scripted import Quiet

if TYPE_CHECKING:
    from conftest import World


def work(name: str, *needs: str, group: str = "") -> graph.Task:
    return graph.Task(name, needs, name, RunConfig(), {}, "mine", 0, group=group)


PAIRS, DPO = work("pairs"), work("preference", "pairs")
# (tasks, how many can be under way at once at most)
TOGETHER: dict[str, tuple[list[graph.Task], int]] = {
    "nothing left": ([], 1),
    "one variant's benchmarks": ([work(f"evaluate base/{n}", group="base") for n in range(7)], 1),
    "a chain": ([PAIRS, DPO, work("sft", "pairs", "preference")], 1),
    "a chain and what answers with it": (
        [PAIRS, DPO, *(work(f"evaluate {g}/{n}", "preference", group=g) for g in "ab" for n in "xy")], 2,
    ),
    "what waits is beside what does not": ([PAIRS, DPO, work("evaluate base/x", group="base")], 2),
    "three that one waits for": ([work("a"), work("b"), work("c"), work("merge", "a", "b", "c")], 3),
    "what was needed is done": ([work("evaluate a/x", "gone", group="a"), work("other", "gone")], 2),
}  # fmt: skip


@pytest.mark.parametrize("case", TOGETHER)
def test_no_more_workers_than_can_be_at_work_at_once(case: str) -> None:
    tasks, most = TOGETHER[case]
    found = planning.Experiment("run", (), (), (), {task.id: task for task in tasks})
    assert [found.workers(jobs) for jobs in (1, 2, 99)] == [1, min(2, most), most]


@pytest.mark.parametrize(
    ("argv", "jobs"),
    [(["--method", "baseline"], 1), (["--method", "stic"], 4), (["--seed", "0", "--seed", "4"], 6)],
)
def test_workers_that_would_be_idle_get_no_share_of_what_all_have(
    argv: list[str], jobs: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    executor_of = driver.executor_of

    def here(resources: Resources, jobs: int, **_: Any) -> Any:
        asked.append(jobs)
        return executor_of(resources, 1)

    monkeypatch.setattr(driver, "executor_of", here)
    assert world.run(*argv, "--jobs", "8") == 0
    assert asked == [jobs]


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """Workers send what is logged; in these tests they are this process."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    logging.captureWarnings(False)
    root.handlers[:] = before


def planned(world: World, *overrides: str, **flags: Any) -> tuple[planning.Experiment, Resources]:
    rows = [f"rows.{name}={world.folder}/{name}.jsonl" for name in ("one", "two")]
    given = {"model": "vlm", "images": Path("photos"), "benchmarks": "one,two", **flags}
    built = config.load(flags=given, overrides=[*rows, *overrides])
    resources = Resources(built, Reporter(None, quiet=True), world.folder / "cache")
    return planning.plan("run", planning.arms_of_run(built, resources), resources), resources


def test_a_plan_is_tasks_that_need_each_other(world: World) -> None:
    found, resources = planned(world, methods=["stic"], seeds=[0, 4])
    names = [name.partition(" ")[0] for name in found.tasks]
    assert names == [
        *["evaluate"] * 4, "pairs", "preference", *["evaluate"] * 2, "pairs", "preference",
        *["evaluate"] * 6,
    ]  # fmt: skip
    for name, task in found.tasks.items():
        assert all(list(found.tasks).index(need) < list(found.tasks).index(name) for need in task.needs)
    last = found.tasks["evaluate stic+dar@seed4/two"]
    (training,) = last.needs
    assert last.key == found.tasks[training].key != ""
    assert (last.solver, last.benchmark, last.generations) == ("describe_and_respond", "two", 40)
    assert not resources.stages.root.exists(), "a plan writes nothing"


def test_a_task_can_be_written_down_and_done_by_whoever_has_it(world: World) -> None:
    found, _ = planned(world, methods=["stic"])
    adapter = TypeAdapter(graph.Task)
    for task in found.tasks.values():
        assert pickle.loads(pickle.dumps(task)) == task
        assert adapter.validate_json(adapter.dump_json(task)) == task
    # Somebody else, who has nothing but the cache and the tasks.
    sent: list[tuple[str, Any]] = []
    send = lambda kind, value: sent.append((kind, value))  # noqa: E731
    work = worker.begin(0, worker.Place(world.folder / "cache", 1), send)
    results = [task.benchmark for task in found.tasks.values() for kind, _ in work(task) if kind == "result"]
    assert results == ["one", "two"] * 4
    assert world.stages == {"pairs": 1, "preference": 1}
    # All that it has written is a stage's; answers are the driver's to keep.
    assert {kind for kind, _ in sent} >= {"answers", "progress", "log"}
    assert not list(world.folder.rglob("records"))
    (store,) = (world.folder / "cache" / "responses").glob("*.sqlite")
    assert len(ResponseStore(store)) == 0


def test_an_adapter_is_a_folder_or_a_name_after_it_was_written_down_too(world: World) -> None:
    adapter = TypeAdapter(graph.Task)
    found, _ = planned(world, methods=["baseline"])
    task = found.tasks["evaluate baseline/one"]
    for one in (replace(task, adapter=Path("mine")), replace(task, served="my-lora")):
        assert adapter.validate_json(adapter.dump_json(one)) == one


def test_what_was_skipped_the_driver_says_alone(world: World) -> None:
    (world.folder / "photos" / "text.jpg").write_text("no image")
    found, _ = planned(world, methods=["stic"])
    sent: list[tuple[str, Any]] = []
    send = lambda kind, value: sent.append((kind, value))  # noqa: E731
    work = worker.begin(0, worker.Place(world.folder / "cache", 1), send)
    for task in found.tasks.values():
        assert list(work(task)) is not None
    assert found.skipped == 1
    assert not [value for kind, value in sent if kind == "line" and "skipped" in value]


def test_of_rows_on_the_hub_the_driver_says_once_what_workers_see_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, resources = planned(world, *world.on_the_hub(monkeypatch), methods=["baseline"])
    sent: list[tuple[str, Any]] = []
    send = lambda kind, value: sent.append((kind, value))  # noqa: E731
    work = worker.begin(0, worker.Place(world.folder / "cache", 1), send)
    for task in found.tasks.values():
        assert list(work(task))
    assert not [value for kind, value in sent if "elsewhere" in str(value)]
    resources.report = report = Quiet()
    driver.carry_out(found, driver.executor_of(resources, 1), resources, lambda event: None)
    assert [line for line in report.lines if "elsewhere" in line] == [
        "one: had from elsewhere", "two: had from elsewhere",
    ]  # fmt: skip


def test_what_a_library_remarks_is_logged_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    found, resources = planned(world, methods=["baseline"])
    remarks = [("library", logging.WARNING), ("library", logging.INFO), ("stic_eval.run", logging.WARNING)]
    records = [logging.LogRecord(name, level, "", 1, "odd", (), None) for name, level in remarks]

    def work(task: graph.Task) -> Iterator[tuple[str, Any]]:
        yield from (("log", record) for record in records)

    with caplog.at_level(logging.INFO):
        driver.carry_out(found, Local(work), resources, lambda event: None)
    said = [(record.name, record.levelno) for record in caplog.records if record.getMessage() == "odd"]
    assert sorted(said) == sorted([remarks[0], *remarks[1:] * 2])


def test_what_a_worker_has_sent_it_does_not_ask_again(tmp_path: Path) -> None:
    path, sent = tmp_path / "r.sqlite", list[Any]()
    store = worker.SendingStore(path, lambda kind, value: sent.append(value))
    driver_s = ResponseStore(path)
    driver_s.put_many({"old": Response("o", 1, "stop")})
    store.put_many({"new": Response("n", 1, "stop")})
    assert {key: found.text for key, found in store.get_many(["new", "old", "none"]).items()} == {
        "new": "n", "old": "o",
    }  # fmt: skip
    driver_s.put_many(sent[0])
    assert store.get_many(["new"])["new"].text == "n"
    assert not store._sent


def test_a_change_of_what_a_stage_is_made_of_is_told(world: World) -> None:
    found, resources = planned(world, methods=["stic"])
    pairs = next(task for task in found.tasks.values() if task.id.startswith("pairs"))
    Image.new("RGB", (8, 8), "green").save(world.folder / "photos" / "green.jpg")
    again = Resources(resources.config, Reporter(None, quiet=True), world.folder / "cache")
    outcome = driver.carry_out(
        planning.Experiment("run", found.arms, (), (), {pairs.id: pairs}),
        driver.executor_of(again, 1), again, lambda event: None,
    )  # fmt: skip
    assert "have changed since it was planned" in outcome.failed[pairs.id].value


@pytest.mark.parametrize(
    ("named", "visible", "device", "jobs", "found"),
    [
        ("3,5", 8, "auto", 2, ("3", "5")), ("3", 8, "auto", 2, ("3",)), ("", 8, "auto", 2, ()),
        (None, 3, "auto", 2, ("0", "1", "2")), (None, 3, "cuda", 2, ("0", "1", "2")),
        (None, 3, "auto", 1, ()), (None, 0, "auto", 2, ()), (None, 3, "cpu", 2, ()),
        (None, 3, "cuda:1", 2, ()), ("3,5", 8, "cuda:1", 2, ()),
    ],
)  # fmt: skip
def test_workers_spread_over_the_gpus_that_are_visible(
    named: str | None, visible: int, device: str, jobs: int, found: tuple[str, ...],
    world: World, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr("stic_eval.models.devices.gpus", lambda: visible)
    built = config.load(flags={"model": "vlm", "methods": ["baseline"], "device": device})
    resources = Resources(built, Reporter(None, quiet=True), world.folder / "cache")
    place = driver.executor_of(resources, jobs, apart=True).common  # type: ignore[attr-defined]
    assert place == worker.Place(world.folder / "cache", jobs, found)


def test_workers_take_devices_in_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    for number in range(3):
        with monkeypatch.context() as patch:
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
            patch.setenv("OMP_NUM_THREADS", "1")
            for library in ("HF_HUB", "DATASETS", "TRANSFORMERS"):
                patch.setenv(f"{library}_VERBOSITY", "warning")
            worker.begin(number, worker.Place(tmp_path, 3, ("3", "5")), lambda kind, value: None)
            seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert seen == ["3", "5", "3"]
