"""Answers in the files of other evaluations, written by hand to their schemas or as they were published."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from stic_eval import registry
from stic_eval.cli.app import invoke
from stic_eval.errors import UserError
from stic_eval.evals.predictions import read_predictions
from stic_eval.evals.sources import samples


def real(*parts: str) -> Path:
    path = Path(os.environ.get("STIC_EVAL_REAL_DATA", "nowhere"), *parts)
    if not path.is_file():
        pytest.skip("the published files are not at hand (STIC_EVAL_REAL_DATA)")
    return path


def written(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data))
    return path


def sample(name: str, content: Any, epoch: int = 1) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "source": "generate"}
    output = {"model": "m", "choices": [{"message": message, "stop_reason": "stop"}]}
    return {"id": name, "epoch": epoch, "input": "What?", "target": "B", "output": output, "scores": {}}


REASONED = [{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "B"}]
SAMPLES = [
    sample("1", "A box."),
    sample("1", "A cat.", 2),
    sample("2", REASONED),
    {**sample("3", ""), "output": {}},
]


def check_inspect(path: Path) -> None:
    items = {item.id: item for item in read_predictions(path).items}
    assert {name: item.response for name, item in items.items()} == {"1": "A box.", "2": "B"}
    assert (items["2"].thinking, items["2"].unclosed) == ("Hm.", False)


def test_a_log_of_inspect_as_json(tmp_path: Path) -> None:
    log = {"version": 2, "status": "success", "eval": {"task": "t"}, "samples": SAMPLES}
    check_inspect(written(tmp_path / "log.json", log))
    with pytest.raises(UserError, match="log_samples=True"):
        read_predictions(written(tmp_path / "bare.json", {**log, "samples": None}))


def test_a_log_of_inspect_as_eval(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "log.eval", "w", zipfile.ZIP_DEFLATED) as log:
        log.writestr("header.json", json.dumps({"version": 2, "eval": {}}))
        for one in SAMPLES:
            log.writestr(f"samples/{one['id']}_epoch_{one['epoch']}.json", json.dumps(one))
        log.writestr("summaries.json", "[]")
    check_inspect(tmp_path / "log.eval")
    (tmp_path / "bad.eval").write_bytes(b"PK nonsense")
    with pytest.raises(UserError, match="cannot be read"):
        read_predictions(tmp_path / "bad.eval")


def test_opencompass_counts_rows(tmp_path: Path) -> None:
    rows = {"0": {"origin_prompt": [{"role": "HUMAN", "prompt": "What?"}], "prediction": "A", "gold": "B"},
            "1": {"origin_prompt": "Why?", "prediction": "B", "gold": "B"}}  # fmt: skip
    found = read_predictions(written(tmp_path / "p.json", rows)).items
    assert [(item.id, item.response, item.prompt, item.by_number) for item in found] == [
        ("0", "A", "What?", True), ("1", "B", "Why?", True),
    ]  # fmt: skip


def test_vlmevalkit_json_brings_its_rows(tmp_path: Path) -> None:
    rows = [
        {
            "index": 7,
            "question": "What?",
            "A": "x",
            "B": "y",
            "answer": "A",
            "prediction": "A",
            "thinking": "Hm.",
        }
    ]
    found = read_predictions(written(tmp_path / "p.json", rows))
    assert found.items[0].id == "7"
    assert found.items[0].thinking == "Hm."
    assert found.rows[0]["index"] == "7"


def test_llava_s_summary_of_scienceqa(tmp_path: Path) -> None:
    path = real("scienceqa", "test_sqa_llava_13b_v0_first200.json")
    found = read_predictions(path).items
    outputs = json.loads(path.read_text())["outputs"]
    assert {item.id: item.response for item in found} == outputs


def test_answers_to_both_versions_of_mmvet() -> None:
    for name, count in (("llava_llama2_13b_chat.json", 218), ("v2_gpt-4o.json", 517)):
        assert len(read_predictions(real("mmvet", name)).items) == count


V2 = {
    "v2_0": {"question": "What is x in the equation?<IMG>v2_0_0.png", "answer": "-1<AND>-5",
             "capability": ["ocr", "math"], "added_in": "v1"},
    "v2_1": {"question": "Here:<IMG>v2_1_0.jpg<IMG>and here:<IMG>v2_1_1.png<IMG>What comes next?",
             "answer": "a box", "capability": ["seq", "rec"], "added_in": "v2"},
}  # fmt: skip


def test_rows_of_mmvet_v2_serve_to_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = written(tmp_path / "mm-vet-v2.json", V2)
    first, second = samples(registry.benchmarks().get("mmvet"), rows, images=False)
    assert (first.id, first.question) == ("v2_0", "What is x in the equation?")
    assert second.question == "Here: and here: What comes next?"
    assert second.group["capability"] == "rec,seq"
    answers = written(tmp_path / "answers.json", {"v2_0": "-1 or -5", "v2_1": "A box."})
    argv = ["score", "mmvet", "--predictions", str(answers), "--rows", str(rows), "--dry-run"]
    assert invoke(argv) == 0
    assert "2 rows, 2 answers" in capsys.readouterr().out
