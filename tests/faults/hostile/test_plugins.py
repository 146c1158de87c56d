"""Plug-ins: files of code that are no plug-in, or raise what nobody expects. They run, and are named."""

from __future__ import annotations

import json

import pytest
from hypothesis import strategies as st

from tests.faults.hostile.attempts import Place
from tests.faults.hostile.budget import explore, few, many
from tests.faults.hostile.values import TEXTS, one_of, spoilt

ODD = """
class Odd(BaseException):
    def __str__(self): raise GeneratorExit
    __repr__ = __str__
class Text(Exception):
    def __str__(self): return "x" * 100_000 + "\\n\\x1b[2J\\u202e"
class Thing:
    def __repr__(self): raise ValueError("no")
    def __getattr__(self, name): raise RuntimeError("x" * 5_000)
class Many(dict):
    def __iter__(self): raise Odd
def loop(): return loop()
def stop(kind): raise kind
"""
PARTS = (
    "1 / 0",
    "stop(Odd)",
    "stop(Text)",
    "stop(GeneratorExit)",
    "stop(SystemExit(0))",
    "stop(StopIteration)",
    "stop(MemoryError)",
    "stop(UnicodeError)",
    "stop(ExceptionGroup('x', [ValueError()]))",
    "loop()",
    "None",
    "5",
    "Thing()",
    "Many()",
    "'x' * 100_000",
    "'\\x1b[2J\\u202e'",
    "'\\ud83d'",
    "float('nan')",
    "10 ** 5000",
    "lambda *a, **k: stop(Odd)",
    "lambda *a, **k: Thing()",
    "lambda *a, **k: None",
    "lambda *a, **k: loop()",
    "lambda *a: stop(Text)",
    "iter([])",
    "(yield)",
    "type",
    "...",
    "[[]] * 3",
)
BENCHMARK = """
from stic_eval.contracts.benchmark import Benchmark, HubData
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.types import Generation, Sample, Score
def to_sample(row):
    return Sample(
        id={id}, images=(), question={question}, target={target}, group={group}, meta={meta},
        choices={choices},
    )
benchmark = Benchmark(
    name={name}, title={title}, version={version}, source=HubData("a/b", "test"), to_sample=to_sample,
    generation=Generation(max_new_tokens=4), score={score}, aggregate={aggregate},
    protocol={protocol}, images={images},
    keep={keep}, unit={unit},
)
"""
_BENCHMARK = {
    "id": "'1'",
    "question": "'q'",
    "target": "'a'",
    "group": "{}",
    "meta": "{}",
    "choices": "()",
    "name": "'given'",
    "title": "'Given'",
    "version": "1",
    "score": "lambda sample, text: Score(1.0, text)",
    "aggregate": "summarize",
    "protocol": "'p'",
    "images": "False",
    "keep": "None",
    "unit": "None",
}
METHOD = """
from stic_eval.contracts.method import Method, Plan, Stage
from pydantic import BaseModel
class Options(BaseModel):
    beta: float = {beta}
def run(ctx): pass
def plan(options, data):
    return {plan}
method = Method({name}, {title}, plan, {options})
"""
_METHOD = {
    "beta": "0.1",
    "plan": "Plan(Stage('s', 1, run, {}, reads=('images',)), 'direct')",
    "name": "'given'",
    "title": "'Given'",
    "options": "Options",
}
SOLVER = """
from stic_eval.contracts.solver import Solver
from pydantic import BaseModel
class Options(BaseModel): pass
def solve(samples, model, asking, options): yield {solve}
solver = Solver({name}, {title}, {suffix}, {options}, {function}, requests={requests})
"""
_SOLVER = {
    "solve": "None",
    "name": "'given'",
    "title": "'Given'",
    "suffix": "'given'",
    "options": "Options",
    "function": "solve",
    "requests": "lambda options: 1",
}


@st.composite
def plugins(draw: st.DrawFn) -> tuple[str, bytes]:
    """What a file is to bring, and what it holds."""
    kind, text, whole = draw(
        one_of(
            [
                ("benchmark", BENCHMARK, _BENCHMARK),
                ("benchmark", BENCHMARK, _BENCHMARK),
                ("method", METHOD, _METHOD),
                ("solver", SOLVER, _SOLVER),
            ]
        )
    )
    parts = dict(whole)
    for _ in range(draw(st.integers(1, 2))):
        parts[draw(st.sampled_from(sorted(parts)))] = draw(
            st.one_of(st.sampled_from(PARTS), one_of(TEXTS).map(ascii))
        )
    code = ODD
    for name, part in parts.items():
        text = text.replace(f"{{{name}}}", f"({part})")
    where = draw(st.integers(0, 9))
    code += f"x = {draw(st.sampled_from(PARTS))}\n" * (where == 0) + text
    data = code.encode()
    if where == 1:
        data = draw(
            st.sampled_from(
                [
                    b"",
                    b"\0",
                    b"\xff\xfe",
                    b"(" * 5_000,
                    b"-" * 50_000 + b"1",
                    b"# coding: rot13\n",
                    b"x = " + b"[" * 99,
                    b"import sys; sys.exit('bye')",
                    b"raise BaseException",
                    b"def f(:",
                    b"1" * 5_000,
                ]
            )
        )
    return kind, draw(spoilt(data)) if where == 2 else data


def attempt(place: Place, made: tuple[str, bytes]) -> None:
    """Has a plug-in shown, and a run planned with it; a benchmark's rows are checked by it, and scored."""
    kind, data = made
    (place.work / "given.py").write_bytes(data)
    row = {"id": 1, "type": "human_test", "question": "q", "answer": "1", "image": "good.png"}
    (place.work / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (place.work / "answers.jsonl").write_text('{"id": "1", "response": "1"}\n')
    (place.work / "photos").mkdir(exist_ok=True)
    place.attempt("show", "./given.py", codes=(0, 1, 2))
    plan = (
        "run",
        "--images",
        "photos/good.png",
        "-o",
        "rows=rows.jsonl",
        "-o",
        "stage1.images=1",
        "--dry-run",
    )
    (place.work / "photos" / "good.png").write_bytes((place.work / "good.png").read_bytes())
    if kind == "benchmark":
        place.attempt("data", "check", "./given.py", "--from", "rows.jsonl", "-q")
        place.attempt("score", "./given.py", "--predictions", "answers.jsonl", "--rows", "rows.jsonl", "-q")
        place.attempt(*plan, "--method", "stic_stage1", "--benchmarks", "./given.py")
    elif kind == "method":
        place.attempt(*plan, "--method", "./given.py", "--benchmarks", "chartqa")
    else:
        place.attempt(*plan, "--method", "stic_stage1", "--benchmarks", "chartqa", "--solver", "./given.py")


def test_plugins(place: Place) -> None:
    place.code = True
    explore("plug-ins", place, plugins(), attempt, few(10))


@pytest.mark.campaign
def test_many_plugins(place: Place) -> None:
    place.code = True
    explore("plug-ins", place, plugins(), attempt, many(400))
