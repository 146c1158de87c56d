"""A whole run in the form of other tools: read by their own readers where these are installed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from huggingface_hub.errors import HfHubHTTPError

from stic_eval.evals import inspect_logs
from stic_eval.experiment.hub_export import _name_of
from stic_eval.report.model_card import public
from stic_eval.report.run_texts import public_name
from stic_eval.store import read_jsonl
from tests.support.command import run_command

DATA = Path(__file__).parent.parent / "data" / "former"
HOSTILE = "</script><script>alert(1)</script> [x](javascript:alert(1)) | `\u202e\x1b[31m"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, its cache beside it; a model has answered something hostile."""
    folder = Path(shutil.copytree(DATA, tmp_path_factory.mktemp("export") / "home-of-somebody"))
    scores = json.loads((folder / "run" / "scores.json").read_text())
    scores["model"] = str(folder / "model")
    for entry in scores["variants"]:
        entry.pop("sha256", None)
    (folder / "run" / "scores.json").write_text(json.dumps(scores))
    records = folder / "run" / "records" / "stic" / "chartqa.jsonl"
    rows = list(read_jsonl(records))
    rows[0] |= {"response": HOSTILE, "thinking": "hm", "score": None, "why": f"no such file: {folder}/x.png"}
    records.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def export(place: Path, *argv: str, code: int = 0) -> str:
    return run_command("export", "run", "run", *argv, at=place, code=code)


