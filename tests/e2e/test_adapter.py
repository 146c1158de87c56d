"""`stic-eval run --adapter`: somebody else's adapter in the run's table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import build_adapter
from tests.e2e.conftest import Finished, Lab, records


@pytest.fixture
def own(lab: Lab, tmp_path: Path) -> Lab:
    return lab.at(tmp_path / "there")


def table(run: Path) -> dict[str, float]:
    rows = json.loads((run / "table.json").read_text())["rows"]
    return {row["label"]: row["cells"]["average"]["score"] for row in rows}


def argv_of(lab: Lab, *extra: str | Path) -> list[str]:
    """A run on the model and rows alone: no data to train on."""
    found = lab.argv("eval", *extra)
    return ["run", *found[1:]]


def test_by_itself_it_is_evaluated_and_nothing_is_trained(own: Lab, adapters: tuple[Path, Path]) -> None:
    argv = argv_of(own, "--adapter", adapters[0], "--no-dar")
    plan = own.invoke(*argv, "--dry-run")
    assert plan.code == 0, plan.err
    assert "evaluate adapter textvqa" in plan.out
    assert "note: adapter" in own.invoke(*argv).err  # it says it was trained for "tiny"
    (run,) = own.runs()
    assert list(table(run)) == ["Baseline", "Adapter a"]
    assert "+a-" in run.name
    assert not own.stages.exists()
    said = [[row["response"] for row in records(run, name, "chartqa")] for name in ("baseline", "adapter")]
    assert said[0] != said[1]
    config = (run / "config.yaml").read_text()
    assert str(adapters[0]) in config
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["adapters"][0]["name"] == "a"
    # The same again computes nothing, and from its settings neither.
    before = (run / "manifest.json").read_bytes()
    assert own.invoke(*argv, "-q").code == 0
    assert own.invoke("run", "--config", run / "config.yaml", "-q").code == 0
    assert own.runs() == [run]
    assert (run / "manifest.json").read_bytes() == before


def test_a_name_is_its_row_s_and_its_records(own: Lab, adapters: tuple[Path, Path]) -> None:
    argv = argv_of(own, "--adapter", f"first={adapters[0]}", "--adapter", adapters[1], "--no-dar", "-q")
    done = own.invoke(*argv)
    assert done.code == 0, done.err
    (run,) = own.runs()
    assert list(table(run)) == ["Baseline", "first", "Adapter b"]
    assert {path.name for path in (run / "records").iterdir()} == {"baseline", "first", "adapter2"}
    assert "first+b-" in run.name
    assert own.invoke("compare", f"{run}:first", "--format", "csv").code == 0
    assert own.invoke("run", "--config", run / "config.yaml", "-q").code == 0
    assert own.runs() == [run], "its settings have the names"
    taken = argv_of(own, "--adapter", f"x={adapters[0]}", "--adapter", f"x={adapters[1]}", "--dry-run")
    assert "x is in this run already; give another name" in own.invoke(*taken).err


def test_beside_a_method_it_is_a_row_like_others(finished: Finished, adapters: tuple[Path, Path]) -> None:
    lab = finished.lab
    argv = [*finished.argv, "--adapter", str(adapters[0]), "-q", "--output", "with-adapter"]
    done = lab.invoke(*argv)
    assert done.code == 0, done.err
    labels = ["Baseline", "Baseline + DaR", "STIC", "STIC + DaR", "Adapter a", "Adapter a + DaR"]
    assert list(table(lab.folder / "with-adapter")) == labels
    without = table(finished.folder)
    assert {k: v for k, v in table(lab.folder / "with-adapter").items() if k in without} == without
    shutil.rmtree(lab.folder / "with-adapter")


def test_several_stand_side_by_side(own: Lab, adapters: tuple[Path, Path]) -> None:
    both = ["--adapter", str(adapters[0]), "--adapter", str(adapters[1])]
    assert own.invoke(*argv_of(own, *both, "--no-dar", "-q", "--output", "both")).code == 0
    assert list(table(own.folder / "both")) == ["Baseline", "Adapter a", "Adapter b"]
    rows = json.loads((own.folder / "both" / "table.json").read_text())["rows"][1:]
    assert [row["cells"]["average"]["difference"]["lacks"] for row in rows] == ["seeds", "seeds"]
    alone = argv_of(own, "--adapter", adapters[1], "--no-dar", "-q", "--output", "alone")
    assert own.invoke(*alone).code == 0
    for benchmark in ("textvqa", "chartqa"):
        first = [row["response"] for row in records(own.folder / "both", "adapter2", benchmark)]
        assert first == [row["response"] for row in records(own.folder / "alone", "adapter", benchmark)]
    assert "compare" not in own.invoke("compare", "both:adapter1", "both:adapter2").err


def test_it_is_known_by_content(own: Lab, adapters: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(adapters[0], tmp_path / "x" / "a")
    argv = argv_of(own, "--no-dar", "-q", "--benchmarks", "chartqa", "--adapter")
    assert own.invoke(*argv, adapters[0]).code == 0
    (run,) = own.runs()
    assert own.invoke(*argv, tmp_path / "x" / "a").code == 0
    assert own.runs() == [run]
    other = own.invoke(*argv, adapters[1], "--output", run)
    assert (other.code, "other settings" in other.err) == (2, True)
    shutil.copytree(adapters[1], tmp_path / "x" / "a", dirs_exist_ok=True)
    assert own.invoke(*argv, tmp_path / "x" / "a").code == 0
    assert len(own.runs()) == 2


def test_one_that_does_not_fit_is_told_of_before_anything_is_asked(
    own: Lab, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(adapters[0], wrong)
    weights = load_file(wrong / "adapter_model.safetensors")
    save_file(
        {name: value[:, :3].copy() for name, value in weights.items()}, wrong / "adapter_model.safetensors"
    )
    done = own.invoke(*argv_of(own, "--adapter", wrong, "-q", "--output", "out"))
    assert (done.code, "does not fit this model" in done.err, done.err.count("\n")) == (2, True, 1)
    assert not (own.folder / "out" / "records").exists()


def test_what_is_no_adapter_is_refused(own: Lab, tmp_path: Path) -> None:
    done = own.invoke(*argv_of(own, "--adapter", tmp_path))
    assert (done.code, "give a PEFT adapter folder" in done.err) == (2, True)
    assert own.runs() == []
    done = own.invoke("run", "--engine", "openai", "--base-url", "http://x/v1", "--model", "m",
                      "--adapter", tmp_path)  # fmt: skip
    assert (done.code, "--adapter-name" in done.err) == (2, True)


def test_one_of_the_same_base_is_no_matter_for_a_note(own: Lab, tmp_path: Path) -> None:
    folder = build_adapter(tmp_path / "fits", own.model, seed=3)
    path = folder / "adapter_config.json"
    data = json.loads(path.read_text())
    for base, noted in ((f"/elsewhere/{own.model.name}", False), (None, False), ("someone/else", True)):
        path.write_text(json.dumps({**data, "base_model_name_or_path": base}))
        done = own.invoke(*argv_of(own, "--adapter", folder, "--no-dar", "--benchmarks", "chartqa"))
        assert (done.code, "note: adapter" in done.err) == (0, noted)
