"""My benchmark: how rows become questions, what is right, and an evaluation of the built-in model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from stic_eval import registry
from stic_eval.cli.app import invoke
from stic_eval.evals.sources import samples

FILE = Path(__file__).with_name("my_benchmark.py")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Two rows with their images."""
    file = tmp_path / "rows.jsonl"
    lines = []
    for number, colour in enumerate(("red", "blue"), 1):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{number}.png")
        lines.append({"id": str(number), "image": f"{number}.png", "question": "Which color is it?",
                      "answer": [colour, f"dark {colour}"], "kind": "color"})  # fmt: skip
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def test_rows_become_questions(rows: Path) -> None:
    first, second = samples(registry.benchmarks().get(str(FILE)), rows)
    assert first.question == "Which color is it?\nAnswer the question using a single word or phrase."
    assert (second.id, second.target, len(second.images)) == ("2", ["blue", "dark blue"], 1)


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("red", 1.0),
        ("The dark red.", 1.0),
        ("The answer is Red", 1.0),
        ("Answer: Red", 1.0),
        ("blue", 0.0),
        ("", 0.0),
    ],
)
def test_what_is_right(rows: Path, response: str, value: float) -> None:
    benchmark = registry.benchmarks().get(str(FILE))
    first = samples(benchmark, rows)[0]
    assert benchmark.score(first, response).value == value


def test_a_row_that_does_not_fit_is_named(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = rows.read_text(encoding="utf-8").replace("Which color is it?", "", 1)
    rows.write_text(text, encoding="utf-8")
    assert invoke(["data", "check", str(FILE), "--from", str(rows), "--quiet"]) == 1
    assert "row 1" in capsys.readouterr().out


def test_it_evaluates(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    name = registry.benchmarks().get(str(FILE)).name
    argv = ["eval", "--benchmarks", str(FILE), "-o", f"rows.{name}={rows}", "--output", str(tmp_path / "run")]
    assert invoke([*argv, "--quiet"]) == 0
    records = (tmp_path / "run" / "records" / "baseline" / f"{name}.jsonl").read_text(encoding="utf-8")
    assert len(records.splitlines()) == 2
