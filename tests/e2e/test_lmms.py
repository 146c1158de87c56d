"""lmms-eval both ways: its tasks in a run of ours, our models in a run of its own command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Done, Lab

pytest.importorskip("lmms_eval")

TASK = """
task: counted
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {rows}
test_split: test
output_type: {output}
doc_to_visual: !function utils.visual
doc_to_text: !function utils.text
doc_to_target: answer
{more}
metadata:
  version: 0.0
"""
GENERATED = """
generation_kwargs:
  max_new_tokens: 128
  until: ["!"]
process_results: !function utils.right
metric_list:
  - {metric: right, aggregation: mean, higher_is_better: true}
"""
CHOSEN = """
doc_to_choice: !function utils.choices
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
UTILS = """
def visual(doc):
    return [doc["image"].convert("RGB")]


def text(doc):
    return doc["question"] + "\\nAnswer the question with a single word."


def right(doc, results):
    return {"right": float(results[0] == doc["answer"])}


def choices(doc):
    return [doc["answer"], "zebra", "sky blue pink"]
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parquet file with rows of the pocket world, in ChartQA's columns and in POPE's at once."""
    from datasets import Dataset
    from datasets import Image as ImageFeature

    from stic_eval.images import encoded_bytes
    from stic_eval.pocket.rows import benchmark_rows

    rows = []
    for index, row in enumerate(list(benchmark_rows("chartqa", "test"))[:8]):
        image = {"bytes": encoded_bytes(row["image"]), "path": None}
        rows.append({**row, "image": image, "question_id": str(index), "category": "random"})
    path = tmp_path_factory.mktemp("rows") / "test.parquet"
    Dataset.from_list(rows).cast_column("image", ImageFeature()).to_parquet(path)
    return path


def pope_rows(pictures: Path, path: Path) -> Path:
    """The same pictures with questions of POPE's kind."""
    from datasets import Dataset

    asked = Dataset.from_parquet(str(pictures)).map(
        lambda row, i: {
            "question": f"Is the {['chart', 'dog'][i % 2]} there?",
            "answer": ["yes", "no"][i % 2],
        },
        with_indices=True,
    )
    asked.to_parquet(path)
    return path


def records(run: Path, variant: str, benchmark: str) -> list[dict[str, Any]]:
    path = run / "records" / variant / f"{benchmark.replace(':', '%3A')}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---------------------------------------------------------------- its tasks here


def test_a_task_runs_beside_our_benchmarks_and_is_found_again(
    lab: Lab, pictures: Path, tmp_path: Path
) -> None:
    lab = lab.at(tmp_path)
    rows = pope_rows(pictures, tmp_path / "pope.parquet")
    argv = [
        "run", "--model", "pocket", "--method", "baseline", "--dar", "--benchmarks", "lmms:pope,chartqa",
        "-o", f"rows.lmms:pope={rows}", "--limit", "6", "--output", "both",
    ]  # fmt: skip
    plan = lab.invoke(*argv, "--dry-run")
    assert plan.code == 0, plan.err
    done = lab.invoke(*argv)
    assert done.code == 0, done.err
    assert "lmms:pope" in done.out
    run = tmp_path / "both"
    for variant in ("baseline", "baseline+dar"):
        found = records(run, variant, "lmms:pope")
        assert len(found) == 6
        assert all(record["score"] in (0.0, 1.0) for record in found)
        assert all("single word or phrase" in record["question"] for record in found)
        assert all(bool(record["description"]) == (variant == "baseline+dar") for record in found)
    cells = json.loads((run / "table.json").read_text())["rows"][0]["cells"]
    shown = cells["lmms:pope"]
    mean = sum(record["score"] for record in records(run, "baseline", "lmms:pope")) / 6
    assert shown["n"] == 6
    assert shown["score"] == pytest.approx(100 * mean)
    before = (run / "scores.json").read_text()
    again = lab.invoke(*argv)
    assert again.code == 0, again.err
    assert "load pocket" not in again.err  # nothing was asked
    assert (run / "scores.json").read_text() == before
    detail = lab.invoke("table", "both", "--layout", "detail", "--benchmark", "lmms:pope")
    assert detail.code == 0, detail.err
    assert "pope_f1_score" in detail.out


