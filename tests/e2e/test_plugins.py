"""Plug-ins for real: somebody else's package in an environment of its own, files, templates, ablations."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

from stic_eval.report import runs
from tests.support.command import run_command

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "somebodys-plugins"
version = "1.0"
dependencies = ["stic-eval"]

[project.entry-points."stic_eval.methods"]
describe = "somebodys_plugins.describe:method"
broken = "somebodys_plugins.broken:method"

[project.entry-points."stic_eval.benchmarks"]
presence = "somebodys_plugins.presence:benchmark"
"""
METHOD = '''
"""Pairs by a function of one's own, and training on them."""
from pydantic import BaseModel, ConfigDict

from stic_eval.selftrain import stages
from stic_eval.selftrain.pair_making import AnsweredPair, question
from stic_eval.contracts.method import Method, Plan
from stic_eval.training.lora import LoraSettings
from stic_eval.training.hyperparameters import Describing, PairFilter, PreferenceLoss, Training


class Pairs(PairFilter, Describing):
    max_new_tokens: int = 8


class Stage1(Pairs, PreferenceLoss, Training):
    learning_rate: float = 1e-3
    batch_size: int = 2


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    images: int = 500
    stage1: Stage1 = Stage1()


def make(making, settings):
    asked = [question("What is in the picture?", image, settings) for image in making.images]
    for image, answer in zip(making.images, making.answers(asked)):
        yield AnsweredPair(image, "Describe the image.", answer.text, "Nothing.", negative="nothing")


def plan(options, data):
    n = options.images
    pairs = stages.made_pairs(
        make, Pairs, options.stage1, data, version=1, images=n, rows=n, generations=n
    )
    one = options.stage1
    return Plan(stages.preference(pairs, loss=one, training=one, lora=LoraSettings(r=4, alpha=8)), "direct")


method = Method("describe", "Describe", plan, Options, presets={"pocket": {"images": 4}})
'''
BENCHMARK = '''
"""Yes-or-no questions."""
from stic_eval.contracts.benchmark import Benchmark, HubData
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.evals.sources import images_of
from stic_eval.types import Generation, Sample, Score

benchmark = Benchmark(
    name="presence", title="Presence", version=1, source=HubData("nobody/presence", "test"),
    to_sample=lambda row: Sample(row["id"], images_of(row["image"], row["id"]), row["question"], "yes"),
    generation=Generation(max_new_tokens=4),
    score=lambda sample, text: Score(float(sample.target in text.lower()), text),
    aggregate=summarize, protocol="the question; accuracy",
)
'''


