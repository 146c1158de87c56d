"""The paper's presets from command line to LaTeX: tiny weights behind the published processors, photographs,
all seven benchmarks in the schemas that they are published in, a scripted judge.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from stic_eval.config_layers import read_preset
from stic_eval.profiles import SHIPPED
from tests.e2e.conftest import Lab, chartqa, mmbench, textvqa
from tests.support.full_size import SIZES, Kind, build, save_photographs
from tests.support.judge_server import Answer, says, serving

# Counts alone are the test's: rates, limits, precision and how images are shown are the preset's. Of two
# steps the first warms up.
SMALL = (
    "stage1.images=4", "stage1.batch_size=2", "stage1.max_new_tokens=24", "stage2.items=4",
    "stage2.batch_size=2", "stage2.max_new_tokens=24", "dar.max_new_tokens=8", "lora.r=4", "lora.alpha=8",
)  # fmt: skip
STIC = {"preference", "infused_sft"}  # its stages with an adapter
COLUMNS = ("scienceqa", "textvqa", "chartqa", "llava_bench", "mmbench", "mmvet", "mathvista")


def photographs(folder: Path) -> Path:
    """A folder with six photographs: real ones where they are at hand, else pictures of their sizes."""
    found = sorted((Path(os.environ.get("STIC_EVAL_REAL_DATA", "nowhere")) / "photos").glob("*.jpg"))[:6]
    if not found:
        return save_photographs(folder, list(SIZES)[:6])
    folder.mkdir()
    for number, path in enumerate(found):
        shutil.copyfile(path, folder / f"{number}.jpg")
    return folder


def rows_of(number: int, image: str) -> dict[str, dict[str, Any]]:
    """A row of each benchmark."""
    return {
        "textvqa": {**textvqa(number), "image": image},
        "chartqa": {**chartqa(number, "12.5"), "image": image},
        "mmbench": {**mmbench(number, 0), "image": image},
        "scienceqa": {
            "image": image, "question": f"Which is heavier, {number}?", "answer": 1, "hint": "Look closely.",
            "choices": ["a feather", "a stone", "air"], "task": "closed choice", "grade": "grade7",
            "subject": "natural science", "topic": "physics", "category": "Forces", "skill": "Compare",
            "lecture": "", "solution": "",
        },
        "llava_bench": {
            "question_id": number, "question": f"What is it like, {number}?", "image": image,
            "image_id": f"{number:03d}", "caption": "A street by the sea.", "gpt_answer": "It is quiet.",
            "category": "conv",
        },
        "mmvet": {
            "question_id": f"v1_{number}", "question": f"What is it, {number}?", "image": image,
            "answer": "a street<AND>the sea", "capability": "rec,spat", "image_source": "x",
        },
        "mathvista": {
            "pid": str(number), "question": "How many are there?", "image": image, "decoded_image": image,
            "choices": None, "unit": None, "precision": None, "answer": "3", "question_type": "free_form",
            "answer_type": "integer", "query": "",
            "metadata": {
                "category": "general-vqa", "context": "natural image", "grade": "daily life",
                "skills": ["numeric commonsense"], "source": "x", "split": "testmini",
                "task": "figure question answering",
            },
        },
    }  # fmt: skip


def judge(number: int, prompt: str) -> Answer:
    """Points where answers are graded; nothing is found where one is to be read."""
    if prompt.startswith("Two assistants"):
        return says("Both are fine.\nVerdict: 8 6")
    return says("Verdict: 0.5" if "Grade its answer" in prompt else "Verdict: none")


@pytest.fixture(scope="session")
def rehearsal(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The data of the runs."""
    data = tmp_path_factory.mktemp("rehearsal")
    folder = photographs(data / "images")
    names = sorted(path.name for path in folder.iterdir())
    paths = {name: data / f"{name}.jsonl" for name in COLUMNS}
    for number, name in enumerate(names[:2]):
        for benchmark, row in rows_of(number, f"images/{name}").items():
            with paths[benchmark].open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    items = [
        {"id": f"item-{number}", "image": name,
         "conversations": [{"from": "human", "value": "<image>\nHow many are there?"},
                           {"from": "gpt", "value": f"There are {number} of them."}]}
        for number, name in enumerate(names)
    ]  # fmt: skip
    (data / "llava.json").write_text(json.dumps(items))
    return Lab(data, tiny_vlm, folder, data / "llava.json", paths)


@pytest.mark.parametrize(
    ("preset", "profile", "kind", "methods", "stages"),
    [
        ("paper-llava-1.5", "llava-1.5", "llava", "stic", STIC),
        (
            "paper-llava-1.6",
            "llava-1.6-mistral",
            "llava_next",
            "stic,sft,positive_only",
            STIC | {"sft", "positive_sft"},
        ),
        ("paper-llava-1.6-13b", "llava-1.6-vicuna", "llava_next", "stic", STIC),
    ],
)
def test_a_paper_preset_from_weights_to_latex(
    preset: str, profile: str, kind: Kind, methods: str, stages: set[str], rehearsal: Lab, tiny_vlm: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("JUDGE_KEY", "sk-none")
    lab = rehearsal.at(tmp_path)
    # A folder of the name that the preset's own model has: what the preset says of that model is in force.
    build(lab.folder / read_preset(preset)["model"], kind, tiny_vlm)
    argv = ["run", "--preset", preset, "--method", methods, "--output", "out"]
    argv += ["--images", lab.photos, "--sft-data", lab.instructions, "--image-root", lab.photos]
    for option in (*SMALL, *(f"rows.{name}={path}" for name, path in lab.rows.items())):
        argv += ["-o", option]
    assert "trains on images as: single_tile (training.images)" in lab.invoke(*argv, "--dry-run").out
    with serving(judge) as server:
        argv += ["--judge", "judge-1", "--judge-base-url", server.url, "--judge-api-key-env", "JUDGE_KEY"]
        done = lab.invoke(*argv, "--judge-protocol", "stic-eval-1")
    assert done.code == 0, done.err

    trained = list(lab.stages.glob("*/adapter"))
    assert {path.parent.name.partition("-")[0] for path in trained} == stages
    for folder in trained:
        weights = load_file(folder / "adapter_model.safetensors")
        assert any(bool(value.any()) for name, value in weights.items() if "lora_B" in name), folder
        log = [json.loads(line) for line in (folder.parent / "log.jsonl").read_text().splitlines()]
        assert log
        assert all(row["loss"] > 0 and row["grad_norm"] > 0 for row in log), folder
        manifest = json.loads((folder.parent / "manifest.json").read_text())
        assert manifest["params"]["training_images"] == "single_tile"

    table = json.loads((lab.folder / "out" / "table.json").read_text())
    assert sorted(column["name"] for column in table["columns"]) == sorted(COLUMNS)
    assert all(
        cell["score"] is not None and cell["n"] for row in table["rows"] for cell in row["cells"].values()
    )
    assert any("training.images=single_tile" in note for note in table["notes"])
    assert any(note.startswith(f"Asked as: profile {profile} (") for note in table["notes"])
    manifest = json.loads((lab.folder / "out" / "manifest.json").read_text())
    assert manifest["asked"]["chat_template"] == SHIPPED[profile].chat_template
    latex = (lab.folder / "out" / "table.tex").read_text()
    assert r"\toprule" in latex
    assert "training.images=single" in latex
