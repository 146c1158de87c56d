"""Limits on text and single tiles from the command line to the notes under the table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Lab
from tests.support.zoo import FAMILIES


@pytest.fixture
def here(lab: Lab, tmp_path: Path) -> Lab:
    return lab.at(tmp_path)


def notes(folder: Path) -> list[str]:
    found: list[str] = json.loads((folder / "table.json").read_text())["notes"]
    return found


def test_what_a_limit_cuts_is_noted_and_listed(here: Lab) -> None:
    """Of six items one asks far more than the limit; tokens are bytes here."""
    items: list[dict[str, Any]] = json.loads(here.instructions.read_text())
    pictured = [item for item in items if "image" in item]
    pictured[3]["conversations"][0]["value"] += " And what is beside it?" * 20
    data = here.folder / "llava.json"
    data.write_text(json.dumps(pictured))
    argv = here.argv(
        "run", "--method", "sft", "--output", "out", leave=("stage1", "stage2.max_new", "stage2.items")
    )
    argv += ["--sft-data", str(data), "-o", "stage2.max_length=60"]
    done = here.invoke(*argv)
    assert done.code == 0, done.err
    (folder,) = here.done("sft")
    cuts = json.loads((folder / "cuts.json").read_text())
    assert [name.split()[0] for name in cuts["left_out"]] == [pictured[3]["id"]]
    said = f"{cuts['cut_rows']} of 6 rows cut at 60 text tokens, by {cuts['cut_tokens']} in all; 1 left out"
    (note,) = [note for note in notes(here.folder / "out") if note.startswith("Text in training (sft): ")]
    assert said in note
    assert said in " ".join(done.out.split())
    assert cuts["cut_rows"] > 0
    assert "1 left out, without an answer token" in (here.folder / "out" / "run.log").read_text()
    assert "cuts.json" in json.loads((folder / "manifest.json").read_text())["files"]
    shutil.rmtree(here.stages)  # the run still says it
    again = here.invoke(*argv)
    assert again.code == 0
    assert note in notes(here.folder / "out")

    broken = here.invoke(*argv[:-1], "stage2.max_length=5", "--output", "none")
    assert broken.code == 2
    assert "fine-tuning: nothing to learn: the prompts of all 6 rows fill max_length 5" in broken.err


def test_a_family_without_single_tiles_is_refused_before_anything_is_done(here: Lab, tmp_path: Path) -> None:
    model = FAMILIES["qwen2_vl"].build(tmp_path / "qwen")
    argv = ["--method", "sft", "--sft-data", here.instructions, "--image-root", here.photos, "--model", model]
    for more in (["train"], ["train", "--dry-run"]):
        done = here.invoke(*more, *argv, "-o", "training.images=single_tile", "--output", "out")
        assert done.code == 2
        assert done.err.startswith("stic-eval: training.images=single_tile: qwen2_vl has no single tile"), (
            done.err
        )
        assert "-o training.images=as_generated" in done.err
        assert done.err.count("\n") == 1
    assert not (here.folder / "out").exists()
    # Nothing is trained, and nothing refused.
    rows = f"rows.textvqa={here.rows['textvqa']}"
    alone = here.invoke(
        "eval", "--model", model, "--benchmarks", "textvqa", "--limit", "1", "-o", rows,
        "-o", "training.images=single_tile", "-q",
    )  # fmt: skip
    assert alone.code == 0, alone.err


@pytest.mark.campaign  # half a minute
def test_how_images_are_shown_is_an_axis(here: Lab, tiny_next: Path) -> None:
    argv = here.argv("run", leave=("stage1", "stage2.max_new", "dar"))[1:]
    argv[1] = str(tiny_next)
    argv[argv.index("textvqa,chartqa,mmbench")] = "textvqa"
    done = here.invoke(
        "ablate", *argv, "--method", "sft", "--vary", "training.images=as_generated,single_tile",
        "--no-dar", "--limit", "2", "--output", "out", "-q",
    )  # fmt: skip
    assert done.code == 0, done.err
    trained = here.done("sft")
    shown = [
        json.loads((path / "manifest.json").read_text())["params"].get("training_images") for path in trained
    ]
    assert sorted(shown, key=str) == [None, "single_tile"]
    one, other = ((path / "adapter" / "adapter_model.safetensors").read_bytes() for path in trained)
    assert one != other
    rows = json.loads((here.folder / "out" / "table.json").read_text())["rows"]
    assert any("single_tile" in row["label"] for row in rows)
    (note,) = [note for note in notes(here.folder / "out") if "single_tile" in note]
    assert note.startswith("Rows with training.images=single_tile were trained on images padded to a square")
