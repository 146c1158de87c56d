"""Settings that nobody would write: one line, exit code 2, and at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from stic_eval.cli.app import fail, invoke
from stic_eval.errors import first_line, headline, quote
from stic_eval.training.prompt_sets import load_prompts


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STIC_EVAL_PLUGINS", raising=False)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert invoke(list(argv)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "unexpectedly" not in line and "Traceback" not in line
    assert len(line) < 1500
    return line


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("preset: 5", "preset 5"),
        ("preset: [pocket]", "preset"),
        ("plugins: ['/dev/zero']", "/dev/zero"),
        ("solver_options: 5", "solver_options"),
        ("solver_options: {describe_and_respond: 5}", "describe_and_respond"),
        ("method_options: {stic: {stage1: {beta: .inf}}}", "beta inf"),
        ("method_options: {stic: {stage1: {beta: .nan}}}", "beta nan"),
        ("method_options: {stic: {stage1: {images: 1000000000000000000000}}}", "images"),
        ("method_options: {stic: {stage1: {epochs: 1000000000000000000000}}}", "epochs"),
        ("method_options: {stic: {iterations: 1000000}}", "iterations"),
        ("method_options: {stic: {lora: {r: 1000000}}}", "lora.r"),
        (f"seeds: [{', '.join(map(str, range(5000)))}]", "seed"),
        ("seeds: [4294967296]", "seed"),
        (f"limit: {10**300}", "limit"),
        (f"preset: {'x' * 100_000}", "no preset is called"),
        ("a: !!timestamp soon", "--config"),
        ("[" * 5000, "nested too deeply"),
        ("judge: {timeout: .inf}", "judge"),
    ],
    ids=range(18),
)
def test_a_configuration_is_refused(text: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("settings.yaml").write_text(text)
    assert named in refused(capsys, "run", "--config", "settings.yaml", "--dry-run")


def test_more_pictures_than_the_embedded_world_draws(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "run", "-o", "stage1.images=900000000", "--dry-run")
    assert "900,000,000" in line and "100,000" in line


@pytest.mark.parametrize("flag", ["--config", "--prompts", "--chat-template"])
def test_a_device_is_no_file(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "regular file" in refused(capsys, "run", flag, "/dev/zero", "--dry-run")


@pytest.mark.parametrize(
    "argv",
    [
        "show {}",
        "ls {}",
        "table {}",
        "compare {}",
        "export pairs {} --to csv",
        "run --model /{}/{} --dry-run",
        "report {}",
        "plot {}",
        "run --images /{} --dry-run",
    ],
)
def test_names_that_are_too_long(argv: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, *argv.replace("{}", "x" * 5_000).split())


def test_a_grid_that_nobody_could_run(capsys: pytest.CaptureFixture[str]) -> None:
    vary = [f"--vary={name}={','.join(map(str, values))}" for name, values in {
        "stage1.beta": [k / 100 for k in range(1, 200)], "stage1.alpha": [k / 100 for k in range(1, 200)],
    }.items()]  # fmt: skip
    assert "39,601 cells" in refused(capsys, "ablate", *vary, "--dry-run")


def test_prompts_may_look_like_dates(tmp_path: Path) -> None:
    path = tmp_path / "prompts.yaml"
    path.write_text("step_by_step: 2020-01-01\nplain: [2020-13-45]\nmisleading: [x]\n")
    assert load_prompts(path).step_by_step == "2020-01-01"


def test_long_words_do_not_hide_what_is_to_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    fail(f"--flag {'x' * 100_000}: give another \u202e one")
    line = capsys.readouterr().err
    assert len(line) < 400 and "give another \\u202e one" in line


def test_values_and_errors_that_cannot_be_written() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise GeneratorExit

        def __repr__(self) -> str:
            raise ValueError

    assert headline(Odd()).startswith("Odd: ") and first_line(Odd())
    assert quote(Odd()) == "a Odd" and quote(10**5000) == "a int"
    assert quote("x" * 5000).endswith("... (5,000 characters)") and len(quote(["x"] * 5000)) < 250
    assert len(first_line(ValueError("x" * 100_000))) < 600


def test_directions_of_writing_are_visible_in_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "results" / "odd\u202erun"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("model: 'a\u202eb'\n", encoding="utf-8")
    (run / "manifest.json").write_text('{"by": "c\u2066d"}', encoding="utf-8")
    (run / "scores.json").write_text("{}")
    invoke(["show", str(run)])
    shown = capsys.readouterr().out
    assert "\u202e" not in shown and "\u2066" not in shown
    assert "\\u202e" in shown and "\\u2066" in shown
