"""Whatever goes wrong is one clear line on stderr and the right exit code, never a traceback.

Methods are small ones of the real contract, so that nothing is trained here; configuration, registry
of benchmarks, images, files and the command itself are real.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from stic_eval import registry
from stic_eval.cli.app import invoke
from stic_eval.contracts.method import Data, Method, Plan, Stage
from stic_eval.errors import UserError
from stic_eval.experiment import planning


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    beta: float = 0.1


def plan(options: Options, data: Data) -> Plan:
    return Plan(Stage("pairs", 1, lambda ctx: None, {"beta": options.beta}, reads=("images",)))


METHODS = {
    "baseline": Method("baseline", "Baseline", lambda options, data: Plan(None), Options),
    "stic": Method("stic", "STIC", plan, Options),
}


class Methods:
    def names(self) -> list[str]:
        return list(METHODS)

    def file(self, name: str) -> None:
        return None

    def forget(self) -> None:
        pass

    def roots(self) -> list[Path]:
        return []

    def get(self, name: str) -> Method:
        if name not in METHODS:
            raise UserError(f'--method: no method is called "{name}"{registry.suggest(name, METHODS)}')
        return METHODS[name]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "methods", Methods)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))


def model_folder(
    folder: Path, config: dict[str, Any] | None = None, weights: str | None = "model.safetensors"
) -> Path:
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if weights:
        (folder / weights).write_bytes(b"")
    return folder


@pytest.fixture
def vlm(tmp_path: Path) -> str:
    return str(model_folder(tmp_path / "vlm", {"model_type": "llava", "vision_config": {}}))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err.strip()
    lines = [line for line in err.splitlines() if line.startswith("stic-eval: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--method", "stik"], ["--method", '"stik"', 'did you mean "stic"?']),
        (["--benchmarks", "mathvsta"], ["--benchmarks", 'did you mean "mathvista"?']),
        (["--preset", "no-such-preset"], ["--preset", "no-such-preset"]),
        (["-o", "btea=1"], ["btea", 'did you mean "beta"?']),
        (["-o", "stic.btea=1"], ["stic.btea", 'did you mean "beta"?']),
        (["--limit", "0"], ["--limit", "0"]),
        (["--limit", "2.5"], ["--limit", "2.5"]),
        (["--batch-size", "huge"], ["--batch-size", "huge"]),
        (["--dtype", "int3"], ["--dtype", "int3"]),
        (["--config", "none.yaml"], ["--config", "none.yaml"]),
        (["--seed", "x"], ["--seed"]),
        (["--nope"], ["--nope"]),
    ],
)
def test_wrong_flags_are_named(
    argv: list[str], parts: list[str], vlm: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert invoke(["run", "--model", vlm, *argv]) == 2
    line = said(capsys)
    assert all(part in line for part in parts), line
    assert not (tmp_path / "results").exists()


def test_a_folder_without_weights_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model_folder(tmp_path / "m", {"vision_config": {}}, weights=None)
    assert invoke(["run", "--model", str(folder)]) == 2
    assert "holds no weights" in said(capsys)


def test_pickled_weights_are_not_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model_folder(tmp_path / "m", {"vision_config": {}}, weights="pytorch_model.bin")
    assert invoke(["run", "--model", str(folder)]) == 2
    assert "convert it to safetensors" in said(capsys)


def test_a_model_without_eyes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model_folder(tmp_path / "m", {"model_type": "llama"})
    assert invoke(["run", "--model", str(folder)]) == 2
    assert "llama takes no images" in said(capsys)


@pytest.mark.parametrize("model", ["./nowhere", "/no/such/folder"])
def test_a_missing_folder_is_named(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "--model", model]) == 2
    assert f"{model}: no such folder" in said(capsys)


def test_output_below_a_file_cannot_be_written(
    vlm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert invoke(["run", "--model", vlm, "--output", str(tmp_path / "file" / "run")]) == 2
    assert "--output" in said(capsys)


def test_a_method_that_needs_images_asks_for_them(vlm: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "--model", vlm]) == 2
    assert "--images" in said(capsys)


def test_a_folder_without_images_says_why(
    vlm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "notes.txt").write_text("no image")
    assert invoke(["run", "--model", vlm, "--images", str(folder)]) == 2
    line = said(capsys)
    assert "no usable image" in line
    assert "notes.txt" in line
    assert invoke(["run", "--model", vlm, "--images", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in said(capsys)


def test_a_folder_that_is_no_adapter_says_what_it_lacks(
    vlm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["eval", "--model", vlm, "--adapter", str(tmp_path)]) == 2
    assert "adapter_config.json" in said(capsys)


def test_what_fails_names_its_log(
    vlm: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the device\nis on fire")

    monkeypatch.setattr(planning, "plan", broken)
    assert invoke(["run", "--model", vlm, "--method", "baseline", "--output", "here"]) == 1
    line = said(capsys)
    assert "RuntimeError: the device" in line
    assert "here/run.log" in line
    assert "is on fire" in Path("here/run.log").read_text()
    assert Path("here/config.yaml").is_file()


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(
    vlm: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(planning, "plan", interrupted)
    assert invoke(["run", "--model", vlm, "--method", "baseline"]) == 130
    line = said(capsys)
    assert "are kept" in line
    assert "same command resumes" in line


@pytest.mark.parametrize("argv", [["table", "nothing"], ["show", "nothing"], ["foo"], ["ls", "everything"]])
def test_what_does_not_exist_is_named(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(argv) == 2
    assert argv[-1] in said(capsys)


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["--version"], ["run", "--help"], ["eval", "--help"], ["ls", "benchmarks"], ["ls", "runs"]],
)
def test_help_and_lists_import_nothing_heavy(argv: list[str]) -> None:
    heavy = {"torch", "datasets", "numpy"} if argv[-1] != "benchmarks" else {"torch", "datasets"}
    code = f"import sys; from stic_eval.cli.app import invoke; code = invoke({argv!r}); "
    code += f"sys.exit(code or bool({heavy!r} & set(sys.modules)) * 99)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("extra", [[], ["--dry-run"]])
def test_weights_that_are_a_pointer_of_git_lfs(
    extra: list[str], vlm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"
    Path(vlm, "model.safetensors").write_text(pointer)
    assert invoke(["run", "--model", vlm, "--method", "baseline", *extra]) == 2
    assert "git lfs pull" in said(capsys)


def test_weights_that_are_something_else_cannot_be_planned_with(
    vlm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(vlm, "model.safetensors").write_bytes(b"PK\x03\x04 no weights")
    assert invoke(["run", "--model", vlm, "--method", "baseline", "--dry-run"]) == 2
    assert "model.safetensors is not a safetensors file" in said(capsys)


def test_a_configuration_that_is_no_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").write_text("[1]")
    assert invoke(["run", "--model", str(folder)]) == 2
    assert "config.json holds a list" in said(capsys)


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda:99", "cuda 1"])
def test_a_device_that_is_not_there_is_refused_before_anything(
    device: str, vlm: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert invoke(["run", "--model", vlm, "--method", "baseline", "--device", device]) == 2
    assert f"--device {device}" in said(capsys)
    assert not (tmp_path / "results").exists()


def test_what_nobody_thought_of_is_one_line_too(
    vlm: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: Any) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("stic_eval.config.load", broken)
    assert invoke(["run", "--model", vlm]) == 1
    assert said(capsys) == "stic-eval: failed unexpectedly: ZeroDivisionError: by (-v shows where)"
    assert invoke(["run", "--model", vlm, "-v"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.strip().splitlines()[-1] == "stic-eval: failed unexpectedly: ZeroDivisionError: by"


def a_run(folder: Path, records: int = 0) -> Path:
    (folder / "records" / "baseline").mkdir(parents=True)
    (folder / "config.yaml").write_text("model: x\n")
    rows = ({"id": n, "question": "?", "target": 0, "response": "", "score": 1.0} for n in range(records))
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "records" / "baseline" / "chartqa.jsonl").write_text(text)
    return folder


def test_n_samples_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["show", str(a_run(tmp_path / "run", 9)), "--benchmark", "chartqa"]
    for extra, count in (([], 5), (["-n", "2"], 2), (["-n", "50"], 9)):
        assert invoke([*argv, *extra]) == 0
        assert capsys.readouterr().out.count("== chartqa") == count


def test_a_damaged_manifest_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = a_run(tmp_path / "run")
    (folder / "manifest.json").write_bytes(b'{"run": "\xff')
    assert invoke(["show", str(folder)]) == 2
    assert "manifest.json: is damaged" in said(capsys)


@pytest.mark.parametrize(
    "change",
    [
        {"summaries": {"chartqa": {"score": 1, "n": 1, "unscored": 0, "units": [[1, 2]], "breakdown": {}}}},
        {"summaries": {"chartqa": {"score": "x", "n": 1, "unscored": 0, "units": {}, "breakdown": {}}}},
        {"summaries": 5},
        {"title": 5},
    ],
)
def test_damaged_scores_are_named(
    change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_run(tmp_path / "run")
    entry = {
        "folder": "a",
        "method": "a",
        "title": "A",
        "dar": False,
        "seed": None,
        "keys": {},
        "summaries": {},
    }
    columns = [{"name": "chartqa", "title": "ChartQA", "protocol": "", "grader": ""}]
    data = {"schema": 1, "run": "x", "columns": columns, "variants": [entry | change], "notes": []}
    (folder / "scores.json").write_text(json.dumps(data))
    assert invoke(["table", str(folder)]) == 2
    assert "scores.json: is damaged" in said(capsys)


def test_help_groups_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(
        panel in text
        for panel in ("Model", "Method and evaluation", "Data", "Configuration", "Machine", "Output")
    )
    flags = (
        "--model --revision --method --benchmarks --images --sft-data --image-root --limit --seed --preset "
    )
    flags += (
        "--config --option --dar --no-dar --device --dtype --batch-size --output --dry-run --resume --fresh "
    )
    flags += "--verbose --quiet --prompts --trust-remote-code"
    assert [flag for flag in flags.split() if flag not in text] == []


@pytest.mark.parametrize(
    "line",
    [
        '{"id": 1}',
        '{"id": 1, "question": "", "target": 0, "response": "", "score": "x"}',
        '{"id": 1, "question": 5, "target": 0, "response": "", "score": 1}',
        '{"id": 1, "question": "", "target": 0, "response": null, "score": 1}',
        '{"id": 1, "question": "", "target": 0, "response": "", "score": 1, "description": [1]}',
    ],
)
def test_a_record_of_something_else_is_named(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "foreign"
    (folder / "records" / "baseline").mkdir(parents=True)
    (folder / "config.yaml").write_text("model: x\n")
    (folder / "records" / "baseline" / "chartqa.jsonl").write_text(line + "\n")
    assert invoke(["show", str(folder), "--benchmark", "chartqa"]) == 2
    assert "chartqa.jsonl, line 1" in said(capsys)
