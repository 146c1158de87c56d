"""A run that an earlier version wrote, by keys that held its text: nothing of it is computed again."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stic_eval import registry
from stic_eval.cli.app import invoke
from stic_eval.contracts.benchmark import Benchmark
from stic_eval.evals import evaluation_versions
from stic_eval.registry import Registry

DATA = Path(__file__).parent.parent / "data" / "former"
ARGV = json.loads((DATA / "argv.json").read_text())
VARIANTS = ("baseline", "baseline+dar", "stic", "stic+dar")
OWN = {f"{variant}/own" for variant in VARIANTS}  # of the plug-in, whose import is another one since
WRITTEN_NS = 1_700_000_000 * 10**9  # when its rows were


@pytest.fixture
def former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that it was run in, where no model can be loaded: answers come from its cache."""
    folder, known = Path(shutil.copytree(DATA, tmp_path / "former")), registry.benchmarks()
    for path in (folder / "rows").rglob("*"):
        os.utime(path, ns=(WRITTEN_NS, WRITTEN_NS))
    plugin = folder / "plugin.py"  # which imports the contract from where it was then
    plugin.write_text(
        plugin.read_text().replace("stic_eval.evals.benchmark", "stic_eval.contracts.benchmark")
    )
    monkeypatch.chdir(folder)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(folder / "cache"))

    def load(*args: object, **kwargs: object) -> None:
        raise AssertionError("the model is asked")

    monkeypatch.setattr("stic_eval.models.hf_model.HFModel.load", load)
    # As they were then, whatever has been raised since.
    for name in ("RUNNER", "SCORING", "ROWS"):
        monkeypatch.setattr(evaluation_versions, name, 1)
    for name in ("direct", "describe_and_respond"):
        of_version(1, name, monkeypatch)
    monkeypatch.setattr(registry, "benchmarks", lambda: Then(known))
    return folder


def of_version(version: int, solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a solver another version."""
    known = registry.solvers()
    monkeypatch.setitem(known._loaded, solver, replace(known.get(solver), version=version))


class Then:
    """The registry of benchmarks, those of ours in the version that the run was graded by."""

    def __init__(self, known: Registry[Benchmark]) -> None:
        self._known = known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._known, name)

    def get(self, name: str) -> Benchmark:
        found = self._known.get(name)
        return replace(found, version=2) if name in ("textvqa", "chartqa") else found


def entries() -> dict[str, dict[str, Any]]:
    return {entry["folder"]: entry for entry in json.loads(Path("run/scores.json").read_text())["variants"]}


def records() -> dict[str, int]:
    """Records by variant and benchmark, and when they were written."""
    return {
        f"{path.parent.name}/{path.stem}": path.stat().st_mtime_ns for path in Path("run").glob("records/*/*")
    }


def stages() -> dict[str, int]:
    """Folders of stages, and when they were made."""
    return {
        path.parent.name: path.stat().st_mtime_ns for path in Path("cache/stages").glob("*/manifest.json")
    }


def rewritten(before: dict[str, int]) -> set[str]:
    return {name for name, stamp in records().items() if before.get(name) != stamp}


def test_it_is_resumed_without_computing_anything(former: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, evaluated, made = entries(), records(), stages()
    assert invoke([*ARGV, "--dry-run"]) == 0
    states = [line.split() for line in capsys.readouterr().out.splitlines()]
    evaluations = [words[-3] for words in states if words[:1] == ["evaluate"]]
    assert sorted(evaluations) == ["cached"] * 8 + ["do"] * len(OWN)
    assert next(words for words in states if words[:2] == ["to", "do"])[-2:] == ["12", "0"]
    assert invoke(ARGV) == 0
    assert (rewritten(evaluated), stages()) == (OWN, made)
    evaluated, new = records(), entries()
    assert list(new) == list(VARIANTS)
    for folder, entry in new.items():
        for benchmark, summary in old[folder]["summaries"].items():
            assert {name: entry["summaries"][benchmark][name] for name in summary} == summary
        assert [stage["key"] for stage in entry["stages"]] == [
            stage["key"] for stage in old[folder]["stages"]
        ]
        # From now on it has the keys of now.
        assert entry["keys"].keys() == old[folder]["keys"].keys()
        assert not set(entry["keys"].values()) & set(old[folder]["keys"].values())
    assert invoke(ARGV) == 0
    assert (rewritten(evaluated), entries()) == (set(), new)


def test_what_is_missing_is_evaluated_from_the_answers_that_are_there(former: Path) -> None:
    data = json.loads(Path("run/scores.json").read_text())
    entry = next(entry for entry in data["variants"] if entry["folder"] == "stic+dar")
    gone = entry["summaries"].pop("chartqa")
    del entry["keys"]["chartqa"]
    Path("run/scores.json").write_text(json.dumps(data))
    evaluated, made = records(), stages()
    assert invoke(ARGV) == 0
    assert (rewritten(evaluated), stages()) == (OWN | {"stic+dar/chartqa"}, made)
    found = entries()["stic+dar"]["summaries"]["chartqa"]
    assert {name: found[name] for name in gone} == gone


def test_it_is_shown_tabled_and_compared_as_it_is(former: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("run/scores.json").read_bytes()
    for argv in (["table", "run"], ["compare", "run:baseline", "run:stic"], ["show", "run"]):
        assert invoke(argv) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "Baseline" in out and "50.0" in out
    assert Path("run/scores.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "again"),
    [("RUNNER", set(VARIANTS)), ("SCORING", set(VARIANTS)), ("ROWS", set(VARIANTS)),
     ("describe_and_respond", {"baseline+dar", "stic+dar"})],
)  # fmt: skip
@pytest.mark.parametrize("resumed", [False, True])
def test_a_higher_version_evaluates_again_what_it_stands_for(
    former: Path, monkeypatch: pytest.MonkeyPatch, name: str, again: set[str], resumed: bool
) -> None:
    if resumed:
        assert invoke(ARGV) == 0
    evaluated, made = records(), stages()
    if hasattr(evaluation_versions, name):
        monkeypatch.setattr(evaluation_versions, name, 2)
    else:
        of_version(2, name, monkeypatch)
    assert invoke(ARGV) == 0
    found = rewritten(evaluated) - (set() if resumed else OWN)
    assert {name.partition("/")[0] for name in found} == again
    assert stages() == made


def test_rows_of_other_content_are_evaluated_again_however_old_they_look(former: Path) -> None:
    assert invoke(ARGV) == 0
    evaluated = records()
    rows = Path("rows/textvqa.jsonl")
    rows.write_text(rows.read_text().replace('"STOP"', '"STOP"').replace('"stop", "stop"', '"stop", "halt"'))
    os.utime(rows, ns=(WRITTEN_NS, WRITTEN_NS))
    assert invoke(ARGV) == 0
    assert {name.partition("/")[2] for name in rewritten(evaluated)} == {"textvqa"}


def test_another_plug_in_is_evaluated_again(former: Path) -> None:
    evaluated = records()
    plugin = Path("plugin.py")
    plugin.write_text(plugin.read_text().replace("text == sample.target", "text != sample.target"))
    assert invoke(ARGV) == 0
    assert rewritten(evaluated) == {f"{variant}/own" for variant in VARIANTS}
