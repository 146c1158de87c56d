"""What users of neighbouring tools type works, or is answered by what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from stic_eval.cli.app import app, invoke


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (
            ["--model_args", "pretrained=llava-hf/x,dtype=bfloat16,load_in_4bit=True,load_in_8bit=False,"
             "device_map=auto"],
            "--model_args: write `--model llava-hf/x --dtype bfloat16 --load-in-4bit` instead "
            "(nothing here corresponds to device_map)",
        ),
        (["--model_args", "trust_remote_code=1"], "--model_args: write `--trust-remote-code` instead"),
        (["--model_args", "load_in_4bit=no"], "--model_args: leave it out"),
        (["--model-args"], "--model-args: write e.g. `--model ID --dtype bfloat16` instead"),
        (
            ["--gen_kwargs=temperature=0,max_new_tokens=16,num_beams=1"],
            "--gen_kwargs: write `-o benchmarks.NAME.temperature=0 -o benchmarks.NAME.max_new_tokens=16` "
            "instead (nothing here corresponds to num_beams)",
        ),
        (["--num_fewshot", "0"], "--num_fewshot: benchmarks are asked without examples; leave it out"),
        (["--log_samples"], "--log_samples: every answer is written to records/ in the folder of the "
                            "results anyway; leave it out"),
        (["--apply_chat_template"], "--apply_chat_template: a chat template is always applied, the model's "
                                    "or that of --chat-template; leave it out"),
        (["--data", "MMBench"], "--data: write `--benchmarks NAME,...` instead (`stic-eval ls benchmarks` "
                                "lists them)"),
        (["--work-dir", "out"], "--work-dir: write `--output DIR` instead"),
    ],
)  # fmt: skip
def test_what_is_written_otherwise_is_said(
    argv: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["eval", "--limit", "2", *argv]) == 2
    assert capsys.readouterr().err == f"stic-eval: {line}\n"


def test_what_nobody_has_is_refused_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["eval", "--no_such_thing"]) == 2
    assert "--no-such-thing: no such option" in capsys.readouterr().err


def test_their_names_and_underscores_are_understood() -> None:
    argv = ["--tasks", "chartqa", "--limit", "2", "--batch_size", "2", "--output_path", "here", "--no_dar"]
    result = CliRunner().invoke(app, ["eval", "--model", "pocket", *argv, "--dry_run"])
    assert result.exit_code == 0, result.output
    assert "evaluate baseline chartqa" in result.output
    assert "output: here" in result.output
    assert not Path("here").exists()


@pytest.mark.parametrize(("theirs", "ours"), [("latex", "tex"), ("markdown", "md")])
def test_formats_have_their_long_names(theirs: str, ours: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both lead as far: to the run that is not there, not to the format."""
    lines = []
    for name in (theirs, ours, "word"):
        assert invoke(["table", "no-such-run", "--format", name]) == 2
        lines.append(capsys.readouterr().err)
    assert lines[0] == lines[1] != lines[2]
    assert "no-such-run" in lines[0]
    assert "--format word: give text, md" in lines[2]


@pytest.mark.parametrize(
    ("name", "installed", "suggested"),
    [
        ("mme", True, 'did you mean "lmms:mme"?'),
        ("mme", False, 'if lmms has it, write "lmms:mme"'),
        ("mathvsta", True, 'did you mean "mathvista"?'),
        ("mathvsta", False, 'did you mean "mathvista"?'),
        ("chartq", True, 'did you mean "chartqa"?'),
        ("chartQA2", False, 'did you mean "chartqa"?'),
    ],
)
def test_a_task_of_lmms_eval_is_suggested(
    name: str, installed: bool, suggested: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from stic_eval.evals.lmms import benchmark

    if not installed:
        monkeypatch.setattr(benchmark, "installed_version", lambda: None)
    elif benchmark.installed_version() is None:
        pytest.skip("lmms-eval is not installed")
    assert invoke(["eval", "--benchmarks", name]) == 2
    assert f'"{name}"; {suggested}' in capsys.readouterr().err


def test_a_family_that_cannot_be_loaded_suggests_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(point: object) -> None:
        raise ImportError("no such module")

    monkeypatch.setattr("stic_eval.entry_points.load", broken)
    assert invoke(["eval", "--benchmarks", "mme"]) == 2
    assert "lmms:" not in capsys.readouterr().err


def hub(folder: Path, name: str, *files: str) -> Path:
    """A repository as the hub's client keeps it."""
    repository = folder / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    for file in files:
        (snapshot / file).write_text("{}")
    return snapshot


def test_an_adapter_may_be_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    from stic_eval import config
    from stic_eval.adapter_references import adapter_name

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = hub(tmp_path / "hub", "somebody/lora", "adapter_config.json", "adapter_model.safetensors")
    built = config.load(flags={"model": "pocket", "methods": ["baseline"], "adapters": ["somebody/lora"]})
    assert built.adapters == (snapshot,)
    assert adapter_name(snapshot) == "lora"
    assert adapter_name(tmp_path / "mine" / "snapshots" / "step100") == "step100"
    elsewhere = f"/another/hub/models--somebody--lora/snapshots/{'a' * 40}"  # another machine's config.yaml
    assert config.load(flags={"model": "pocket", "adapters": [elsewhere]}).adapters == (snapshot,)
    assert "baseline+lora" in built.name
    assert invoke(["eval", "--adapter", "somebody/other"]) == 2
    assert "--adapter somebody/other: neither a folder nor found on the hub" in capsys.readouterr().err
    Path("mine").mkdir()  # what lies in a folder that there is, is no id
    assert invoke(["eval", "--adapter", "mine/adapter"]) == 2
    assert "hub" not in capsys.readouterr().err


def test_ls_by_itself_lists_what_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["ls"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert "stic-eval ls benchmarks" in listed
    for line in listed:
        assert invoke(line.split()[1:]) == 0


COMPLETED = [
    ("run --benchmarks ch", ["chartqa"]),
    ("run --benchmarks chartqa,mmv", ["chartqa,mmvet"]),
    ("eval --tasks ch", ["chartqa"]),
    ("run --method stic_", ["stic_stage1"]),
    ("run --preset pock", ["pocket"]),
    ("run --engine op", ["openai"]),
    ("ablate comp", ["components"]),
    ("show chart", ["chartqa"]),
    ("table ow", ["own"]),
    ("table own --format t", ["text", "tex"]),
    ("ls meth", ["methods"]),
    ("run --no-such-option x", []),
]


@pytest.mark.parametrize(("typed", "offered"), COMPLETED)
def test_a_shell_completes_names(typed: str, offered: list[str]) -> None:
    Path("results/own").mkdir(parents=True)
    Path("results/own/config.yaml").write_text("")
    words = f"stic-eval {typed}"
    env = {"_STIC_EVAL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    result = CliRunner().invoke(app, [], env=env, prog_name="stic-eval")
    assert result.output.split() == offered


def test_completion_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # else the shell is not named
    result = CliRunner().invoke(app, ["--install-completion", "bash"], prog_name="stic-eval")
    assert result.exit_code == 0, result.output
    (script,) = tmp_path.rglob("*.sh")
    assert "_STIC_EVAL_COMPLETE=complete_bash" in script.read_text()
