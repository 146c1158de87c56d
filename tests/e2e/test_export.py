"""What a run has made, taken out and used elsewhere: pairs, adapters, merged models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import ModelCard

from stic_eval.report.cell_text import points
from stic_eval.training import pair_formats
from tests.e2e.conftest import Finished, Lab, records


def pairs_of(folder: Path) -> list[tuple[str, str, str, bytes]]:
    return [(r.prompt, r.chosen, r.rejected, r.image) for r in pair_formats.rows(folder)]


def test_a_run_s_pairs_go_out_and_come_back(finished: Finished, tmp_path: Path) -> None:
    lab = finished.lab
    (stage,) = lab.done("pairs")
    for to in ("trl", "llama-factory", "hf-dataset"):
        done = lab.invoke("export", "pairs", finished.folder, "--to", to, "--output", tmp_path / to)
        assert (done.code, "--method stic --seed 0" in done.err) == (0, True)
        back = tmp_path / f"{to}.parquet"
        assert lab.invoke("import", "pairs", tmp_path / to, "--output", back, "-q").code == 0
        assert pairs_of(back) == pairs_of(stage / "pairs.parquet")


def test_pairs_made_elsewhere_are_trained_on_without_images(finished: Finished, tmp_path: Path) -> None:
    lab = finished.lab.at(tmp_path / "there")
    (stage,) = finished.lab.done("pairs")
    rows = [
        {"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected, "image": "0.png"}
        for row in pair_formats.rows(stage / "pairs.parquet")
    ]
    (lab.folder / "theirs.json").write_text(json.dumps(rows))
    done = lab.invoke("import", "pairs", "theirs.json", "--image-root", lab.photos, "-q")
    assert done.code == 0, done.err
    options = [part for option in (
        "stage1.batch_size=2", "stage1.learning_rate=0.01", "lora.r=4", "lora.alpha=8",
    ) for part in ("-o", option)]  # fmt: skip
    argv = ["train", "--model", str(lab.model), "--method", "stic_stage1", *options, "-q"]
    assert "--images: the selected method learns" in lab.invoke(*argv).err
    done = lab.invoke(*argv, "--pairs", "pairs.parquet")
    assert done.code == 0, done.err
    (made,) = lab.done("pairs")
    assert (made / "pairs.parquet").read_bytes() == (lab.folder / "pairs.parquet").read_bytes()
    assert (lab.done("preference")[0] / "adapter" / "adapter_model.safetensors").is_file()
    plan = lab.invoke(*argv, "--pairs", "pairs.parquet", "--dry-run").out
    assert ["3" in line and "cached" in line for line in plan.splitlines() if "preference" in line] == [True]
    # A run that was only trained knows its stages by its settings.
    (run,) = lab.runs()
    done = lab.invoke("export", "pairs", run, "--to", "trl", "--output", "out.parquet")
    assert done.code == 0, done.err
    assert pairs_of(lab.folder / "out.parquet") == pairs_of(made / "pairs.parquet")
    done = lab.invoke("export", "adapter", run, "--output", "out", "-q")
    assert done.code == 0, done.err
    text = (lab.folder / "out" / "README.md").read_text()
    assert "It was not evaluated." in text
    assert "6 preference pairs, made elsewhere, of 1 images" in text


def test_pairs_that_nobody_would_learn_from_are_refused(finished: Finished, tmp_path: Path) -> None:
    lab = finished.lab
    pairs = lab.done("pairs")[0] / "pairs.parquet"
    done = lab.invoke(*lab.argv("run", "--method", "sft", "--pairs", pairs, "--output", tmp_path / "x",
                                leave=("stage1", "stage2")))  # fmt: skip
    assert (done.code, "learns from pairs" in done.err) == (2, True), done.err
    assert not (tmp_path / "x").exists()
    texts = {name: ["x"] for name in pair_formats.COLUMNS}
    pq.write_table(pa.table({**texts, "seed": [1]}), tmp_path / "texts.parquet")
    for wrong, reason in (
        (lab.photos / "0.png", "not a parquet file of pairs"),
        (tmp_path / "no", "no such file"),
        (tmp_path / "texts.parquet", "its column prompt does not have the type"),
    ):
        done = lab.invoke(*lab.argv("run", "--pairs", wrong, "--output", tmp_path / "x"))
        assert (done.code, reason in done.err, "import pairs" in done.err) == (2, True, True)


def test_an_adapter_goes_out_with_its_card(finished: Finished, tmp_path: Path) -> None:
    lab = finished.lab
    done = lab.invoke("export", "adapter", finished.folder, "--output", tmp_path / "mine", "-q")
    assert done.code == 0, done.err
    (stage,) = lab.done("infused_sft")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "mine" / name).read_bytes() == (stage / "adapter" / name).read_bytes()
    text = (tmp_path / "mine" / "README.md").read_text()
    assert str(lab.model) not in text
    assert str(lab.folder) not in text
    table = json.loads((finished.folder / "table.json").read_text())
    for row in table["rows"]:
        for cell in row["cells"].values():
            assert points(cell["score"]) in text
            found = cell["difference"]
            if found and found["low"] is not None:  # it is where all is one image
                span = f"[{points(found['low'])}, {points(found['high'])}]"
                assert (" =" if found["better"] == found["worse"] == 0 else span) in text
    data = ModelCard(text).data
    assert data.base_model is None  # a folder, which the hub does not know
    assert "tiny-vlm" in text
    assert {result.metric_value for result in data.eval_results or ()} == {
        round(row["cells"][name]["score"], 2)
        for row in table["rows"] if row["label"] == "STIC"
        for name in ("textvqa", "chartqa", "mmbench")
    }  # fmt: skip
    again = lab.invoke("export", "adapter", finished.folder, "--output", tmp_path / "mine")
    assert (again.code, "is not empty" in again.err) == (2, True)
    assert (
        lab.invoke("export", "adapter", finished.folder, "--output", tmp_path / "mine", "--force").code == 0
    )


def test_a_merged_model_answers_as_base_and_adapter(finished: Finished, tmp_path: Path) -> None:
    lab = finished.lab.at(tmp_path / "there")
    done = finished.lab.invoke(
        "export", "adapter", finished.folder, "--output", lab.folder / "m", "--merge", "-q"
    )
    assert done.code == 0, done.err
    assert "merged model in float32" in done.out
    argv = lab.argv("eval", "--no-dar", "-q")
    argv[argv.index(str(lab.model))] = "m"
    done = lab.invoke(*argv)
    assert done.code == 0, done.err
    for benchmark in ("textvqa", "chartqa", "mmbench"):
        ours = [row["response"] for row in records(lab.runs()[0], "baseline", benchmark)]
        theirs = [row["response"] for row in records(finished.folder, "stic", benchmark)]
        assert ours == theirs
        assert theirs != [row["response"] for row in records(finished.folder, "baseline", benchmark)]
    before = {path.name for path in lab.model.iterdir()}
    assert {path.name for path in (lab.folder / "m").iterdir()} == before | {"README.md"}
    # Into one folder goes either: a loader that finds both takes the adapter.
    done = finished.lab.invoke("export", "adapter", finished.folder, "--output", lab.folder / "m", "--force")
    assert (done.code, "holds a model" in done.err) == (2, True)
    (lab.folder / "a").mkdir()
    (lab.folder / "a" / "adapter_config.json").write_text("{}")
    argv = ("export", "adapter", finished.folder, "--output", lab.folder / "a", "--force", "--merge")
    done = finished.lab.invoke(*argv)
    assert (done.code, "holds an adapter" in done.err) == (2, True)


@pytest.mark.campaign  # minutes
def test_the_embedded_model_merges_in_its_own_type_or_another(lab: Lab, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    lab = lab.at(tmp_path)
    values = ("images=8", "max_new_tokens=8", "learning_rate=0.03", "batch_size=2")
    options = [part for value in values for part in ("-o", f"stage1.{value}")]
    done = lab.invoke("train", "--method", "stic_stage1", *options, "-q")
    assert done.code == 0, done.err
    (run,) = lab.runs()
    (stage,) = lab.done("preference")
    for dtype, argv in (("float32", ["--dtype", "float32"]), ("bfloat16", [])):
        done = lab.invoke("export", "adapter", run, "--output", dtype, "--merge", *argv, "-q")
        assert done.code == 0, done.err
        model = AutoModelForImageTextToText.from_pretrained(lab.folder / dtype, dtype="auto")
        assert str(model.dtype) == f"torch.{dtype}"
    rows = ["--limit", "6", "--benchmarks", "llava_bench", "-q", "-o", "rows=pocket"]
    assert lab.invoke("eval", "--adapter", stage / "adapter", *rows, "--output", "beside").code == 0
    assert lab.invoke("eval", "--model", "float32", *rows, "--output", "merged").code == 0
    beside, merged = lab.folder / "beside", lab.folder / "merged"
    said = [row["response"] for row in records(beside, "adapter", "llava_bench")]
    assert said == [row["response"] for row in records(merged, "baseline", "llava_bench")]
    assert said != [row["response"] for row in records(beside, "baseline", "llava_bench")]


def test_what_is_not_there_any_more_is_said(finished: Finished, tmp_path: Path) -> None:
    lab = finished.lab.at(tmp_path)
    for argv in (("pairs", finished.folder, "--to", "csv"), ("adapter", finished.folder, "--output", "a")):
        done = lab.invoke("export", *argv)
        assert (done.code, "is not in the cache" in done.err) == (2, True)
    shutil.copytree(finished.folder, tmp_path / "run")
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    scores["variants"] = [entry for entry in scores["variants"] if entry["method"] == "baseline"]
    (tmp_path / "run" / "scores.json").write_text(json.dumps(scores))
    done = lab.invoke("export", "pairs", "run", "--to", "csv")
    assert (done.code, "no pairs were made" in done.err) == (2, True)
    assert "no run is called" in lab.invoke("export", "pairs", "nothing", "--to", "csv").err
    assert not (tmp_path / "pairs-csv").exists()


def test_a_stage_that_made_no_adapter_is_not_taken_for_one(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    for entry in scores["variants"]:
        assert not entry["stages"] or entry["stages"].pop()["name"] == "infused_sft"
    (tmp_path / "run" / "scores.json").write_text(json.dumps(scores))
    done = finished.lab.invoke("export", "adapter", tmp_path / "run", "--output", tmp_path / "a", "-q")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "is descriptions" in done.err
    assert "which is not an adapter" in done.err
    assert "--output" not in done.err
    assert not (tmp_path / "a").exists()


# Executing it leaves a trace.
TRACE = """
from pathlib import Path
from pydantic import BaseModel, ConfigDict
from stic_eval.contracts.method import Method, Plan
class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
method = Method("theirs", "Theirs", lambda options, data: Plan(None), Options)
Path(__file__).with_suffix(".trace").touch()
"""


def test_plug_ins_of_an_evaluated_run_are_not_executed(finished: Finished, tmp_path: Path) -> None:
    lab, run = finished.lab, tmp_path / "run"
    shutil.copytree(finished.folder, run)
    (tmp_path / "theirs.py").write_text(TRACE)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["plugins"] = [str(tmp_path / "theirs.py")]
    settings["methods"], settings["method_options"] = ["theirs"], {"theirs": {"shade": 0.25}}
    settings["benchmarks"] += ["signs"]
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    scores = json.loads((run / "scores.json").read_text())
    for entry in scores["variants"]:
        entry["method"] = entry["method"].replace("stic", "theirs")
    (run / "scores.json").write_text(json.dumps(scores))
    done = lab.invoke("export", "pairs", run, "--to", "trl", "--output", tmp_path / "p.parquet")
    assert (done.code, "--method theirs" in done.err) == (0, True), done.err
    done = lab.invoke("export", "adapter", run, "--output", tmp_path / "a", "-q")
    assert done.code == 0, done.err
    assert "papers and data sets of theirs, signs" in done.err
    assert "shade: 0.25" in (tmp_path / "a" / "README.md").read_text()
    assert not (tmp_path / "theirs.trace").exists()


def test_settings_that_cannot_be_used_are_named(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("seeds: [-1]\n")
    done = finished.lab.invoke("export", "pairs", tmp_path / "run", "--to", "csv")
    assert (done.code, "config.yaml: seeds: " in done.err, done.err.count("\n")) == (2, True, 1)


@pytest.fixture(scope="module")
def several(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Two seeds, two rounds of pairs."""
    lab = lab.at(tmp_path_factory.mktemp("several"))
    argv = lab.argv("train", "--method", "stic", "--seed", "0", "--seed", "1", "-o", "iterations=2",
                    "-o", "stage2.use=false", "-q", leave=("stage1.images",))  # fmt: skip
    done = lab.invoke(*argv, "-o", "stage1.images=2")
    assert done.code == 0, done.err
    return lab


