"""Scoring all seven benchmarks at full size, no judge: `stic-eval score` seven times, start-up included.

Rows are made here in each benchmark's real schema, as many as the data set has, without images;
answers are drawn from what models write. No rival: lmms-eval scores only what it has just generated.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.pocket import Measured

CEILING_SECONDS = 10.0
WORDS = "the red sign above a door says Stop and 42 people of 1,250 wait near two old cars".split()  # noqa: SIM905


def text(rng: random.Random, longest: int = 12) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(1, longest)))


def _letter(rng: random.Random) -> str:
    letter = rng.choice("ABCD")
    return rng.choice((letter, f"{letter}.", f"({letter})", f"The answer is {letter}.", text(rng, 60)))


def _scienceqa(rng: random.Random, number: int) -> tuple[dict[str, Any], str]:
    row = {
        "id": number, "image": "x.png", "question": text(rng), "choices": ["one", "two", "three", "four"],
        "answer": rng.randrange(4), "hint": text(rng), "subject": "natural science", "grade": "grade5",
    }  # fmt: skip
    return row, _letter(rng)


def _textvqa(rng: random.Random, number: int) -> tuple[dict[str, Any], str]:
    answers = [text(rng, 3) for _ in range(10)]
    row = {"question_id": number, "question": text(rng), "answers": answers, "ocr_tokens": WORDS[:8]}
    return row, rng.choice((answers[0], text(rng)))


def _chartqa(rng: random.Random, number: int) -> tuple[dict[str, Any], str]:
    answer = str(rng.randint(1, 99))
    row = {
        "id": number, "question": text(rng), "answer": answer,
        "type": rng.choice(("human_test", "augmented_test")),
    }  # fmt: skip
    return row, rng.choice((answer, f"{rng.random():.2f}", f"{rng.randint(1, 99)}%", text(rng)))


def _llava_bench(rng: random.Random, number: int) -> tuple[dict[str, Any], str]:
    row = {
        "question_id": number, "question": text(rng), "gpt_answer": text(rng, 80),
        "caption": text(rng, 80), "category": rng.choice(("conv", "detail", "complex")),
    }  # fmt: skip
    return row, text(rng, 80)


def _mmbench(rng: random.Random, number: int) -> tuple[dict[str, Any], str]:
    row = {
        "index": number % 1083 + 1_000_000 * (number // 1083), "question": text(rng), "hint": "nan",
        "A": "one", "B": "two", "C": "three", "D": "four", "answer": rng.choice("ABCD"),
        "category": "image_scene", "L2-category": "coarse_perception",
    }  # fmt: skip
    return row, _letter(rng)


def _mmvet(rng: random.Random, number: int) -> tuple[dict[str, Any], str]:
    row = {
        "question_id": f"v1_{number}",
        "question": text(rng),
        "answer": text(rng, 4),
        "capability": "ocr,math",
    }
    return row, text(rng, 80)


def _mathvista(rng: random.Random, number: int) -> tuple[dict[str, Any], str]:
    row = {
        "pid": str(number), "question": text(rng), "choices": None, "question_type": "free_form",
        "answer_type": "integer", "precision": None, "answer": str(rng.randint(1, 99)), "unit": None,
        "image": "x.png",
        "metadata": {"task": "math word problem", "skills": ["arithmetic reasoning"], "context": "table",
                     "grade": "high school"},
    }  # fmt: skip
    return row, f"{text(rng, 60)}. The answer is {rng.randint(1, 99)}."


MAKERS: Mapping[str, tuple[int, Callable[[random.Random, int], tuple[dict[str, Any], str]]]] = {
    "scienceqa": (2017, _scienceqa),
    "textvqa": (5000, _textvqa),
    "chartqa": (2500, _chartqa),
    "llava_bench": (60, _llava_bench),
    "mmbench": (4329, _mmbench),
    "mmvet": (218, _mmvet),
    "mathvista": (1000, _mathvista),
}


def _write(folder: Path, name: str) -> int:
    n, make = MAKERS[name]
    rng = random.Random(name)
    made = [make(rng, number) for number in range(n)]
    ids = [row.get("question_id", row.get("pid", row.get("index", row.get("id")))) for row, _ in made]
    answers = ({"id": id_, "response": answer} for id_, (_, answer) in zip(ids, made, strict=True))
    for suffix, rows in (("rows", (row for row, _ in made)), ("answers", answers)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.{suffix}.jsonl").write_text(text, encoding="utf-8")
    return n


def measure() -> list[Measured]:
    """Scores all seven, one command each, one after the other.

    Raises:
        RuntimeError: A command failed, or scored another number of answers than there are.
    """
    command = str(Path(sys.executable).parent / "stic-eval")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        total = sum(_write(folder, benchmark) for benchmark in MAKERS)
        environment = {**os.environ, "STIC_EVAL_CACHE": str(folder / "cache")}
        start = time.perf_counter()
        for benchmark in MAKERS:
            files = [str(folder / f"{benchmark}.{kind}") for kind in ("answers.jsonl", "rows.jsonl", "json")]
            argv = [
                command,
                "score",
                benchmark,
                "--predictions",
                files[0],
                "--rows",
                files[1],
                "--json",
                files[2],
            ]
            done = subprocess.run(
                [*argv, "--quiet"],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
            )
            if done.returncode not in (0, 3):
                raise RuntimeError(f"{' '.join(argv)}: {done.stderr.decode(errors='replace')[-2000:]}")
            data = json.loads(Path(files[2]).read_text(encoding="utf-8"))
            if len(data["per_sample"]) != MAKERS[benchmark][0]:
                raise RuntimeError(
                    f"{benchmark}: {len(data['per_sample'])} answers instead of {MAKERS[benchmark][0]}"
                )
        seconds = time.perf_counter() - start
    return [Measured(f"scoring {total:,} answers of seven benchmarks", "s", seconds, CEILING_SECONDS)]
