"""The gates of the pocket model: figures of models whose answers are known, and verdicts by bounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import gates, reading
from bench.gates import Column, Gate
from stic_eval import registry
from stic_eval.evals.sources import samples
from stic_eval.pocket.drills import LETTER
from stic_eval.pocket.language import claims
from stic_eval.pocket.questions import held_out
from stic_eval.pocket.rows import MODEL_DIR
from stic_eval.pocket.tasks import MAKERS
from stic_eval.store import file_sha256
from stic_eval.types import Request, Sample
from tests.support.scripted import Scripted

N = 40
GOOD = Column("Any", 60.0, 62.0, (25.0, "A"), "", 95.0, 94.0, (61.0, 60), (59.0, 30))
SAID = {
    "step-by-step prompt": {"precision": 98.0, "recall": 98.0},
    "plain prompts": {"precision": 80.0, "recall": 55.0},
    "misleading prompts": {"precision": 50.0, "recall": 40.0},
    "plain prompts, low resolution": {"precision": 60.0, "recall": 40.0},
    "plain prompts, colour jitter": {"precision": 30.0, "recall": 20.0},
}
EXERCISES = {"rotation": 96.0, "two hops": 91.0}


def missed(columns: dict[str, Column], said: Any = SAID, exercises: Any = EXERCISES) -> list[str]:
    return [gate.name for gate in gates.gates(columns, said, exercises) if not gate.held]


def model(answer: Callable[[Request], str]) -> Any:
    return Scripted(answer)


def right(name: str) -> Callable[[Request], str]:
    """Answers a benchmark's rows as they want it where a description is at hand, and nothing without one."""
    targets: dict[str, list[Sample]] = {}
    for row in samples(registry.benchmarks().get(name), "pocket:val"):
        targets.setdefault(row.question, []).append(row)

    def answer(request: Request) -> str:
        told, _, question = request.messages[0].text.removeprefix("Image description:\n").partition("\n")
        rows = [row for row in targets.get(question, []) if reading.description(name, row, "val") == told]
        return str(rows[0].target) if rows else ""

    return answer


def test_the_three_ways_are_told_apart_and_descriptions_are_of_the_rows_pictures() -> None:
    asked = gates.column(model(right("scienceqa")), "scienceqa", N, "val")
    assert (asked.description, asked.both, asked.rows, asked.score) == (100, 100, 0, 0)
    assert asked.guard == "no row right"
    assert asked.shared[1] + asked.held_out[1] == N
    rows = samples(registry.benchmarks().get("scienceqa"), "pocket:val", limit=N)
    assert asked.held_out[1] == sum(held_out(row.question) for row in rows) > 5
    assert all(claims(reading.description("scienceqa", row, "val")) for row in rows)
    with pytest.raises(RuntimeError, match="another picture"):
        reading.description("scienceqa", rows[0], "test")


def test_accuracies_are_by_wording() -> None:
    def shared_alone(request: Request) -> str:
        return "" if held_out(request.messages[0].text) else "A"

    asked = gates.column(model(shared_alone), "mmbench", N, "val")
    assert asked.held_out[0] == 0 < asked.shared[0]
    n = asked.shared[1] + asked.held_out[1]
    assert asked.rows == pytest.approx(asked.shared[0] * asked.shared[1] / n)


def test_a_constant_letter_scores_a_quarter_of_rows_and_nothing_under_circular_evaluation() -> None:
    asked = gates.column(model(lambda request: "B"), "mmbench", N, "val")
    assert (asked.rows, asked.score) == (25, 0)
    assert asked.constant[0] == 0
    assert asked.guard == "constant answer B"
    assert missed({"mmbench": replace(asked, description=95.0)})[:3] == [
        "MMBench, direct (circular)", "MMBench, above a constant answer", "MMBench, marked columns",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["chartqa", "textvqa", "mathvista", "llava_bench", "mmvet", "scienceqa"])
def test_the_best_constant_answer_scores_what_it_is_said_to_score(name: str) -> None:
    asked = reading.ask(model(lambda request: "B"), name, N)["picture"]
    benchmark = registry.benchmarks().get(name)
    score, text = gates.best_constant(benchmark, asked)
    assert 0 < score < 60 and text
    always = reading.ask(model(lambda request: text), name, N)["picture"]
    assert always.summary.score == pytest.approx(score)
    assert score >= (asked.summary.score or 0)


