"""SeVa, SIMA, CSR and RLAIF-V on the embedded model: one table, nothing computed twice, kills."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from conftest import Done, Lab

RIVALS = ("seva", "sima", "csr", "rlaif_v_lite")
# Few and short; rates so high that a step changes answers.
OPTIONS = (
    "seva.pairs.items=6", "sima.pairs.items=24", "csr.pairs.images=5", "rlaif_v_lite.pairs.images=8",
    "csr.iterations=2", "csr.pairs.sentences=3", "rlaif_v_lite.pairs.temperature=1.2",
    "rlaif_v_lite.iterations=1",
    "training.learning_rate=0.05", "training.warmup_ratio=0", "training.batch_size=2", "lora.r=4",
    "lora.alpha=8", "csr.training.learning_rate=0.01",
)  # fmt: skip


def argv(*methods: str, extra: tuple[str, ...] = (), leave: tuple[str, ...] = ()) -> list[str]:
    found = ["run", "--method", ",".join(methods), "--benchmarks", "chartqa", "--limit", "2", "--quiet"]
    for option in OPTIONS:
        owner = option.partition(".")[0]
        if (owner in methods or owner not in RIVALS) and not option.startswith(leave or "-"):
            found += ["-o", option]
    return [*found, *extra]


def table(run: Path) -> Any:
    return json.loads((run / "table.json").read_text())


def answers(run: Path) -> dict[str, list[Any]]:
    """Records but for the time that they took."""
    return {
        path.relative_to(run).as_posix(): [
            {k: v for k, v in json.loads(line).items() if k != "seconds"}
            for line in path.read_text().splitlines()
        ]
        for path in run.glob("records/*/*.jsonl")
    }


@dataclass(frozen=True)
class Finished:
    """A run of all four from an empty cache."""

    lab: Lab
    done: Done
    folder: Path


@pytest.fixture(scope="module")
def finished(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    own = lab.at(tmp_path_factory.mktemp("rivals"))
    done = own.invoke(*argv(*RIVALS))
    assert done.code == 0, done.err
    (folder,) = own.runs()
    return Finished(own, done, folder)


def pairs_of(lab: Lab) -> dict[str, list[dict[str, Any]]]:
    """Rows of pairs by what has made them, the iterations of one method in order."""
    found: dict[str, list[dict[str, Any]]] = {}
    stages = [(json.loads((path / "manifest.json").read_text()), path) for path in lab.done("pairs")]
    for manifest, path in sorted(stages, key=lambda one: one[0]["params"].get("iteration", 1)):
        name = manifest["params"]["made_by"].split(".")[2] + f" {manifest['params'].get('iteration', 1)}"
        found[name] = pq.read_table(path / "pairs.parquet").to_pylist()
    return found


def test_one_table_has_all_of_them_and_what_they_cost(finished: Finished) -> None:
    made = table(finished.folder)
    labels = [row["label"] for row in made["rows"]]
    assert labels == ["Baseline", "SeVa", "SIMA", "CSR", "RLAIF-V lite"]
    assert all(row["cells"]["chartqa"]["n"] == 2 for row in made["rows"])
    (cost,) = (note for note in made["notes"] if "Training cost" in note)
    for label in labels[1:]:
        assert f"{label} " in cost
        assert label in finished.done.out
    assert "SeVa 24 generations, " in cost  # two questions of each item, clean and noisy
    assert "scored" in cost.partition("CSR")[2]
    assert "Baseline" not in cost


def test_each_has_made_pairs_of_its_own_kind(finished: Finished) -> None:
    found = pairs_of(finished.lab)
    assert set(found) == {"seva 1", "sima 1", "csr 1", "csr 2", "rlaif_v_lite 1"}
    for name, rows in found.items():
        assert rows, name
        assert all(row["chosen"] != row["rejected"] for row in rows)
        assert all(row["chosen"][0]["content"] for row in rows)
    kinds = {name: {row["negative"] for row in rows} for name, rows in found.items()}
    assert kinds["seva 1"] == {"diffusion"}
    assert kinds["sima 1"] <= {"greedy", "sampled"}
    assert kinds["csr 1"] == kinds["csr 2"] == {"worst path"}
    assert kinds["rlaif_v_lite 1"] == {"more wrong claims"}
    assert found["csr 1"] != found["csr 2"]


def test_later_iterations_go_on_from_the_adapter_before(finished: Finished) -> None:
    import torch
    from safetensors.torch import load_file

    manifests = {
        path: json.loads((path / "manifest.json").read_text()) for path in finished.lab.done("preference")
    }
    (later,) = (path for path, found in manifests.items() if len(found["needs"]) == 2)
    (before,) = (
        p for p in manifests if p.name == f"preference-{manifests[later]['needs']['preference'][:16]}"
    )
    assert manifests[later]["params"]["reference"] == "previous"
    first, second = (load_file(path / "adapter" / "adapter_model.safetensors") for path in (before, later))
    assert first.keys() == second.keys()
    moved = [float((second[name] - first[name]).abs().max()) for name in first]
    assert max(moved) > 0
    # It has not begun anew: A is random at the start, and two random ones have nothing in common.
    for name in first:
        if "lora_A" in name:
            alike = torch.corrcoef(torch.stack([first[name].flatten(), second[name].flatten()]))[0, 1]
            assert alike > 0.5, name
    # It is held to the adapter that it has started from: at first they agree, and the loss is -log(1/2).
    log = [json.loads(line) for line in (later / "log.jsonl").read_text().splitlines()]
    assert log[0]["loss"] == pytest.approx(0.6931, abs=1e-3)


def test_the_same_again_computes_nothing(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    from stic_eval.models.hf_model import HFModel

    def no_model(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(HFModel, "load", no_model)
    before = table(finished.folder)
    again = finished.lab.invoke(*argv(*RIVALS))
    assert again.code == 0, again.err
    assert table(finished.folder) == before
    assert again.out == finished.done.out


def test_an_adapter_of_each_says_something_else(finished: Finished) -> None:
    weights = [
        (path / "adapter" / "adapter_model.safetensors").read_bytes()
        for path in finished.lab.done("preference")
    ]
    assert len(weights) == 5  # CSR has two
    assert len(set(weights)) == 5


# ---------------------------------------------------------------- killed

CODE = r"""
import os, re, signal, sys
os.environ.update(environment)
os.chdir(folder)
sys.stdout = sys.stderr = open(os.devnull, "w")
from stic_eval import store
from stic_eval.models import response_cache
from stic_eval.training import training_loop
training_loop.CHECKPOINT_SECONDS = 0.0  # a checkpoint at every step
response_cache._COMMIT_ANSWERS, response_cache._COMMIT_SECONDS = 1, 0.0
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
what, count = moment or ("", 0)
left = [count]
def put_many(self, responses, put=store.ResponseStore.put_many, **how):
    put(self, responses, **how)
    # A likelihood is kept as a number, in the text's place.
    scored = any(re.fullmatch(r"-?[0-9.e-]+", response.text) for response in responses.values())
    left[0] -= bool(responses) and scored == (what == "likelihoods")
    if not left[0]:
        die()