def test_data_check_and_show_know_tasks(lab: Lab, pictures: Path, tmp_path: Path) -> None:
    lab = lab.at(tmp_path)
    rows = pope_rows(pictures, tmp_path / "pope.parquet")
    done = lab.invoke("data", "check", "lmms:pope", "--from", rows)
    assert (done.code, "8 rows, no problems" in done.out) == (0, True), done.err
    shown = lab.invoke("show", "lmms:pope")
    assert shown.code == 0, shown.err
    assert "pope_accuracy" in shown.out
    listed = lab.invoke("ls", "benchmarks")
    assert "lmms:pope" not in listed.out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--benchmarks", "lmms:popee"), 'did you mean "pope"'),
        (("--benchmarks", "lmms:pope_full"), "lmms:pope_adv"),
        (
            ("--benchmarks", "lmms:pope", "-o", "benchmarks.lmms:pope.metric=f1"),
            "benchmarks.lmms:pope.metric",
        ),
        (("--benchmarks", "lmms:pope"), "-o rows.lmms:pope=FILE"),
    ],
)
def test_mistakes_are_one_line(lab: Lab, tmp_path: Path, argv: tuple[str, ...], said: str) -> None:
    done: Done = lab.at(tmp_path).invoke("run", "--model", "pocket", "--method", "baseline", *argv)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


# ---------------------------------------------------------------- our models there


def lmms_eval(work: Path, pictures: Path, model_args: str, *extra: str) -> dict[str, list[dict[str, Any]]]:
    """Runs lmms-eval's own command on two tasks over the pictures; its log of either's samples."""
    for name, more in (("counted", GENERATED), ("chosen", CHOSEN)):
        folder = work / "tasks" / name
        folder.mkdir(parents=True, exist_ok=True)
        output = "generate_until" if name == "counted" else "multiple_choice"
        text = TASK.format(rows=pictures, output=output, more=more).replace("task: counted", f"task: {name}")
        (folder / f"{name}.yaml").write_text(text)
        (folder / "utils.py").write_text(UTILS)
    environment = {**os.environ, "HF_HOME": str(work / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    out = work / "out"
    command = [
        sys.executable, "-m", "lmms_eval", "--model", "stic_eval", "--model_args", model_args,
        "--tasks", "counted,chosen", "--include_path", str(work / "tasks"), "--log_samples",
        "--output_path", str(out), *extra,
    ]  # fmt: skip
    done = subprocess.run(command, check=False, env=environment, cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for name in ("counted", "chosen"):
        logs = sorted(out.rglob(f"*_samples_{name}.jsonl"))
        assert logs, done.stderr[-3000:]
        lines = logs[-1].read_text(encoding="utf-8").splitlines()
        found[name] = sorted((json.loads(line) for line in lines), key=lambda row: int(row["doc_id"]))
    return found


def said(run: Path, variant: str) -> list[str]:
    return [record["response"] for record in records(run, variant, "chartqa")]


def test_our_model_answers_in_lmms_eval_as_it_does_here(
    lab: Lab, pictures: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    lab = lab.at(tmp_path)
    here = lab.invoke(
        "eval", "--model", lab.model, "--benchmarks", "chartqa", "-o", f"rows.chartqa={pictures}",
        "--adapter", adapters[0], "--output", "here",
    )  # fmt: skip
    assert here.code == 0, here.err
    ours = {"": said(tmp_path / "here", "baseline"), "adapter": said(tmp_path / "here", "adapter")}
    assert ours[""] != ours["adapter"]
    for kind, more in (("", ""), ("adapter", f",adapter={adapters[0]}")):
        logged = lmms_eval(tmp_path / f"there{kind}", pictures, f"pretrained={lab.model},dtype=float32{more}")
        theirs = [row["filtered_resps"] for row in logged["counted"]]
        assert theirs == [text.split("!")[0] for text in ours[kind]]


def test_options_are_compared_by_likelihood(lab: Lab, pictures: Path, tmp_path: Path) -> None:
    logged = lmms_eval(tmp_path, pictures, "pretrained=pocket,device=cpu,batch_size=4")
    answers = [row["filtered_resps"] for row in logged["counted"]]
    right = [row["right"] for row in logged["counted"]]
    assert sum(right) >= 4, answers  # the pocket model reads its world
    for row, known in zip(logged["chosen"], right, strict=True):
        losses = [float(pair[0]) for pair in row["filtered_resps"]]
        greedy = [str(pair[1]) == "True" for pair in row["filtered_resps"]]
        assert row["acc"] == float(losses.index(min(losses)) == 0)
        assert greedy[1:] == [False, False]
        if known:  # what it answers freely is its greedy answer, and the likeliest
            assert greedy[0]
            assert row["acc"] == 1.0