def test_an_exercise_asks_one_turn_of_each_conversation() -> None:
    said = model(lambda request: "A")
    assert 10 < gates.exercise(said, "two hops", N) < 45
    assert len(said.asked) == N
    assert {len(request.messages) for request in said.asked} > {1, 3}
    texts = ["\n".join(message.text for message in request.messages) for request in said.asked]
    assert all("\nB. " in text or "\n(B) " in text for text in texts)
    assert any(request.messages[-1].text.endswith(LETTER) for request in said.asked)
    assert any(request.messages[0].text.startswith("Context: Each") for request in said.asked)


def test_figures_within_all_bounds_hold_every_gate() -> None:
    assert missed({"chartqa": GOOD, "mmbench": GOOD}) == []


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"score": 86.0}, "Any, direct"),
        ({"score": 19.0, "constant": (5.0, "A")}, "Any, direct"),
        ({"constant": (51.0, "A")}, "Any, above a constant answer"),
        ({"guard": "at the ceiling"}, "Any, marked columns"),
        ({"description": 89.9}, "Any, description alone"),
    ],
)
def test_a_column_that_falls_short_is_named(changed: dict[str, Any], name: str) -> None:
    others = dict.fromkeys(("textvqa", "mmvet"), replace(GOOD, title="Other", description=99.0))
    assert missed({"chartqa": replace(GOOD, **changed), **others}) == [name]


def test_circular_accuracy_has_bounds_of_its_own() -> None:
    high = replace(GOOD, score=80.0)
    others = dict.fromkeys(("textvqa", "mmvet"), GOOD)
    assert missed({"chartqa": high, **others}) == []
    assert missed({"mmbench": high, **others}) == ["Any, direct (circular)"]


def test_descriptions_and_exercises_that_fall_short_are_named() -> None:
    lazy = SAID | {
        "step-by-step prompt": {"precision": 98.0, "recall": 96.9},
        "plain prompts": {"precision": 50.0, "recall": 60.1},
    }
    assert missed({"chartqa": GOOD}, lazy, {"rotation": 94.0, "two hops": 90.0}) == [
        "recall, step-by-step prompt", "recall, plain prompts",
        "precision below plain prompts', misleading prompts",
        "precision below plain prompts', plain prompts, low resolution", "exercise, rotation",
    ]  # fmt: skip


def test_the_page_says_what_is_missed() -> None:
    text = gates.page({"chartqa": replace(GOOD, score=90.0)}, SAID, EXERCISES)
    assert "| Any, direct | 90.0 | 20 | 85 | **missed** |" in text
    assert "| exercise, two hops | 91.0 | 90 |  | held |" in text
    assert "| Any | 90.0 | 62.0 | 25.0 (A) | 95.0 | 94.0 | 61.0 (60) | 59.0 (30) |" in text
    assert "| exercise, rotation | 94.0 | 95 |  | falls short of the aim |" in gates.page(
        {"chartqa": GOOD}, SAID, {"rotation": 94.0}
    )
    assert text.endswith("\n2 of 3 gates are held.\n\n9 of 10 aims are reached.\n")


def test_figures_are_recorded_with_the_digest_of_the_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    columns = {"chartqa": replace(GOOD, score=90.0), "mmbench": GOOD}
    gates.record(tmp_path, "val", N, columns, SAID, EXERCISES)
    digest, written, found = gates.recorded(tmp_path)
    assert digest == file_sha256(tmp_path / "model.safetensors")
    assert found == gates.gates(columns, SAID, EXERCISES)
    assert written == {gate.name: gate.verdict for gate in found}
    assert written["Any, direct"] == "**missed**"


def test_the_shipped_weights_hold_their_gates() -> None:
    """By the figures beside them, which are of these very weights and all hundred rows of each benchmark."""
    digest, written, found = gates.recorded(MODEL_DIR)
    again = "python -m bench.gates --record"
    assert digest == file_sha256(MODEL_DIR / "model.safetensors"), f"figures of other weights: {again}"
    assert written == {gate.name: gate.verdict for gate in found}, f"verdicts by other bounds: {again}"
    assert [gate for gate in found if not gate.held and not gate.aim] == []
    data = json.loads((MODEL_DIR / gates.RECORD).read_text(encoding="utf-8"))
    assert set(data["columns"]) == set(MAKERS) and data["exercises"].keys() == gates.EXERCISES.keys()
    assert data["split"] == "val" and data["n"] >= 100


def test_no_figure_is_not_within_bounds() -> None:
    assert not Gate("any", float("nan"), 20).held