def watch(event, args):
    if event == "os.rename" and re.search(what, os.fsdecode(args[1])):
        left[0] -= 1
        if not left[0]:
            die()
if what in ("answers", "likelihoods"):
    store.ResponseStore.put_many = put_many
elif what:
    sys.addaudithook(watch)
from stic_eval.cli.app import main
main(argv)
"""
KEY = r"-[0-9a-f]{16}"
PAIRS = rf"pairs{KEY}\.\w+\.work/pairs\.parquet$"
CHECKPOINT = r"checkpoints/checkpoint-1/complete\.json$"
# What the stages of all methods go through, test_kill.py has killed; here is what these alone do.
MOMENTS = {
    "seva": [("answers", 5), (PAIRS, 1)],
    "sima": [("answers", 30), ("answers", 8)],
    "csr": [("answers", 7), ("likelihoods", 9), (CHECKPOINT, 1)],
    "rlaif_v_lite": [("answers", 25), ("likelihoods", 20)],
}


# The longest method in every run of the tests; the others, which share its parts, in the campaign.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.campaign] * (name != "csr")) for name in RIVALS]
)
def test_killed_anywhere_it_ends_with_the_table_of_a_run_in_peace(
    name: str, finished: Finished, tmp_path: Path
) -> None:
    lab = finished.lab.at(tmp_path)
    server = multiprocessing.get_context("forkserver")  # imports once what each process needs
    preloaded = ["stic_eval.training.dpo", "stic_eval.models.hf_model", "trl.trainer.sft_trainer"]
    server.set_forkserver_preload(preloaded)

    def run(moment: tuple[str, int] | None) -> int | None:
        names = {
            "moment": moment,
            "argv": argv(name),
            "folder": str(lab.folder),
            "environment": lab.environment,
        }
        process = server.Process(target=exec, args=(CODE, names))
        process.start()
        process.join(600)
        return process.exitcode

    for moment in MOMENTS[name]:
        assert run(moment) == -9, moment
    assert run(None) == 0
    (folder,) = lab.runs()
    # The same stages have come out the same, and so has what was answered with them.
    ours, theirs = pairs_of(lab), pairs_of(finished.lab)
    assert ours == {key: rows for key, rows in theirs.items() if key.startswith(f"{name} ")}
    known = {path.name: path for path in finished.lab.done("preference")}
    for path in lab.done("preference"):
        file = "adapter/adapter_model.safetensors"
        assert (path / file).read_bytes() == (known[path.name] / file).read_bytes()
    theirs_answers = answers(finished.folder)
    assert {key: theirs_answers[key] for key in answers(folder)} == answers(folder)
    rows = {row["label"]: row["cells"]["chartqa"]["score"] for row in table(finished.folder)["rows"]}
    assert [(row["label"], row["cells"]["chartqa"]["score"]) for row in table(folder)["rows"]] == [
        (label, score) for label, score in rows.items() if label == "Baseline" or label in TITLES[name]
    ]
    # What it has cost counts what was asked, and not what was still to be asked after the last kill.
    cost = next(note for note in table(finished.folder)["notes"] if "Training cost" in note)
    own = next(note for note in table(folder)["notes"] if "Training cost" in note)
    assert own.removeprefix("Training cost of a seed: ").rpartition(", ")[0] in cost
    assert not list(lab.stages.glob("*.work"))


TITLES = {"seva": "SeVa", "sima": "SIMA", "csr": "CSR", "rlaif_v_lite": "RLAIF-V lite"}


# ---------------------------------------------------------------- what can go wrong


def test_a_judge_that_cannot_be_read_is_one_line_that_says_so(finished: Finished, tmp_path: Path) -> None:
    lab = finished.lab.at(tmp_path)
    shutil.copytree(finished.lab.folder / "cache", tmp_path / "cache")
    before = len(lab.done("pairs"))
    prompt = "sima.pairs.judge_prompt=Describe the image. {first} {second}"
    done = lab.invoke(*argv("sima", extra=("-o", prompt, "-o", "sima.pairs.verdicts=['[[1]]', '[[2]]']")))
    assert done.code == 2
    (line,) = done.err.strip().splitlines()
    assert "sima: no pair is left to train on" in line
    assert "without a readable verdict" in line
    assert len(lab.done("pairs")) == before


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("sima.pairs.judge_prompt=Which? {first}", "{second} is missing"),
        ("csr.pairs.weight=2", "less than or equal to 1"),
        ("csr.pairs.scorer=judge", "'clip' or 'own'"),
        ("seva.pairs.step=1000", "less than 1000"),
        ("rlaif_v_lite.pairs.samples=1", "greater than or equal to 2"),
        ("csr.iterations=0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_value_names_the_flag_and_computes_nothing(
    finished: Finished, tmp_path: Path, setting: str, said: str
) -> None:
    lab = finished.lab.at(tmp_path)
    done = lab.invoke(*argv(setting.partition(".")[0], extra=("-o", setting)))
    assert done.code == 2
    (line,) = done.err.strip().splitlines()
    assert f"-o {setting.partition('=')[0]}" in line
    assert said in line
    assert not lab.stages.exists()


def test_a_clip_model_that_is_not_there_is_one_line(finished: Finished, tmp_path: Path) -> None:
    lab = finished.lab.at(tmp_path)
    extra = ("-o", "csr.pairs.scorer=clip", "-o", f"csr.pairs.clip={tmp_path / 'none'}")
    done = lab.invoke(*argv("csr", extra=extra))
    assert done.code == 2
    (line,) = done.err.strip().splitlines()
    assert f"clip model {tmp_path / 'none'}" in line


def test_csr_with_a_clip_model(finished: Finished, tmp_path: Path) -> None:
    from tests.unit.models.test_clip import build_clip

    lab = finished.lab.at(tmp_path)
    clip = build_clip(tmp_path / "clip")
    extra = ("-o", "csr.pairs.scorer=clip", "-o", f"csr.pairs.clip={clip}", "-o", "csr.iterations=1")
    done = lab.invoke(*argv("csr", extra=extra, leave=("csr.iterations",)))
    assert done.code == 0, done.err
    (made,) = lab.done("pairs")
    kept = [json.loads(line) for line in (made / "clip.jsonl").read_text().splitlines()]
    assert kept
    assert all(-1 <= row["value"] <= 1 for row in kept)
    assert pairs_of(lab)["csr 1"] != pairs_of(finished.lab)["csr 1"]


def test_a_method_that_fails_does_not_stop_the_others(finished: Finished, tmp_path: Path) -> None:
    lab = finished.lab.at(tmp_path)
    shutil.copytree(finished.lab.folder / "cache", tmp_path / "cache")
    extra = ("-o", "sima.pairs.judge_prompt=Describe the image. {first} {second}",
             "-o", "sima.pairs.verdicts=['[[1]]', '[[2]]']")  # fmt: skip
    done = lab.invoke(*argv("sima", "rlaif_v_lite", extra=extra))
    assert done.code == 2
    assert "sima: no pair is left to train on" in done.err.strip().splitlines()[-1]
    assert "RLAIF-V lite" in done.out
    (run,) = lab.runs()
    titles = {row["title"] for row in json.loads((run / "scores.json").read_text())["variants"]}
    scored = {path.parent.name for path in run.glob("records/*/chartqa.jsonl")}
    assert "SIMA" in titles
    assert scored == {"baseline", "rlaif_v_lite"}
    assert any("unfinished: sima" in note for note in table(run)["notes"])
    assert (run / "manifest.json").is_file()
