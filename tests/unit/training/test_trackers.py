"""What experiment trackers get: every step once, scores once, and nothing that could change a result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from stic_eval.errors import UserError
from stic_eval.experiment.score_reports import RECORD, report_scores
from stic_eval.image_sources import scan_images
from stic_eval.models.hf_model import HFModel
from stic_eval.report.runs import Entry, Scores
from stic_eval.report.table_rows import Column
from stic_eval.settings import RunConfig
from stic_eval.training import trackers, training_loop
from stic_eval.training.gang import StageSpec
from stic_eval.training.hyperparameters import Training
from stic_eval.training.instruction_data import SFTItem
from stic_eval.training.lora import LoraSettings
from stic_eval.training.sft import train_sft
from stic_eval.training.trackers import Tracking
from stic_eval.training.tracking_callback import TrackerCallback
from stic_eval.types import DESCRIBED, DIRECT, Summary
from tests.support.command import run_command


@dataclass
class Notebook:
    """A tracker's run in memory, and the integration that writes into it."""

    name: str
    identity: str
    facts: Mapping[str, Any]
    lines: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)
    closed: int = 0
    opened: ClassVar[list[Notebook]] = []
    fails: ClassVar[str] = ""

    @classmethod
    def open(cls, tracking: Tracking, name: str, identity: str, facts: Mapping[str, Any]) -> Notebook:
        if cls.fails == "open":
            raise ConnectionError("nobody is\nthere")
        cls.opened.append(cls(name, identity, facts))
        return cls.opened[-1]

    def callback(self, args: Any) -> Notebook:
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert state.is_world_process_zero

    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
        if self.fails == "log":
            raise ConnectionError("gone")
        self.lines.append((state.global_step, logs))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        pass

    def log(self, values: Mapping[str, float]) -> None:
        self.lines.append((0, values))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def notebooks(monkeypatch: pytest.MonkeyPatch) -> list[Notebook]:
    monkeypatch.setattr(trackers, "_KINDS", {"wandb": Notebook.open, "mlflow": Notebook.open})
    monkeypatch.setattr(Notebook, "fails", "")
    Notebook.opened.clear()
    return Notebook.opened


@pytest.fixture(scope="module")
def hf(tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm), device="cpu")


def train(hf: HFModel, photos: Path, out: Path, *names: str, until: int = 99) -> None:
    """Two steps, which end before one if so asked."""
    turns = (("user", "What?"), ("assistant", "A red box."))
    items = [SFTItem(str(at), image, turns) for at, image in enumerate(scan_images(photos)[0])]

    def progress(done: int, total: int) -> None:
        if done >= until:
            raise InterruptedError("killed")

    how = Training(learning_rate=1e-2, batch_size=4)
    lora = LoraSettings(r=2, alpha=4, dropout=0.1)
    with trackers.reporting(Tracking(names, "run", "STIC: sft, seed 0", out.parent)):
        train_sft(hf, items, out, training=how, lora=lora, seed=0, progress=progress)


