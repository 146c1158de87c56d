"""Settings: configurations, prompts, templates and ablations in YAML that nobody should have written."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from tests.faults.hostile.attempts import Place
from tests.faults.hostile.budget import explore, few, many
from tests.faults.hostile.values import changed, one_of, spoilt, texts, to_json, values

CONFIG: dict[str, Any] = {
    "model": "pocket",
    "preset": "pocket",
    "methods": ["stic_stage1"],
    "benchmarks": ["chartqa"],
    "rows": {"chartqa": "rows.jsonl"},
    "seeds": [0],
    "limit": 1,
    "images": "photos",
    "prompts": "pocket",
    "plugins": [],
    "dar": False,
    "solvers": ["direct"],
    "conversation": {"profile": "none"},
    "processor": {},
    "adapters": [],
    "judge": {"model": None, "timeout": 60},
    "server": {"attempts": 1},
    "thinking": {},
    "training": {},
    "method_options": {
        "stic_stage1": {
            "stage1": {"images": 4, "beta": 0.1, "corruptions": {"blur": 1}, "loss": "sigmoid"},
            "lora": {"r": 4},
        }
    },
    "benchmark_options": {"chartqa": {"strict": True}},
    "solver_options": {"self_consistency": {"k": 3}},
}
PROMPTS: dict[str, Any] = {"step_by_step": "Describe.", "plain": ["What?"], "misleading": ["Lie."]}
ABLATION: dict[str, Any] = {
    "title": "x",
    "method": "stic_stage1",
    "vary": {"corruption": ["blur", "noise"], "p_corrupt": [0.5, 1.0]},
    "design": "full",
    "exclude": ["p_corrupt=0.5 corruption!=blur"],
    "dar": False,
    "options": {"stage1.images": 4},
    "seeds": [0],
}
RAW = (
    "[" * 5_000,
    "a: " * 3_000,
    "- " * 5_000,
    "{a: " * 5_000,
    "a: &a [*a]",
    "a: !!python/object/apply:os.system ['touch ../canary']",
    "!!python/name:os.system",
    "a: !!timestamp 2020-13-45",
    "a: !!binary '='",
    "a: !!set {1}",
    "? [a]\n: b",
    "? {a: b}\n: c",
    "%YAML 9.9\n---\na",
    "a: 1\n---\nb: 2",
    "a: 1\na: 2",
    "<<: 5",
    "a: !!bool x",
    "a: !!int 0x" + "f" * 5_000,
    "a: 1:" + "59:" * 2_000 + "59",
    "\0",
    "\ufeffa: 1",
    "a: 'x",
    "@",
    "\t",
    "\n".join(
        [
            "a: &a0 [x, x, x, x, x, x, x, x, x]",
            *(f"b{k}: &a{k + 1} [{', '.join([f'*a{k}'] * 9)}]" for k in range(9)),
        ]
    ),
    "? " * 3_000,
    "a: !!float .",
    "a: >\n" + " " * 50_000 + "x",
    "'" + "\\" * 9_999,
    "a: |\n  " + "x" * (1 << 20),
    "x" * (2 << 20),
    "!" * 9_999,
    "&" + "a" * 9_999 + " b",
)


@st.composite
def documents(draw: st.DrawFn, whole: dict[str, Any]) -> bytes:
    """Settings with something changed, as YAML or JSON; or text that is hardly either."""
    if draw(st.integers(0, 3)) == 0:
        return draw(one_of(RAW)).encode()
    made = draw(changed(whole, st.one_of(values, texts)))
    if draw(st.booleans()):
        text = to_json(made)
    else:
        text = (
            yaml.safe_dump({str(name): value for name, value in made.items()})
            if _small(made)
            else to_json(made)
        )
    data = text.encode("utf-8", "surrogatepass")
    return draw(spoilt(data)) if draw(st.integers(0, 3)) == 0 else data


# What plans a run of next to nothing.
SMALL = (
    "--images", "photos", "-o", "rows.chartqa=rows.jsonl", "--benchmarks", "chartqa", "-o", "stage1.images=1",
)  # fmt: skip


def _small(made: Any) -> bool:
    return len(to_json(made)) < 3_000


def configure(place: Place, data: bytes) -> None:
    """Plans a run by a configuration."""
    _rows(place)
    (place.work / "given.yaml").write_bytes(data)
    place.attempt(
        "run",
        "--config",
        "given.yaml",
        "--images",
        "photos",
        "-o",
        "rows.chartqa=rows.jsonl",
        "--limit",
        "1",
        "--benchmarks",
        "chartqa",
        "--method",
        "stic_stage1",
        "-o",
        "stage1.images=1",
        "--dry-run",
        codes=(0, 2),
    )


def prompt(place: Place, data: bytes) -> None:
    """Plans a run by prompts, a template, and a system prompt of a file."""
    _rows(place)
    (place.work / "given.yaml").write_bytes(data)
    common = (
        *SMALL,
        "--method",
        "stic_stage1",
        "--dry-run",
    )
    place.attempt("run", "--prompts", "given.yaml", *common, codes=(0, 2))
    place.attempt("run", "--chat-template", "given.yaml", *common, codes=(0, 2))


def ablate(place: Place, data: bytes) -> None:
    """Plans an ablation by a file."""
    _rows(place)
    (place.work / "given.yaml").write_bytes(data)
    place.attempt(
        "ablate",
        "given.yaml",
        *SMALL,
        "--dry-run",
        codes=(0, 2),
    )


@st.composite
def words(draw: st.DrawFn) -> list[str]:
    """Options and values of a command line."""
    flags = [
        "--method",
        "--benchmarks",
        "--seed",
        "--limit",
        "--images",
        "--model",
        "--profile",
        "--system-prompt",
        "--dtype",
        "--device",
        "--output",
        "--hardware",
        "--gpus",
        "-o",
        "--adapter",
        "--solver",
        "--engine",
        "--base-url",
        "--rows",
        "--protocol",
        "--preset",
        "--sft-data",
        "--concurrency",
        "--adapter-name",
        "--jobs",
        "--api-key-env",
    ]
    paths = [
        "stage1.beta",
        "stage1.images",
        "seeds",
        "plugins",
        "rows.chartqa",
        "a.b.c",
        "stage1",
        "",
        ".",
        "a..b",
        "judge.timeout",
        "__class__",
    ]
    found = []
    for _ in range(draw(st.integers(1, 3))):
        text = draw(texts).replace("\0", "")[:120_000]
        flag = draw(st.sampled_from(flags))
        found += [flag, f"{draw(st.sampled_from(paths))}={text}" if flag == "-o" else text]
    return found


def say(place: Place, argv: list[str]) -> None:
    """Plans a run by what stands on a command line."""
    _rows(place)
    place.attempt(
        "run",
        *SMALL,
        "--method",
        "stic_stage1",
        "--limit",
        "1",
        *argv,
        "--dry-run",
        codes=(0, 2),
    )
    place.attempt("show", argv[1], codes=(0, 2))


def _rows(place: Place) -> None:
    row = {"type": "human_test", "question": "q", "answer": "1", "image": "good.png"}
    (place.work / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (place.work / "photos").mkdir(exist_ok=True)
    if not (place.work / "photos" / "good.png").exists():
        (place.work / "photos" / "good.png").write_bytes((place.work / "good.png").read_bytes())


def test_configurations(place: Place) -> None:
    explore("configurations", place, documents(CONFIG), configure, few(8))


def test_prompts(place: Place) -> None:
    explore("prompts", place, documents(PROMPTS), prompt, few(6))


def test_ablations(place: Place) -> None:
    explore("ablations", place, documents(ABLATION), ablate, few(6))


def test_command_lines(place: Place) -> None:
    explore("command lines", place, words(), say, few(5))


@pytest.mark.campaign
def test_many_configurations(place: Place) -> None:
    explore("configurations", place, documents(CONFIG), configure, many(1_000))


@pytest.mark.campaign
def test_many_prompts(place: Place) -> None:
    explore("prompts", place, documents(PROMPTS), prompt, many(400))


@pytest.mark.campaign
def test_many_ablations(place: Place) -> None:
    explore("ablations", place, documents(ABLATION), ablate, many(500))


@pytest.mark.campaign
def test_many_command_lines(place: Place) -> None:
    explore("command lines", place, words(), say, many(400))