def texts(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in (".md", ".json", ".jsonl", ".yaml", ".csv"):
            yield path.read_text(encoding="utf-8")


def test_without_output_files_are_listed_and_none_is_kept(place: Path) -> None:
    before = sorted(place.rglob("*"))
    for to in ("inspect", "lm-eval", "hub"):
        said = export(place, "--to", to)
        assert "nothing is kept: --output DIR" in said and " kB  " in said
    assert sorted(place.rglob("*")) == before


def test_logs_of_inspect(place: Path) -> None:
    export(place, "--to", "inspect", "--output", "logs")
    logs = {path.name: json.loads(path.read_text()) for path in (place / "logs").iterdir()}
    assert len(logs) == 12
    for log in logs.values():
        assert (log["version"], log["status"]) == (2, "success")
        assert {"created", "task", "dataset", "model", "config"} <= log["eval"].keys()
        assert log["eval"]["model"] == "stic-eval/model"
        assert len(log["samples"]) == log["results"]["total_samples"] == log["eval"]["dataset"]["samples"]
        for sample in log["samples"]:
            assert {"id", "epoch", "input", "target", "messages", "output", "metadata"} <= sample.keys()
            assert sample["output"]["choices"][0]["message"] == sample["messages"][-1]
    (log,) = [log for name, log in logs.items() if "_chartqa-stic_" in name]
    first = log["samples"][0]
    assert "scores" not in first and first["metadata"]["unscored"] == "no such file: …/x.png"
    # What this program reads of other people's logs, it reads of its own.
    rows = [row for _, row in inspect_logs.log_rows(log)]
    assert inspect_logs.is_log(log) and rows[0] == {
        "id": first["id"], "response": HOSTILE, "thinking": "hm", "unclosed": False,
    }  # fmt: skip
    assert not any(str(place) in text or "home-of" in text for text in texts(place / "logs"))


def test_inspect_reads_them(place: Path, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log")
    export(place, "--to", "inspect", "--output", str(tmp_path / "logs"))
    found = log.list_eval_logs(str(tmp_path / "logs"))
    assert len(found) == 12
    read = {(one.eval.task, one.eval.model_args["variant"]): one for one in map(log.read_eval_log, found)}
    scores = json.loads((place / "run" / "scores.json").read_text())
    for entry in scores["variants"]:
        for name, summary in entry["summaries"].items():
            (result,) = read[name, entry["folder"]].results.scores
            assert result.metrics["percent"].value == summary["score"]
    sample = read["chartqa", "stic"].samples[0]
    assert sample.output.completion == HOSTILE and not sample.scores


def test_results_of_lm_eval(place: Path) -> None:
    export(place, "--to", "lm-eval", "--output", "lm")
    folders = sorted((place / "lm").iterdir())
    assert [folder.name for folder in folders][-1] == "model,variant=stic+dar"
    for folder in folders:
        (path,) = folder.glob("results_*.json")
        data = json.loads(path.read_text())
        names = {"chartqa", "textvqa", "own"}
        for part in ("results", "configs", "versions", "n-shot", "higher_is_better", "n-samples"):
            assert data[part].keys() == names, part
        for name, result in data["results"].items():
            assert 0 <= result["score,none"] <= 1 and result["score_stderr,none"] == "N/A"
            (samples,) = folder.glob(f"samples_{name}_*.jsonl")
            rows = [json.loads(line) for line in samples.read_text().splitlines()]
            assert len(rows) == data["n-samples"][name]["original"] and len(data["task_hashes"][name]) == 64
            assert all(row["resps"] and row["filter"] == "none" for row in rows)
    assert not any("home-of" in text for text in texts(place / "lm"))


def test_lm_eval_reads_them(place: Path, tmp_path: Path) -> None:
    schema = pytest.importorskip("lm_eval.result_schema")
    from lm_eval.utils import make_table

    export(place, "--to", "lm-eval", "--output", str(tmp_path / "lm"))
    for path in (tmp_path / "lm").glob("*/results_*.json"):
        data = json.loads(path.read_text())
        assert data.keys() <= schema.EvalResults.__annotations__.keys()
        assert "chartqa" in make_table(data)


def test_repositories_of_the_hub(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = export(place, "--to", "hub", "--output", str(out))
    assert "not in .eval_results: ChartQA: its rows are no data set of the hub" in said
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "model/README.md", "model/adapter_config.json", "model/adapter_model.safetensors", "model/table.csv",
        "model/table.md", "pairs/README.md", "pairs/data/train-00000-of-00001.parquet",
    ]  # fmt: skip
    card = ModelCard.load(out / "model" / "README.md")
    assert {result.dataset_name for result in card.data.eval_results} >= {"ChartQA", "TextVQA"}
    from datasets import load_dataset

    pairs = load_dataset(str(out / "pairs"), split="train", cache_dir=str(tmp_path / "hf"))
    assert pairs.num_rows == 3 and pairs[0]["images"][0].size
    assert not any("/" in source for source in pairs["source"])
    (stage,) = (place / "cache" / "stages").glob("pairs-*/pairs.parquet")
    ours, theirs = (
        pq.read_table(stage),
        pq.read_table(out / "pairs" / "data" / "train-00000-of-00001.parquet"),
    )
    assert ours.drop(["source"]).equals(theirs.drop(["source"]))
    assert not any("home-of" in text for text in texts(out))
    said = export(place, "--to", "hub", "--no-pairs")
    assert "pairs/" not in said


def test_scores_on_whole_data_sets_of_the_hub_are_listed_as_it_wants_them(
    place: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(place, tmp_path / "there"))
    settings = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    settings["rows"] = {"all": "hub"}
    (folder / "run" / "config.yaml").write_text(yaml.safe_dump(settings))
    said = run_command("export", "run", "run", "--to", "hub", "--output", "out", "--no-pairs", at=folder)
    assert "ChartQA" not in said
    found = folder / "out" / "model" / ".eval_results"
    assert {"chartqa.yaml", "chartqa_dar.yaml", "textvqa.yaml"} <= {path.name for path in found.iterdir()}
    (plain,) = parse_eval_result_entries(yaml.safe_load((found / "chartqa.yaml").read_text()))
    (described,) = parse_eval_result_entries(yaml.safe_load((found / "chartqa_dar.yaml").read_text()))
    assert "/" in plain.dataset_id and plain.task_id and isinstance(plain.value, float)
    assert described.notes is not None and described.notes.startswith("With describe and respond")
    settings["limit"] = 2
    (folder / "run" / "config.yaml").write_text(yaml.safe_dump(settings))
    said = run_command("export", "run", "run", "--to", "hub", "--no-pairs", at=folder)
    assert "ChartQA: it was not evaluated on all rows (--limit)" in said and ".eval_results/" not in said


class Hub:
    """A stand-in for the hub's client, which keeps what it is told."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal, self.calls = refusal, list[tuple[Any, ...]]()

    def __call__(self, **kwargs: Any) -> Hub:
        assert "token" not in kwargs
        return self

    def create_repo(self, name: str, *, repo_type: str, private: bool, exist_ok: bool) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.calls.append(("create", name, repo_type, private, exist_ok))

    def upload_folder(self, *, repo_id: str, repo_type: str, folder_path: Path, **more: Any) -> Any:
        files = sorted(path.name for path in folder_path.rglob("*") if path.is_file())
        self.calls.append(("upload", repo_id, repo_type, files))
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


def test_a_push_sends_what_is_listed_to_private_repositories(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", hub)
    said = export(place, "--to", "hub", "--push", "me/mine")
    assert [call[:3] for call in hub.calls] == [
        ("create", "me/mine", "model"), ("upload", "me/mine", "model"),
        ("create", "me/mine-pairs", "dataset"), ("upload", "me/mine-pairs", "dataset"),
    ]  # fmt: skip
    assert hub.calls[0][3:] == (True, True) and "README.md" in hub.calls[1][3]
    assert "https://hub/me/mine-pairs/commit/1" in said and not (place / "model" / "README.md").exists()


def test_what_cannot_be_pushed_is_a_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2

    response = httpx2.Response(401, request=httpx2.Request("POST", "https://huggingface.co"))
    hub = Hub(HfHubHTTPError("401 Unauthorized", response=response))
    monkeypatch.setattr("huggingface_hub.HfApi", hub)
    said = export(place, "--to", "hub", "--push", "me/mine", "--no-pairs", code=2)
    assert said.splitlines()[-1].startswith("stic-eval: --push me/mine: 401") and "hf auth login" in said
    assert "give OWNER/NAME" in export(place, "--to", "hub", "--push", "me/mi ne", code=2)
    assert "--push me/mine: goes with --to hub" in export(
        place, "--to", "inspect", "--push", "me/mine", code=2
    )
    assert "--seed 1: goes with --to hub" in export(place, "--to", "lm-eval", "--seed", "1", code=2)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:key@host/v1", "https://host/v1"),
        ("--base-url http://u:p@h:8000/v1", "--base-url http://h:8000/v1"),
        ("https://host/a@b", "https://host/a@b"),
    ],
)
def test_who_somebody_is_to_a_server_stays_here(text: str, shown: str) -> None:
    assert public(text) == shown


def test_of_paths_the_last_part_goes_out() -> None:
    assert public_name("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"
    for path in ("/home/me/models/mine", "./mine", "~/mine", "a/b/mine", "C:\\models\\mine"):
        assert public_name(path) == "mine"
    assert [_name_of(s) for s in ("/home/me/a.png", "C:\\me\\a.png", "a.png", "https://h/x/a.png")] == [
        "a.png", "a.png", "a.png", "https://h/x/a.png",
    ]  # fmt: skip