def test_a_training_that_goes_on_reports_no_step_twice(
    hf: HFModel, photos: Path, tmp_path: Path, notebooks: list[Notebook], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(hf, photos, tmp_path / "plain")
    assert not notebooks
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(InterruptedError):
        train(hf, photos, tmp_path / "out", "wandb", until=2)
    train(hf, photos, tmp_path / "out", "wandb")
    assert [step for book in notebooks for step, logs in book.lines if "loss" in logs] == [1, 2]
    (one,) = {(book.name, book.identity) for book in notebooks}
    assert one[0].startswith("STIC: sft, seed 0, 20") and [book.closed for book in notebooks] == [1, 1]
    # What comes out is the same, byte for byte, and nothing of the tracker is in it.
    files = [
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*.safetensors")}
        for out in (tmp_path / "plain", tmp_path / "out")
    ]
    assert files[0] == files[1] and not list((tmp_path / "out").rglob("reported*"))


def follow(out: Path, *steps: int) -> None:
    """What a trainer tells a callback of steps, the last of which is its last."""
    callback = TrackerCallback(Tracking(("wandb", "mlflow"), "run", "STIC", out), out)
    state = SimpleNamespace(is_world_process_zero=True, global_step=0)
    callback.on_train_begin(None, state, None)
    for step in steps:
        state.global_step = step
        callback.on_log(None, state, None, logs={"loss": 1.0 / step})
    callback.close()


def test_steps_that_are_taken_again_are_not_reported_again(tmp_path: Path, notebooks: list[Notebook]) -> None:
    follow(tmp_path, 1, 2)
    follow(tmp_path, 1, 2, 3)  # there was no checkpoint yet
    follow(tmp_path, 3, 4)
    for tracker in (0, 1):
        assert [step for book in notebooks[tracker::2] for step, _ in book.lines] == [1, 2, 3, 4]
    assert len({(book.name, book.identity) for book in notebooks}) == 1
    (record,) = tmp_path.rglob("reported.json")
    record.write_text("{")  # nobody knows any more: another run
    follow(tmp_path, 1)
    assert len({book.identity for book in notebooks}) == 2


@pytest.mark.parametrize(("fails", "why"), [("open", "nobody is"), ("log", "gone")])
def test_a_tracker_that_fails_costs_its_report_and_a_line(
    tmp_path: Path, notebooks: list[Notebook], fails: str, why: str,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(Notebook, "fails", fails)
    follow(tmp_path, 1, 2, 3)
    assert [record.getMessage() for record in caplog.records] == [
        f"--report-to {tracker}: goes on without it: {why}" for tracker in ("wandb", "mlflow")
    ]
    assert [book.closed for book in notebooks] == ([] if fails == "open" else [1, 1])


def test_scores_are_reported_once_with_the_variant_s_label(tmp_path: Path, notebooks: list[Notebook]) -> None:
    config = RunConfig(output=tmp_path, report_to=("wandb",))
    made = Summary(62.5, 8, 0, {}, {})
    scores = Scores(
        "r", [Column("chartqa", "ChartQA"), Column("mmvet", "MM-Vet")],
        [
            Entry("baseline", "baseline", "Baseline", DIRECT, None, {}, {"chartqa": made, "mmvet": made}),
            Entry("stic+dar", "stic", "STIC", DESCRIBED, 1, {}, {"chartqa": made, "mmvet": made}),
            Entry("stic", "stic", "STIC", DIRECT, 1, {}, {"chartqa": made}),
        ],
        model="/home/somebody/model",
    )  # fmt: skip
    for _ in range(2):
        report_scores(config, scores)
    assert [book.name for book in notebooks] == ["Baseline: scores", "STIC + DaR, seed 1: scores"]
    assert notebooks[1].lines == [(0, {"score/chartqa": 62.5, "score/mmvet": 62.5, "score/average": 62.5})]
    assert notebooks[1].facts["model"] == "model" and "somebody" not in (tmp_path / RECORD).read_text()
    # What a judge has changed goes to the run that is there.
    scores.entries[0].summaries["mmvet"] = replace(made, score=70.0)
    report_scores(config, scores)
    assert len(notebooks) == 3 and notebooks[2].identity == notebooks[0].identity
    json.loads((tmp_path / RECORD).read_text())


def test_a_command_reports_scores_once_and_comes_to_the_same(
    tmp_path: Path, notebooks: list[Notebook], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "version", lambda name: "1")
    argv = ["eval", "--benchmarks", "chartqa", "--limit", "2", "-q"]
    for trackers_of_call in ("wandb,mlflow", "wandb"):
        run_command(*argv, "--report-to", trackers_of_call, at=tmp_path)
    (run,) = (tmp_path / "results").iterdir()
    (entry,) = json.loads((run / "scores.json").read_text())["variants"]
    score = entry["summaries"]["chartqa"]["score"]
    assert [book.lines for book in notebooks] == [[(0, {"score/chartqa": score})]] * 2
    assert {book.facts["model"] for book in notebooks} == {"pocket"}


def test_trackers_are_in_no_key() -> None:
    plain, reported = RunConfig(), RunConfig(report_to=("wandb", "mlflow"))
    assert (plain.key, plain.name) == (reported.key, reported.name)
    assert RunConfig.model_validate({"report_to": ["wandb,mlflow"]}) == reported
    assert RunConfig.model_validate({"report_to": "none"}) == plain


def test_a_gang_is_told_where_to_report() -> None:
    tracking = Tracking(("wandb",), "run", "STIC: sft, seed 0", Path("results/run"))
    spec = StageSpec(
        config=RunConfig(), kind="fine_tuning", data=Path("items"), out=Path("out"),
        training=Training(learning_rate=1e-2, batch_size=4),
        lora=LoraSettings(), seed=0, tracking=tracking,
    )  # fmt: skip
    assert StageSpec.model_validate_json(spec.model_dump_json()).tracking == tracking


def test_one_that_is_not_installed_is_a_line_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()  # which it leaves behind, and Python takes for a package
    monkeypatch.chdir(tmp_path)

    def missing(name: str) -> str:
        raise trackers.PackageNotFoundError(name)

    monkeypatch.setattr(trackers, "version", missing)
    with pytest.raises(UserError, match=r"^--report-to wandb: is not .*pip install 'stic-eval\[wandb\]'$"):
        trackers.check_installed(["wandb"])
    said = run_command("run", "--report-to", "wandb", at=tmp_path, code=2)
    assert said.count("\n") == 1 and "stic-eval[wandb]" in said
    assert [path.name for path in tmp_path.iterdir()] == ["wandb"]
    said = run_command("run", "--report-to", "wandbb", at=tmp_path, code=2)
    assert "--report-to wandbb: give trackio, wandb, tensorboard or mlflow" in said


# ---------------------------------------------------------------- the real ones, where they are installed


def test_tensorboard_writes_what_its_own_reader_reads(
    hf: HFModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    train(hf, photos, tmp_path / "out", "tensorboard")
    run = trackers.open_run("tensorboard", Tracking((), "r", "", tmp_path), "Baseline: scores", "a", {"n": 1})
    run.log({"score/chartqa": 50.0})
    run.close()
    found = {}
    for folder in (tmp_path / "tensorboard").iterdir():
        read = events.EventAccumulator(str(folder)).Reload()
        for tag in read.Tags()["scalars"]:
            found[tag] = [(event.step, event.value) for event in read.Scalars(tag)]
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert found["train/loss"] == [(at, pytest.approx(loss)) for at, loss in enumerate(losses, 1)]
    assert found["score/chartqa"] == [(0, 50.0)]


@pytest.mark.parametrize("tracker", ["wandb", "mlflow", "trackio"])
def test_others_keep_it_offline(
    tracker: str, hf: HFModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(tracker)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    with pytest.raises(InterruptedError):
        train(hf, photos, tmp_path / "out", tracker, until=2)
    train(hf, photos, tmp_path / "out", tracker)
    tracking = Tracking((), "r", "", tmp_path)
    run = trackers.open_run(tracker, tracking, "Baseline: scores", "abcd", {"training_seed": 0})
    run.log({"score/chartqa": 50.0})
    run.close()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    if tracker == "mlflow":
        import mlflow

        found = mlflow.search_runs(search_all_experiments=True, output_format="list")
        (trained,) = [one for one in found if "loss" in one.data.metrics]
        history = mlflow.MlflowClient().get_metric_history(trained.info.run_id, "loss")
        assert [point.value for point in history] == pytest.approx(losses)
        assert {"score/chartqa"} in [set(one.data.metrics) for one in found]
    elif tracker == "trackio":
        import trackio

        runs = list(trackio.Api().runs("stic-eval"))
        (trained,) = [run for run in runs if run.name.startswith("STIC: sft")]
        assert len(runs) == 2 and trained is not None
    else:
        assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 3  # two of one identity
