"""A run with a judge: what rules leave open is graded, reused, named, and asked again where it failed."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Done, Lab, records
from tests.support.judge_server import Answer, fails, says, serving

SECRET = "sk-not-to-be-written-0123456789"
N = 5


@pytest.fixture
def bench(lab: Lab, tmp_path: Path) -> Iterator[Lab]:
    rows = [
        {"question_id": f"v1_{i}", "question": f"What is in picture {i}?", "answer": "a box<AND>a disc",
         "capability": "rec,spat", "image": str(lab.photos / f"{i}.png"), "image_source": "drawn"}
        for i in (0, 2, 4, 6)
    ]  # fmt: skip
    rows.append({**rows[0], "question_id": "v1_8", "question": "Is there a disc?", "capability": "rec"})
    file = lab.photos / "mmvet.jsonl"  # beside its pictures, which other tests learn from
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    yield lab.at(tmp_path)
    file.unlink()


def evaluate(lab: Lab, *argv: str) -> Done:
    rows = f"rows.mmvet={lab.photos / 'mmvet.jsonl'}"
    common = ("eval", "--model", lab.model, "--benchmarks", "mmvet", "-o", rows, "--output", "out", "-q")
    return lab.invoke(*common, *argv)


def judged(url: str, model: str = "judge-1") -> tuple[str, ...]:
    return (
        "--judge", model, "--judge-base-url", url, "--judge-api-key-env", "JUDGE_KEY",
        "--judge-protocol", "stic-eval-1", "-o", "judge.attempts=2",
    )  # fmt: skip


def answers(lab: Lab) -> int:
    """How many answers the model has given so far."""
    total = 0
    for path in (lab.folder / "cache" / "responses").glob("*.sqlite"):
        with sqlite3.connect(path) as db:
            total += db.execute("SELECT COUNT(*) FROM responses").fetchone()[0]
    return total


def cell(lab: Lab) -> dict[str, Any]:
    table = json.loads((lab.folder / "out" / "table.json").read_text())
    found: dict[str, Any] = table["rows"][0]["cells"]["mmvet"]
    return found


def test_a_judge_grades_what_rules_leave_open_and_is_never_asked_twice(
    bench: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    alone = evaluate(bench)
    assert alone.code == 3
    assert "needs a judge (--judge MODEL)" in alone.out
    assert cell(bench)["score"] is None
    given = answers(bench)
    assert given == N

    broken = True

    def behave(number: int, prompt: str) -> Answer:
        if broken and "Is there a disc?" in prompt:
            return says(f"I would say 10/10. {SECRET}")
        return says("It names the box alone.\nVerdict: 0.5")

    with serving(behave) as server:
        first = evaluate(bench, "--fresh", *judged(server.url))
        assert first.code == 3, first.err
        assert cell(bench)["score"] == 50.0
        assert (cell(bench)["n"], cell(bench)["unscored"]) == (N, 1)
        assert "50.0°" in first.out
        assert "judge judge-1 (stic-eval-1); the judge decided 80.0 % of the answers" in " ".join(
            first.out.split()
        )
        (lost,) = [
            record for record in records(bench.folder / "out", "baseline", "mmvet") if not record["score"]
        ]
        assert (lost["id"], lost["score"]) == ("v1_8", None)
        assert "judge judge-1: unreadable" in lost["why"]
        assert len(server.asked) == N - 1 + 3  # what cannot be read is asked for three times
        assert {row["authorization"] for row in server.asked} == {f"Bearer {SECRET}"}

        broken, asked = False, len(server.asked)
        again = evaluate(bench, *judged(server.url))
        assert again.code == 0, again.err
        assert len(server.asked) == asked + 1
        assert cell(bench)["score"] == 50.0
        assert cell(bench)["complete"]
        found = records(bench.folder / "out", "baseline", "mmvet")
        assert all(
            r["judge"]["model"] == "judge-1" and r["judge"]["protocol"] == "stic-eval-1" for r in found
        )
        assert all(r["judge"]["replies"][0].endswith("Verdict: 0.5") for r in found)

        assert evaluate(bench, *judged(server.url)).code == 0
        assert len(server.asked) == asked + 1

    manifest = json.loads((bench.folder / "out" / "manifest.json").read_text())
    assert manifest["judge"]["protocol"] == "stic-eval-1"
    for path in bench.folder.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in first.out + first.err + again.out + again.err


def test_another_judge_grades_anew_without_another_answer(
    bench: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    with serving(lambda number, prompt: says("Verdict: 1.0")) as server:
        for model in ("judge-1", "judge-2"):
            run = evaluate(bench, *judged(server.url, model), "--output", model)
            assert run.code == 0, run.err
            assert f"judge {model}" in run.out
        assert len(server.asked) == 2 * N
    assert answers(bench) == N


def test_a_refused_key_ends_the_run_with_the_flag_to_put_right(
    bench: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with serving(lambda number, prompt: fails(401, f"bad key {SECRET}")) as server:
        without = evaluate(bench, *judged(server.url))
        assert without.code == 2
        assert "--judge-api-key-env JUDGE_KEY: that environment variable is not set" in without.err
        assert server.asked == []
        monkeypatch.setenv("JUDGE_KEY", SECRET)
        refused = evaluate(bench, *judged(server.url))
        assert refused.code == 2
        assert re.search(r"^stic-eval: --judge-api-key-env: the server refuses the key", refused.err, re.M)
        assert SECRET not in refused.err
    wrong = evaluate(bench, *judged("ftp://nowhere"))
    assert wrong.code == 2
    assert "--judge-base-url ftp://nowhere" in wrong.err


@pytest.mark.campaign  # half a minute
def test_an_ablation_asks_again_for_what_its_judge_left_open(
    bench: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    broken = True

    def behave(number: int, prompt: str) -> Answer:
        if broken and "Is there a disc?" in prompt:
            return says("I would say 10/10.")
        return says("It names the box alone.\nVerdict: 0.5")

    def ablate(url: str) -> Done:
        rows = f"rows.mmvet={bench.photos / 'mmvet.jsonl'}"
        grid = ("--method", "baseline", "--vary", "prompt_role=plain,misleading", "--vary", "dar=on")
        return bench.invoke(
            "ablate", "--model", bench.model, *grid, "--benchmarks", "mmvet", "-o", rows,
            "-o", "dar.max_new_tokens=8", "--output", "out", "-q", *judged(url),
        )  # fmt: skip

    with serving(behave) as server:
        first = ablate(server.url)
        assert first.code == 3, first.err
        broken, before = False, len(server.asked)
        again = ablate(server.url)
        assert again.code == 0, again.err
        # Of the baseline and two cells one answer each; equal answers are one question.
        assert 1 <= len(server.asked) - before <= 3
    saved = json.loads((bench.folder / "out" / "scores.json").read_text())
    assert [v["summaries"]["mmvet"]["unscored"] for v in saved["variants"]] == [0, 0, 0]
