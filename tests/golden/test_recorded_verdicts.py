"""Our scorers give the verdicts that the benchmarks' own evaluators gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stic_eval.benchmarks.mathvista import benchmark as mathvista
from stic_eval.benchmarks.mmbench import benchmark as mmbench
from stic_eval.benchmarks.scienceqa import benchmark as scienceqa

from stic_eval.evals.sources import samples
from stic_eval.types import Record, Sample

HERE = Path(__file__).parent
MODELS = ("bard", "claude", "gpt4_2shot_solution", "llama_adapter_v2", "minigpt4_llama2")
# The answer names an option that the item does not have; LLaVA's evaluation then drew one at random.
DRAWN_AT_RANDOM = "3247"

# Published before some problems' skills were annotated anew: their totals by skill are not the data's.
OLDER_SKILLS = ("bard", "claude")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


ABOUT = {"metadata": {"task": "", "skills": [], "context": "", "grade": ""}, "question": "x", "query": "x"}


def verdict(problem: dict[str, Any], extraction: str) -> bool:
    """The benchmark's verdict on a recorded extraction, through its own row and sample."""
    assert mathvista.extraction is not None
    found = mathvista.extraction(mathvista.to_sample({**ABOUT, **problem, "image": None}), extraction)
    assert found.value is not None
    assert not found.open
    return found.value == 1


def index(text: str, n_choices: int = 5) -> int:
    """The option that the benchmark reads; the recordings do not tell how many there were."""
    row = {"image": None, "question": "x", "hint": "", "subject": "", "grade": "", "answer": 0}
    sample = scienceqa.to_sample({**row, "choices": list("vwxyz"[:n_choices])})
    found = scienceqa.score(sample, text)
    assert found.open is (found.answer is None)
    return -1 if found.answer is None else "ABCDE".index(found.answer)


@pytest.mark.parametrize(
    "row", rows(HERE / "mathvista_verdicts.jsonl"), ids=lambda r: f"{r['model']}-{r['pid']}"
)
def test_mathvista_verdict(row: dict[str, Any]) -> None:
    assert verdict(row, row["extraction"]) is row["correct"]


@pytest.mark.parametrize("row", rows(HERE / "scienceqa_parsed.jsonl"), ids=lambda r: r["question_id"])
def test_scienceqa_option(row: dict[str, Any]) -> None:
    assert index(row["text"]) == row["parsed_index"]


def test_golden_files_hold_both_verdicts_and_every_answer_type() -> None:
    verdicts = rows(HERE / "mathvista_verdicts.jsonl")
    assert {(r["answer_type"], r["correct"]) for r in verdicts} >= {
        (kind, right) for kind in ("text", "integer", "float") for right in (True, False)
    }
    assert {r["parsed_index"] for r in rows(HERE / "scienceqa_parsed.jsonl")} == {0, 1, 2, 3, 4}


def test_every_scienceqa_recording(real_data: Path) -> None:
    recorded = rows(real_data / "scienceqa" / "llava_13b_v0.jsonl")
    assert len(recorded) == 4241
    assert [r["question_id"] for r in recorded if index(r["text"]) != r["parsed_index"]] == [DRAWN_AT_RANDOM]
    drawn = next(r for r in recorded if r["question_id"] == DRAWN_AT_RANDOM)
    assert index(drawn["text"], 2) == -1


@pytest.mark.parametrize("model", MODELS)
def test_every_mathvista_recording(real_data: Path, model: str) -> None:
    problems = {r["pid"]: r for r in rows(real_data / "mathvista" / "testmini.jsonl")}
    recorded = rows(real_data / "mathvista" / f"{model}.jsonl")
    assert len(recorded) == len(problems) == 1000
    assert [r["pid"] for r in recorded if verdict(problems[r["pid"]], r["extraction"]) != r["correct"]] == []


@pytest.mark.parametrize("model", MODELS)
def test_mathvista_breakdown_is_the_published_one(real_data: Path, model: str) -> None:
    published = json.loads((real_data / "mathvista" / "published_scores.json").read_text())[model]
    recorded = {r["pid"]: r for r in rows(real_data / "mathvista" / f"{model}.jsonl")}
    records = []
    for row in rows(real_data / "mathvista" / "testmini.jsonl"):
        sample = mathvista.to_sample({**row, "image": None})
        records.append(_record(sample, float(verdict(row, recorded[sample.id]["extraction"]))))
    summary = mathvista.aggregate(records)
    assert summary.n == len(summary.units) == 1000
    assert f"{summary.score:.2f}" == f"{float(published['average']['accuracy']):.2f}"
    names = {"task": "task", "context": "context"} | ({} if model in OLDER_SKILLS else {"skill": "skills"})
    for ours, theirs in names.items():
        expected = {f"{ours}/{label}": float(entry["accuracy"]) for label, entry in published[theirs].items()}
        found = {label: value for label, value in summary.breakdown.items() if label.startswith(f"{ours}/")}
        assert found == pytest.approx(expected, abs=0.005001)


def test_mathvista_rules_agree_with_the_recorded_judge(real_data: Path) -> None:
    problems = {
        r["pid"]: mathvista.to_sample({**r, "image": None})
        for r in rows(real_data / "mathvista" / "testmini.jsonl")
    }
    read = same = 0
    for row in (row for model in MODELS for row in rows(real_data / "mathvista" / f"{model}.jsonl")):
        found = mathvista.score(problems[row["pid"]], row["response"] or "")
        assert found.open is (found.value is None)
        if found.value is not None:
            read += 1
            same += (found.value == 1) is row["correct"]
    assert read > 3000
    assert same / read > 0.99


def test_real_mmbench_rows_load(real_data: Path) -> None:
    found = samples(mmbench, real_data / "mmbench" / "MMBench_samples.tsv")
    assert len(found) == 10
    by_id = {sample.id: sample for sample in found}
    assert by_id["318"].question.split("\n")[0].startswith("The diagram below is a model of two solutions.")
    assert by_id["318"].choices == ("neither; their concentrations are the same", "Solution B", "Solution A")
    assert {sample.group["ability"] for sample in found} <= {"LR", "AR", "RR", "FP-S", "FP-C", "CP"}
    for sample in found:
        (image,) = sample.images
        assert image.load().mode == "RGB"
        assert mmbench.score(sample, f"{sample.target}.").value == 1
    assert len({image.sha256 for sample in found for image in sample.images}) == 10


def _record(sample: Sample, score: float) -> Record:
    return Record(
        sample.id, sample.question, (), sample.target, sample.group, None, "", None, score, 1.0, None, 0.0, 0
    )
