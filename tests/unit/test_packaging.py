"""What is published: source archive and wheel, their metadata, and an installation without anything else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from stic_eval.cli.app import invoke
from stic_eval.report import canvas

if TYPE_CHECKING:
    from conftest import World

ROOT = Path(__file__).parents[2]
FOLDERS = ("stic_eval", "benchmarks", "methods", "results")  # what the packages are made of
BUILD = "import sys; from setuptools import build_meta; build_meta.{}(sys.argv[1])"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(*argv: str | Path, at: Path) -> str:
    """Runs a program in a folder; what it has printed, errors included."""
    done = subprocess.run(
        list(map(str, argv)), cwd=at, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Source archive, and the wheel that is made of it."""
    if find_spec("setuptools") is None:
        pytest.skip("needs setuptools")
    work = tmp_path_factory.mktemp("published")
    (work / "source").mkdir()
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy(path, work / "source")
    for name in FOLDERS[:-1]:
        shutil.copytree(ROOT / name, work / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (work / "source" / "results").mkdir()
    for name in ("__init__.py", "paper.yaml"):
        shutil.copy(ROOT / "results" / name, work / "source" / "results")
    run(sys.executable, "-c", BUILD.format("build_sdist"), work, at=work / "source")
    (archive,) = work.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(work, filter="data")
    run(
        sys.executable,
        "-c",
        BUILD.format("build_wheel"),
        work,
        at=work / archive.name.removesuffix(".tar.gz"),
    )
    (wheel,) = work.glob("*.whl")
    return archive, wheel


def test_the_wheel_has_every_file_of_its_folders(published: tuple[Path, Path]) -> None:
    _, wheel = published
    with zipfile.ZipFile(wheel) as opened:
        has = set(opened.namelist())
    wanted = {"stic_eval/results/paper.yaml", "stic_eval/results/__init__.py"}
    for name in FOLDERS[:-1]:
        place = Path("stic_eval") if name == "stic_eval" else Path("stic_eval", name)
        files = (
            path for path in (ROOT / name).rglob("*") if path.is_file() and "__pycache__" not in path.parts
        )
        wanted |= {(place / path.relative_to(ROOT / name)).as_posix() for path in files}
    assert wanted - has == set()
    assert any(name.startswith("stic_eval/pocket/model/") and name.endswith(".safetensors") for name in has)


@pytest.mark.skipif(find_spec("venv") is None or find_spec("pip") is None, reason="needs venv and pip")
def test_it_runs_where_nothing_but_the_wheel_was_installed(
    published: tuple[Path, Path], tmp_path: Path
) -> None:
    """What it depends on is that of this environment, so that nothing has to be downloaded."""
    run(sys.executable, "-m", "venv", "--without-pip", "env", at=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    find = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", find, at=tmp_path).strip())
    (packages / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    install = (
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--quiet",
        "--ignore-installed",
    )
    run(python, *install, published[1], at=tmp_path)
    assert "evaluate" in run(tmp_path / "env" / "bin" / "stic-eval", "--help", at=tmp_path).lower()
    assert run(python.with_name("stic-eval"), "--version", at=tmp_path) == f"stic-eval {PROJECT['version']}\n"
    look = "import stic_eval; from stic_eval.pocket import rows; print(stic_eval.__file__)\n"
    look += "print(len(list(rows.benchmark_rows('mmvet', 'test'))))"
    where, count = run(python, "-c", look, at=tmp_path).split()
    assert Path(where).is_relative_to(packages)
    assert int(count) == 200


def test_twine_has_nothing_to_say(published: tuple[Path, Path]) -> None:
    pytest.importorskip("twine")
    said = run(sys.executable, "-m", "twine", "check", "--strict", *published, at=published[0].parent)
    assert said.count("PASSED") == 2


def test_version_and_date_are_the_same_everywhere() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    heads = re.findall(
        r"^## \[(.+?)\](?: - (\S+))?$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    released = next(head for head in heads if head[0] != "Unreleased")
    assert released == (cited["version"], cited["date-released"])
    assert PROJECT["version"] == cited["version"]
    assert (cited["license"], [one["name"] for one in cited["authors"]]) == (
        PROJECT["license"], [one["name"] for one in PROJECT["authors"]],
    )  # fmt: skip


def test_the_dockerfile_is_in_order(tmp_path: Path) -> None:
    found = shutil.which(
        "hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if found is None:
        pytest.skip("needs hadolint")
    assert run(found, ROOT / "Dockerfile", at=tmp_path) == ""


# ---------------------------------------------------------------- what is left out of the base installation


def test_without_matplotlib_a_report_has_no_figures_and_plot_says_how_to_get_them(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run("--method", "baseline", "--benchmarks", "one") == 0
    monkeypatch.setattr(canvas, "find_spec", lambda name: None)
    capsys.readouterr()
    assert invoke(["plot", str(world.results())]) == 2
    said = "figures are drawn with matplotlib: pip install 'stic-eval[figures]'"
    assert capsys.readouterr().err == f"stic-eval: plot: {said}\n"
    assert invoke(["report", str(world.results())]) == 0
    done = capsys.readouterr()
    assert f"No figures. report: {said}" in done.out + done.err
    assert (world.results() / "report.html").is_file()


def test_without_openpyxl_a_workbook_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answers.xlsx"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("[Content_Types].xml", "")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert invoke(["score", "chartqa", "--predictions", str(path)]) == 2
    said = capsys.readouterr().err
    assert said == f"stic-eval: {path}: reading a workbook needs openpyxl: pip install 'stic-eval[xlsx]'\n"


# ---------------------------------------------------------------- a torchvision of another torch


@pytest.mark.parametrize("broken", [True, False])
def test_doctor_says_what_to_do_about_a_torchvision_that_does_not_fit(
    broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "torchvision").mkdir()
    text = "raise RuntimeError('operator torchvision::nms does not exist\\nmore')\n" if broken else ""
    (tmp_path / "torchvision" / "__init__.py").write_text(text)
    (tmp_path / "torchvision-9.8.7.dist-info").mkdir()
    (tmp_path / "torchvision-9.8.7.dist-info" / "METADATA").write_text("Name: torchvision\nVersion: 9.8.7\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    code = invoke(["doctor"])
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    lines = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(lines) if "torchvision" in line)
    if broken:
        assert code == 1
        assert re.fullmatch(
            r"FAIL  torchvision: 9\.8\.7 does not fit torch \S+: operator torchvision::nms does not exist",
            lines[at],
        )
        assert lines[at + 1].startswith("      -> pip uninstall torchvision, ")
    else:
        assert lines[at] == "ok    torchvision: 9.8.7"
