"""The Python API on a tiny real model, its example, and its notebook."""

from __future__ import annotations

import io
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import stic_eval as se
from bench import same_results
from bench.notebook import NOTEBOOK, execute
from stic_eval import registry
from stic_eval.contracts.solver import NoOptions
from stic_eval.engines.hf import HFEngine
from stic_eval.models import hf_model
from stic_eval.report import table_formats

if TYPE_CHECKING:
    from conftest import Finished, Lab

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "own_benchmark.py"


@pytest.fixture
def at(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Calls are made where commands are."""
    for name, value in lab.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(lab.folder)
    for kind in registry.kinds().values():
        monkeypatch.setattr(kind, "_objects", {})
        monkeypatch.setattr(kind, "_of_this_call", set())
    return lab


def given(argv: list[str]) -> dict[str, Any]:
    """The same as a command line of `lab.argv`, for a call."""
    found: dict[str, Any] = {"options": [], "quiet": True}
    rest = iter(argv[1:])
    for flag in rest:
        if flag == "-o":
            found["options"].append(next(rest))
        elif flag in ("--dar", "--no-dar"):
            found["dar"] = flag == "--dar"
        else:
            found[flag.removeprefix("--").replace("-", "_")] = next(rest)
    return found


def test_a_call_finds_the_command_s_run_and_makes_the_same(
    finished: Finished, at: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("records/*/*.jsonl")}
    result = se.run(**given(finished.argv))
    assert result.folder.resolve() == finished.folder.resolve()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # Elsewhere, by the same cache: byte for byte the same, but for times.
    again = se.run(**given(finished.argv), output="again")
    assert same_results.differences(finished.folder, again.folder.resolve()) == []
    assert (finished.folder / "table.md").read_text() == table_formats.to_markdown(result.table.data)
    monkeypatch.chdir(at.photos)  # a result knows where it lies
    assert result.compare("stic").data.b.label == "STIC"
    records = result.records("stic+dar", "chartqa")
    assert [record.id for record in records] and all(record.description for record in records)


def test_training_gives_folders_of_adapters(
    finished: Finished, at: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = len(list(at.stages.iterdir()))
    done = se.train(**given(at.argv("train", "--method", "stic")))
    assert list(done.adapters) == ["stic"]
    folder = done.adapters["stic"]
    assert (folder / "adapter_model.safetensors").is_file()
    assert len(list(at.stages.iterdir())) == stages
    # Which is asked, and evaluated, wherever an adapter is taken.
    picture = at.photos / "0.png"
    base, tuned = se.load_model(at.model), se.load_model(at.model, adapter=folder)
    answers = [vlm.ask(picture, "What is this?", max_new_tokens=8) for vlm in (base, tuned)]
    assert answers[0] != answers[1]
    with Image.open(picture) as image:
        for same in (str(picture), picture.read_bytes(), image, [picture]):
            assert base.ask(same, "What is this?", max_new_tokens=8) == answers[0]
    with pytest.raises(se.UserError, match=r"image nowhere.png: No such file"):
        base.ask("nowhere.png", "What is this?")
    rows = {f"rows.{name}": path for name, path in at.rows.items()}
    loads: list[Any] = []
    load = hf_model.HFModel.load
    monkeypatch.setattr(hf_model.HFModel, "load", lambda *of, **how: loads.append(of) or load(*of, **how))
    beside = se.evaluate(tuned, benchmark="chartqa", options=rows, resume=False, quiet=True)
    assert not loads, "it is in memory"
    assert beside.variants == ["baseline", "adapter"]
    asked = beside.records("adapter", "chartqa")
    trained = se.load_run(finished.folder).records("stic", "chartqa")
    assert [record.response for record in asked] == [record.response for record in trained]


@pytest.mark.campaign  # half a minute
def test_an_ablation_is_the_command_s(finished: Finished, at: Lab) -> None:
    options = at.argv("run", "--benchmarks", "chartqa", "--no-dar")
    argv = ["ablate", "--vary", "infusion=own,none", *options[1:]]
    assert at.invoke(*argv, "-q", "--output", "grid").code == 0
    call = given(options)
    result = se.ablate(vary={"infusion": ["own", "none"]}, **call, output="grid2")
    assert same_results.differences(at.folder / "grid", (at.folder / "grid2").resolve()) == []
    assert result.compare("default").data.b.label == "STIC, infusion=own"
    with pytest.raises(se.UserError, match="holds the results of another run or grid"):
        se.ablate(vary={"infusion": ["own"]}, **call, output="grid")


def test_a_benchmark_of_one_s_own_is_an_object(at: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (32, 32), "red").save(at.folder / "red.png")
    rows = at.folder / "presence.jsonl"
    asked = [{"id": n, "image": "red.png", "question": f"Is it red, {n}?", "answer": "yes"} for n in range(3)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in asked))
    example = runpy.run_path(str(EXAMPLE))
    result: se.RunResult = example["main"](str(at.model), rows)
    out = capsys.readouterr().out
    assert "Presence" in out and "'Is it red, 0?\\nAnswer with yes or no.' -> " in out

    def evaluate(benchmark: se.Benchmark) -> list[float | None]:
        """The samples' scores by a benchmark."""
        again = se.evaluate(
            at.model, benchmark=benchmark, dar=False, options={"rows.presence": rows}, quiet=True,
            output=result.folder,
        )  # fmt: skip
        return [record.score for record in again.records("baseline", "presence")]

    presence: se.Benchmark = example["PRESENCE"]
    with pytest.MonkeyPatch.context() as patch:  # other scores need no other answers
        patch.setattr(HFEngine, "answers", None)
        before = evaluate(presence)
        assert evaluate(replace(presence, score=lambda s, r: se.Score(0.25, r))) == [0.25] * 3 != before
        assert evaluate(presence) == before
        short = replace(presence, generation=se.Generation(max_new_tokens=2))
        with pytest.raises(se.RunError, match="not callable"):
            evaluate(short)
    evaluate(short)
    plan = se.Plan(None, "describe_and_respond")
    describe = se.Method("describe", "Describe first", lambda options, data: plan, NoOptions)
    several = replace(registry.solvers().get("self_consistency"), name="thrice", title="3", suffix="thrice")
    found = se.run(
        model=at.model, methods=[describe], benchmarks=[presence], solvers=[several], quiet=True,
        options={"rows.presence": rows},
    )  # fmt: skip
    assert found.variants == ["baseline", "baseline+thrice", "describe+thrice"]


def test_the_notebook_does_what_it_shows(tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    shown = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    done = execute(NOTEBOOK, tmp_path)
    assert len(done.cells) == len(shown["cells"])
    for cell, committed in zip(done.cells, shown["cells"], strict=True):
        kinds = [sorted(output.get("data", {"text": 0})) for output in cell.get("outputs", [])]
        assert kinds == [sorted(o.get("data", {"text": 0})) for o in committed.get("outputs", [])]
    last = io.StringIO("".join(shown["cells"][-1]["outputs"][0]["text"]))
    assert last.read() == done.cells[-1].outputs[0]["text"]
    outputs = json.dumps([cell.get("outputs") for cell in shown["cells"]])
    assert not re.search(r"/(tmp|home|work|root|usr)/|\d(\.\d)? s\b|\d ms\b|Warning", outputs)


def test_progress_is_a_widget_in_a_notebook(tmp_path: Path) -> None:
    pytest.importorskip("ipywidgets")
    nbformat = pytest.importorskip("nbformat.v4")
    code = """\
from stic_eval.experiment.progress import Reporter
with Reporter(None) as report, report.step("work", 3) as step:
    step.update(2)
    report.line("<b>said</b>")
"""
    notebook = nbformat.new_notebook(cells=[nbformat.new_code_cell(code)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "progress.ipynb"
    path.write_text(json.dumps(notebook))
    shown = [output["data"] for output in execute(path, tmp_path).cells[0].outputs]
    assert "application/vnd.jupyter.widget-view+json" in shown[0]
    assert any("&lt;b&gt;said&lt;/b&gt;" in data.get("text/html", "") for data in shown)