def run(*argv: str | Path, at: Path, code: int = 0, **more: str) -> str:
    """Runs a program and gives what it has printed, errors included."""
    environment = {k: v for k, v in os.environ.items() if k != "STIC_EVAL_PLUGINS"}
    environment |= {"STIC_EVAL_CACHE": str(at / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **more}
    done = subprocess.run(  # noqa: PLW1510
        list(map(str, argv)),
        cwd=at,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def stic_eval(*argv: str | Path, at: Path, python: Path | None = None, code: int = 0, **more: str) -> str:
    if python is None:
        return run_command(*argv, at=at, code=code, **more)
    return run(python, "-m", "stic_eval.cli.app", *argv, at=at, code=code, **more)


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("venv", "pip", "setuptools")),
    reason="needs venv, pip, setuptools",
)
def test_a_package_that_is_installed_elsewhere_brings_a_method_and_a_benchmark(
    tmp_path: Path, photos: Path
) -> None:
    source = tmp_path / "source" / "somebodys_plugins"
    source.mkdir(parents=True)
    (source.parent / "pyproject.toml").write_text(PYPROJECT)
    (source / "__init__.py").touch()
    (source / "describe.py").write_text(METHOD)
    (source / "presence.py").write_text(BENCHMARK)
    (source / "broken.py").write_text("x = 1\nimport nothing_that_there_is\n")
    run(sys.executable, "-m", "venv", "--without-pip", "env", at=tmp_path)
    scripts = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    python = next(path for path in scripts.iterdir() if path.stem == "python")
    find = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", find, at=tmp_path).strip())
    # What is installed here is there as well, so that nothing has to be downloaded.
    (packages / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    install = ["-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    run(python, *install, source.parent, at=tmp_path)
    assert (packages / "somebodys_plugins" / "describe.py").is_file()

    shutil.copytree(photos, tmp_path / "photos")
    names = [f"photos/{path.name}" for path in sorted(photos.iterdir())[:3]]
    rows = [{"id": name, "image": name, "question": "Is it a picture?"} for name in names]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = ["run", "--method", "describe", "--benchmarks", "presence,chartqa", "--limit", "2"]
    out = stic_eval(*argv, "-o", "rows.presence=rows.jsonl", "--output", "run", at=tmp_path, python=python)
    assert "Presence" in out and "ChartQA" in out and "Describe" in out
    assert {entry.folder for entry in runs.load(tmp_path / "run").entries} == {"baseline", "describe"}
    for path in ("baseline/presence", "describe/presence", "describe/chartqa"):
        assert len((tmp_path / "run" / "records" / f"{path}.jsonl").read_text().splitlines()) == 2
    assert list((tmp_path / "cache" / "stages").glob("preference-*/adapter/adapter_model.safetensors"))

    listed = stic_eval("ls", "methods", at=tmp_path, python=python)
    assert "Describe" in listed and "broken.py, line 2: ModuleNotFoundError" in listed
    said = stic_eval("run", "--method", "broken", "--dry-run", at=tmp_path, python=python, code=2)
    assert "somebodys_plugins" in said and "broken.py, line 2" in said and said.count("\n") == 1
    assert "Describe" not in stic_eval("ls", "methods", at=tmp_path), (
        "it is there alone where it is installed"
    )


@pytest.mark.parametrize("kind", ["method", "benchmark"])
def test_what_new_writes_passes_its_own_test_and_runs_as_is_said(tmp_path: Path, kind: str) -> None:
    out = stic_eval("new", kind, "mine", at=tmp_path)
    told = [line.strip() for line in out.splitlines() if line.startswith("  ")]
    first, last = told[0 if kind == "method" else 1], told[-1]
    assert first.startswith("stic-eval ") and last == "python -m pytest test_mine.py"
    done = stic_eval(*first.split()[1:], at=tmp_path)
    assert "Mine" in done
    assert " passed" in run(sys.executable, *last.split()[1:], "-p", "no:cacheprovider", at=tmp_path)


@pytest.mark.campaign  # minutes
def test_workers_of_an_ablation_know_plugin_files_and_say_where_one_fails(tmp_path: Path) -> None:
    (tmp_path / "describe.py").write_text(METHOD)
    failing = METHOD.replace("making.images]", "making.images if 1 / (settings.max_new_tokens - 5)]")
    (tmp_path / "failing.py").write_text(failing.replace('"describe"', '"failing"'))
    line = 1 + failing[: failing.index("1 / (")].count("\n")
    common = ["--benchmarks", "chartqa", "--limit", "2", "--jobs", "2", "--quiet"]
    both = ["--method", "./describe.py", "--vary", "method=./describe.py,./failing.py"]
    vary = ["--vary", "stage1.max_new_tokens=4,5"]
    said = stic_eval("ablate", *both, *vary, *common, "--output", "grid", at=tmp_path, code=1)
    assert (
        f"1 of 4 cells failed, e.g. method=failing, stage1.max_new_tokens=5: failing.py, line {line}: "
        in said
    )
    assert "ZeroDivisionError" in said
    done = [entry.folder for entry in runs.load(tmp_path / "grid").entries if entry.summaries]
    assert len(done) == 4, "baseline and three cells"


def test_a_run_goes_on_by_its_settings_alone(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "describe.py").write_text(METHOD)
    argv = [
        "run",
        "--method",
        "files/describe.py",
        "--benchmarks",
        "chartqa",
        "--limit",
        "2",
        "--output",
        "run",
    ]
    stic_eval(*argv, at=tmp_path)
    (tmp_path / "elsewhere").mkdir()
    again = ["run", "--config", "../run/config.yaml", "--output", str(tmp_path / "run")]
    out = stic_eval(*again, at=tmp_path / "elsewhere", STIC_EVAL_CACHE=str(tmp_path / "cache"))
    assert "Describe" in out and "preference training" not in out, "nothing is computed again"
    # Another code of the method's own is another method: what it made before is not taken for its.
    text = METHOD.replace('"Nothing."', '"A dog."')
    (tmp_path / "files" / "describe.py").write_text(text)
    assert "preference training" in stic_eval(*argv, at=tmp_path)