def test_of_several_one_is_named_by_flags(several: Lab) -> None:
    (run,) = several.runs()
    done = several.invoke("export", "pairs", run, "--to", "trl", "--output", "p.parquet")
    assert (done.code, "there are 4 sets of pairs" in done.err) == (2, True)
    assert done.err.count("--method stic --seed 1") == 2
    assert [done.err.count(f"--iteration {number}") for number in (1, 2)] == [2, 2]
    done = several.invoke("export", "pairs", run, "--to", "trl", "--method", "stik")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert (
        '--method stik: made no pairs in this run (there are those of stic); did you mean "stic"?' in done.err
    )
    done = several.invoke("export", "pairs", run, "--to", "trl", "--output", "p.parquet", "--seed", "1",
                          "--iteration", "2")  # fmt: skip
    assert done.code == 0, done.err
    key = done.err.partition("(key ")[2][:8]
    (stage,) = (path for path in several.done("pairs") if path.name.startswith(f"pairs-{key}"))
    assert pairs_of(several.folder / "p.parquet") == pairs_of(stage / "pairs.parquet")
    done = several.invoke("export", "pairs", run, "--to", "trl", "--output", "q.parquet", "--key", key)
    assert done.code == 0, done.err
    done = several.invoke("export", "adapter", run, "--output", "a")
    assert (done.code, "there are 2 adapters" in done.err) == (2, True)
    done = several.invoke("export", "adapter", run, "--output", "a", "--seed", "7")
    assert (done.code, "none of the run's is meant" in done.err) == (2, True)
    assert several.invoke("export", "adapter", run, "--output", "a", "--seed", "1", "-q").code == 0
    assert "- Seed: 1" in (several.folder / "a" / "README.md").read_text()


