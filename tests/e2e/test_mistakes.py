"""Wrong input to the real methods: one clear line, exit 2, and no trace of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Done, Finished, Lab


@pytest.fixture
def here(lab: Lab, tmp_path: Path) -> Lab:
    """A folder of its own for each mistake."""
    return lab.at(tmp_path / "here")


def complaint(done: Done) -> str:
    assert done.code == 2, done.err
    lines = done.err.splitlines()
    assert [line.startswith("stic-eval: ") for line in lines] == [False] * (len(lines) - 1) + [True]
    assert "Traceback" not in done.err
    assert done.out == ""
    return lines[-1]


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("extra", "parts"),
    [
        (["--method", "stic_stage2"], ["--method", '"stic_stage2"', 'did you mean "stic_stage1"?']),
        (["--method", "positive-only"], ['did you mean "positive_only"?']),
        (["--benchmarks", "textvqa,chart_qa"], ["--benchmarks", '"chart_qa"', 'did you mean "chartqa"?']),
        (["-o", "stage1.btea=0.2"], ["-o stage1.btea", 'did you mean "stage1.beta"?']),
        (["-o", "stic.stage2.itmes=3"], ["-o stic.stage2.itmes", "items"]),
        (["-o", "sft.stage2.items=3"], ["-o sft.stage2.items", "add --method sft"]),
        (["-o", "stage1.beta=-1"], ["stage1.beta", "greater than 0"]),
        (["-o", "stage1.images=many"], ["stage1.images", "many"]),
        (["-o", "stage1.corruptions={low_ress: 1}"], ["corruptions", "low_ress"]),
        (["-o", "stage2.infusion=all"], ["stage2.infusion", "own"]),
        (["-o", "lora.r=0"], ["lora.r", "0"]),
        (["-o", "stage1.beta"], ["-o stage1.beta", "key.sub=value"]),
        (["-o", "dar.separatr=x"], ["dar.separatr", "separator"]),
        (["--limit", "0"], ["--limit", "0"]),
        (["--limit", "-3"], ["--limit", "-3"]),
        (["--seed", "-1"], ["--seed", "0 or larger"]),
        (["--prompts", "nowhere.yaml"], ["--prompts nowhere.yaml", "stic"]),
        (["--images", "nowhere"], ["nowhere", "no such file or folder"]),
        (["--sft-data", "nowhere.json"], ["--sft-data nowhere.json", "no such file"]),
    ],
)
def test_wrong_flags(here: Lab, extra: list[str], parts: list[str]) -> None:
    method = [] if "--method" in extra else ["--method", "stic"]
    line = complaint(here.invoke(*here.argv("run", *method, *extra)))
    assert [part for part in parts if part not in line] == [], line
    assert written(here.folder) == []


ITEM = {
    "id": "a",
    "image": "0.png",
    "conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "!"}],
}


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("[{", ["not valid JSON"]),
        ('{"a": 1}', ["expected a list"]),
        ("[3]", ["row 1", "expected an object"]),
        ([{**ITEM, "image": None}], ["no item has an image"]),
        ([{**ITEM, "image": "gone.png"}], ["no item has a usable image", "gone.png"]),
        (
            [{**ITEM, "image": ["0.png", "1.png"]}],
            ["no item has a usable image", "llava.json#1: item a: has 2 images, but 1 <image> mark in its"],
        ),
        ([{**ITEM, "image": "../../etc/passwd"}], ["no item has a usable image", "outside"]),
        ([{**ITEM, "image": "a\0.png"}], ["no item has a usable image", "a\\x00.png"]),
        ([{**ITEM, "image": "\ud83d.png"}], ["no item has a usable image"]),
        ([ITEM, {**ITEM, "conversations": []}], ["row 2", "conversations"]),
        ([{**ITEM, "conversations": [{"from": "gpt", "value": "!"}]}], ["row 1", "take turns"]),
        ([{**ITEM, "conversations": [{"from": "me", "value": "!"}]}], ["row 1", "'me'"]),
        ([{"id": "b", "image": "0.png"}], ["row 1", "conversations"]),
    ],
)
def test_wrong_instruction_data(here: Lab, tmp_path: Path, content: Any, parts: list[str]) -> None:
    path = tmp_path / "llava.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    line = complaint(here.invoke(*here.argv("run", "--method", "stic", "--sft-data", path)))
    assert [part for part in ["--sft-data", "llava.json", *parts] if part not in line] == [], line
    assert written(here.folder) == []


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("p.yaml", "plain: [a]\nmisleading: [b]\n", ["step_by_step"]),
        ("p.yaml", "step_by_step: a\nplain: []\nmisleading: [b]\n", ["plain"]),
        ("p.yaml", "step_by_step: a\nplain: [b]\nmisleading: [c]\nbad: [d]\n", ["bad"]),
        ("p.yaml", "- a\n", ["step_by_step"]),
        ("p.yaml", "a: [", ["not valid YAML"]),
        ("p.py", "prompts = ['a', 'b']\n", ["misleading"]),
        ("p.py", "prompts = [\n", ["not valid Python"]),
    ],
)
def test_wrong_prompts(here: Lab, tmp_path: Path, name: str, content: str, parts: list[str]) -> None:
    (tmp_path / name).write_text(content)
    line = complaint(here.invoke(*here.argv("train", "--method", "stic", "--prompts", tmp_path / name)))
    assert [part for part in [f"--prompts {tmp_path / name}", *parts] if part not in line] == [], line
    assert written(here.folder) == []


def test_an_image_folder_with_nothing_in_it(here: Lab, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    line = complaint(here.invoke(*here.argv("train", "--images", tmp_path / "empty")))
    assert "--images" in line
    assert "no usable image" in line
    assert written(here.folder) == []


def test_a_model_without_its_weights_or_without_eyes(here: Lab, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((here.model / "config.json").read_bytes())
    line = complaint(here.invoke(*here.argv("run", "--model", bare)))
    assert f"--model {bare}: holds no weights" in line
    blind = tmp_path / "blind"
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=64, **size)).save_pretrained(blind)
    line = complaint(here.invoke(*here.argv("run", "--model", blind)))
    assert f"--model {blind}: llama takes no images" in line
    assert written(here.folder) == []


def test_a_cache_that_cannot_be_written(here: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(type(here), "environment", {"STIC_EVAL_CACHE": str(tmp_path / "file" / "cache")})
    line = complaint(here.invoke(*here.argv("train", "--method", "stic")))
    assert "cannot" in line
    assert str(tmp_path / "file" / "cache") in line
    assert written(here.folder) == []


def test_output_below_a_file(here: Lab, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = complaint(here.invoke(*here.argv("run", "--output", tmp_path / "file" / "run")))
    assert "--output" in line
    assert written(here.folder) == []


def test_wrong_rows_name_file_and_column(here: Lab, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "?", "image": null}\n')
    argv = here.argv("eval", "--benchmarks", "textvqa", "-o", f"rows.textvqa={path}")
    line = complaint(here.invoke(*argv))
    assert [part for part in ("textvqa", str(path), "row 1", '"answers"') if part not in line] == [], line
    assert written(here.folder / "results") == []


def test_a_mistake_loses_nothing_of_what_is_there(finished: Finished, tmp_path: Path) -> None:
    def state() -> dict[str, int]:
        paths = [*finished.folder.rglob("*"), *finished.lab.stages.rglob("*")]
        kept = (path for path in paths if path.is_file() and path.name != "run.log")
        return {str(path): path.stat().st_mtime_ns for path in kept}

    broken = tmp_path / "llava.json"
    broken.write_text("[{")
    before = state()
    argv = [*finished.argv, "--sft-data", str(broken), "--output", str(finished.folder)]
    complaint(finished.lab.invoke(*argv))
    complaint(finished.lab.invoke(*argv, "--fresh"))
    assert state() == before