def test_plug_ins_that_are_executed_are_named(several: Lab, tmp_path: Path) -> None:
    (run,) = several.runs()
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "theirs.py").write_text(TRACE)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["plugins"] = [str(tmp_path / "theirs.py")]
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(settings))
    argv = ("--to", "trl", "--output", tmp_path / "p.parquet", "--seed", "0", "--iteration", "2")
    done = several.invoke("export", "pairs", tmp_path / "run", *argv)
    assert done.code == 0, done.err
    assert f"note: executes the plug-ins that the run was trained with: {tmp_path / 'theirs.py'}" in done.err
    assert (tmp_path / "theirs.trace").exists()


def test_a_card_says_of_each_round_whose_pairs_they_are(several: Lab, tmp_path: Path) -> None:
    lab = several.at(tmp_path)
    pairs = several.done("pairs")[0] / "pairs.parquet"
    argv = lab.argv("train", "--method", "stic", "--pairs", pairs, "-o", "iterations=2",
                    "-o", "stage2.use=false", "-q", leave=("stage1.images",))  # fmt: skip
    done = lab.invoke(*argv, "-o", "stage1.images=2")
    assert done.code == 0, done.err
    argv = lab.argv("train", "--method", "seva", "-q", leave=("stage", "dar"))
    for option in ("pairs.items=2", "pairs.max_new_tokens=8", "training.batch_size=2", "pairs.filter=none"):
        argv += ["-o", option]
    done = lab.invoke(*argv)
    assert done.code == 0, done.err
    said = {}
    for run in lab.runs():
        done = lab.invoke("export", "adapter", run, "--output", run.name, "-q")
        assert done.code == 0, done.err
        lines = (lab.folder / run.name / "README.md").read_text().splitlines()
        said[run.name.split("-")[2]] = [line for line in lines if "preference pairs" in line]
    first, second = said["stic"]
    assert "made elsewhere, of 2 images (" in first.replace("\\", "")
    assert "made by the model itself, of 2 images of photos (" in second.replace("\\", "")
    (only,) = said["seva"]
    assert "made by the model itself, of 2 images of llava.json (" in only.replace("\\", "")
