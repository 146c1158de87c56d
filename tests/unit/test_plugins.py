"""Plug-in files: by path, in folders, broken in every way, and through the commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stic_eval import config, plugins, registry
from stic_eval.cli.app import invoke
from stic_eval.contracts.method import Data
from stic_eval.errors import UserError
from stic_eval.store import file_name, named_by
from stic_eval.training.prompt_sets import load_prompts

METHOD = """from pydantic import BaseModel, ConfigDict
from stic_eval.contracts.method import Method, Plan


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = 100
    weights: dict[str, float] = {}


def plan(options, data):
    return Plan(None, "describe_and_respond")


method = Method("mine", "Mine", plan, Options, presets={"pocket": {"size": 5, "weights": {"a": 1.0}}})
"""
BENCHMARK = """from dataclasses import replace
from stic_eval import registry

chartqa = registry.benchmarks().get("chartqa")
benchmark = replace(chartqa, name="own", title="Own", rows_like="chartqa", options=None, vary=None)
"""
Put = Callable[..., Path]


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder and a cache of its own, and no plug-ins of other tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(plugins.FOLDERS, raising=False)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    plugins.forget()
    yield
    plugins.forget()


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes a file."""

    def write(name: str, text: str, folder: str = ".") -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def said(capsys: pytest.CaptureFixture[str]) -> str:
    message = capsys.readouterr().err
    assert message.count("\n") == 1, message
    return message


# ---------------------------------------------------------------- by path


def test_a_file_stands_for_what_is_in_it(put: Put, tmp_path: Path) -> None:
    put("mine.py", METHOD)
    put("own.py", BENCHMARK)
    flags = {"methods": ["./mine.py", "stic"], "benchmarks": "./own.py,mmbench"}
    built = config.load(flags=flags)
    assert built.methods == ("mine", "stic")
    assert built.benchmarks == ("own", "mmbench")
    assert built.plugins == (str(tmp_path / "mine.py"), str(tmp_path / "own.py"))
    assert config.load(overrides=["methods=./mine.py"]).methods == ("mine",)


def test_a_saved_run_finds_its_plugins_from_anywhere(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("mine.py", METHOD)
    built = config.load(flags={"methods": ["./mine.py"], "benchmarks": "mmbench"}, overrides=["size=7"])
    file = put("config.yaml", built.to_yaml(), "elsewhere")
    monkeypatch.chdir(file.parent)
    plugins.forget()
    again = config.load(file=file)
    assert again == built
    assert again.method_options["mine"]["size"] == 7
    (tmp_path / "mine.py").rename(tmp_path / "moved.py")
    plugins.forget()
    with pytest.raises(UserError, match=r"config\.yaml: plugins: .*mine\.py: no such file"):
        config.load(file=file)
    moved = {**yaml.safe_load(built.to_yaml()), "plugins": [str(tmp_path / "moved.py")]}
    file.write_text(yaml.safe_dump(moved))
    assert config.load(file=file).key == built.key, "where the file lies changes no result"


def test_a_config_file_may_name_files_itself(put: Put) -> None:
    put("mine.py", METHOD)
    file = put("run.yaml", "methods: [./mine.py]\nmethod_options: {mine: {size: 3}}\nbenchmarks: [mmbench]\n")
    assert config.load(file=file).method_options["mine"]["size"] == 3
    with pytest.raises(UserError, match="give a list of plug-in files"):
        config.load(file=put("bad.yaml", "plugins: ./mine.py\n"))


def test_a_method_brings_what_suits_a_preset(put: Put) -> None:
    put("mine.py", METHOD)

    def load(*overrides: str, **flags: str) -> dict[str, object]:
        built = config.load(flags={"methods": ["./mine.py"], **flags}, overrides=overrides)
        return built.method_options["mine"]

    assert load() == {"size": 5, "weights": {"a": 1.0}}
    assert load(model="some/model") == {"size": 100, "weights": {}}
    assert load("size=9", "weights={b: 2}") == {"size": 9, "weights": {"b": 2.0}}, "a mapping is one value"
    put("mine.py", METHOD.replace('"size": 5', '"siez": 5'))
    plugins.forget()
    with pytest.raises(
        UserError, match=r'mine\.py: presets: pocket: unknown option "siez"; did you mean "size"'
    ):
        load()


def test_all_stands_for_what_is_built_in_whatever_else_is_there(
    put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = config.load().benchmarks
    put("own.py", BENCHMARK, "plug")
    monkeypatch.setenv(plugins.FOLDERS, "plug")
    assert "own" in registry.benchmarks().names()
    assert config.load().benchmarks == before
    assert config.load(flags={"benchmarks": "own,all"}).benchmarks == ("own", *before)


def test_a_file_is_imported_once_a_command_and_anew_when_it_has_changed(put: Put) -> None:
    put("mine.py", METHOD)
    first = registry.methods().get("./mine.py")
    assert registry.methods().get("mine") is first
    assert registry.methods().get(os.path.abspath("mine.py")) is first
    put("mine.py", METHOD.replace('"Mine"', '"Nine"'))  # as long as it was, and within the same second
    assert registry.methods().get("./mine.py") is first
    plugins.forget()
    assert "mine" not in registry.methods().names()
    assert registry.methods().get("./mine.py").title == "Nine"


def test_a_file_without_what_is_asked_for_says_what_it_has(put: Put) -> None:
    put("mine.py", METHOD)
    with pytest.raises(
        UserError, match=r"--benchmarks ./mine\.py: mine\.py, line 15: holds a method, and no benchmark"
    ):
        registry.benchmarks().get("./mine.py")
    with pytest.raises(UserError, match=r"--method ./none\.py: no such file"):
        registry.methods().get("./none.py")


# ---------------------------------------------------------------- what is wrong with a file

BROKEN = [
    ("x = 1\nfor\n", "line 2: SyntaxError"),
    ("import no_such_module\n", "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
    ("def f():\n    raise KeyError('k')\n\n\nf()\n", "line 2: KeyError: 'k'"),
    ("import json\n\njson.loads('{')\n", "line 3: JSONDecodeError"),
    ("import sys\nsys.exit('bye')\n", "line 2: SystemExit: bye"),
    ("raise GeneratorExit\n", "line 1: GeneratorExit"),
    ("class Own(BaseException):\n    pass\n\n\nraise Own('x')\n", "line 5: Own: x"),
    ("class Odd(Exception):\n    __str__ = None\n\n\nraise Odd\n", "line 5: Odd: what it says cannot"),
    ("raise ValueError('x' * 100_000)\n", "line 1: ValueError: xxx"),
    ("assert False\n", "line 1: AssertionError"),
    ("raise ValueError('one\\ntwo')\n", "line 1: ValueError: one"),
    ("x = 1\n", "line 1: has no `method = Method(...)`"),
    (METHOD.replace("method = Method", "other = Method"), "line 15: `other` is a method, which"),
    (METHOD + "method = 'text'\n", "line 16: `method` is of type str; it has to be a Method"),
    (METHOD + "method = Options()\n", "line 16: `method` is of type Options"),
    (METHOD.replace('"mine"', '"my mine"'), "line 15: `method` is called 'my mine'"),
    (METHOD.replace('"mine"', "7"), "line 15: `method` is called 7"),
    (METHOD.replace('"mine"', '"all"'), 'line 15: `method` is called "all"'),
    (METHOD.replace('"mine"', '"adapter"'), 'line 15: `method` is called "adapter", which is what'),
    (METHOD.replace('"mine"', '"Adapter12"'), 'line 15: `method` is called "Adapter12", which is'),
    (METHOD.replace('"Mine"', "None"), "line 15: `method`: title is None"),
    (METHOD.replace("plan, Options", "plan, Options()"), "line 15: `method`: config is Options("),
    (METHOD.replace("plan, Options", "'plan', Options"), "line 15: `method`: plan is 'plan'"),
    (METHOD.replace('extra="forbid"', 'extra="ignore"'), "line 15: `method`: config has to forbid"),
    (METHOD.replace("presets={", "presets={'a': 5, "), "line 15: `method`: presets has to map"),
    (BENCHMARK.replace('"own"', '"own.x"'), "line 5: `benchmark` is called 'own.x'"),
    (BENCHMARK.replace('title="Own"', "score=None"), "line 5: `benchmark`: score is None"),
    (BENCHMARK.replace("vary=None", "vary=plain"), "line 5: NameError"),
    (BENCHMARK.replace(", vary=None", ""), "line 5: `benchmark`: `options` and `vary` come"),
    (BENCHMARK.replace(", options=None, vary=None", ""), "line 5: `benchmark`: vary makes one called"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), BROKEN, ids=[reason for _, reason in BROKEN])
def test_what_is_wrong_with_a_file_is_said_in_one_line_with_path_and_line(
    put: Put, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    put("bad.py", text)
    assert invoke(["run", "--method", "./bad.py", "--dry-run"]) == 2
    assert f"--method ./bad.py: bad.py, {reason}" in said(capsys)


def test_what_a_file_prints_is_kept_out_of_what_a_command_prints(
    put: Put, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put("mine.py", "print('loud words')\n" + METHOD, "folder")
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path / "folder"))
    assert invoke(["ls", "methods"]) == 0
    done = capsys.readouterr()
    assert "mine" in done.out and "loud words" not in done.out
    assert "loud words" in done.err


@pytest.mark.parametrize("kind", ["method", "benchmarks"])
def test_commas_in_a_path_are_told_of(put: Put, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    put("mine,own.py", METHOD if kind == "method" else BENCHMARK)
    assert invoke(["run", f"--{kind}", "./mine,own.py", "--dry-run"]) == 2
    assert f"--{kind} ./mine,own.py: commas separate names; give the file a path without any" in said(capsys)


def test_files_that_are_no_text_or_no_files_are_told_of(put: Put, tmp_path: Path) -> None:
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00x")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "zero.py").symlink_to("/dev/zero")
    (tmp_path / "circle.py").symlink_to("circle.py")
    os.mkfifo(tmp_path / "pipe.py")
    for name in ("./binary.py", "./folder.py", "./zero.py", "./circle.py", "./pipe.py"):
        with pytest.raises(UserError, match=rf"--method {name}: ") as caught:
            registry.methods().get(name)
        assert "\n" not in str(caught.value)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
def test_whatever_a_file_holds_is_looked_at_without_a_crash(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.py"
    path.write_bytes(f"raise SystemExit\n{text}".encode("utf-8", "surrogatepass"))  # nothing of it is done
    with pytest.raises(UserError, match=r"any\.py") as caught:
        plugins.register_file(path)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- folders


def test_a_folder_gives_its_files_and_broken_ones_disturb_nobody(
    put: Put, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put("mine.py", METHOD, "plug")
    put("bad.py", "x = 1\nimport no_such_module\n", "plug")
    put("ugly.py", "(", "more")
    for name in ("_private.py", "test_mine.py", "conftest.py", "notes.txt"):
        put(name, "raise RuntimeError('is not to be imported')", "plug")
    monkeypatch.setenv(plugins.FOLDERS, os.pathsep.join(["plug", "more", "plug", "nowhere"]))
    monkeypatch.setenv("COLUMNS", "200")
    argv = ["run", "--method", "mine", "--benchmarks", "chartqa", "--limit", "2", "--dry-run"]
    assert invoke(argv) == 0
    assert "evaluate mine+dar chartqa" in capsys.readouterr().out
    for what in ("methods", "benchmarks"):
        assert invoke(["ls", what]) == 0
        out = capsys.readouterr().out
        assert "bad.py" in out and "line 2: ModuleNotFoundError" in out
        assert "ugly.py" in out and "SyntaxError" in out and "nowhere" in out
        assert "is not to be imported" not in out
    assert invoke(["run", "--method", "mein", "--dry-run"]) == 2
    message = said(capsys)
    assert 'did you mean "mine"?' in message and "3 plug-ins are broken: " in message
    invoke(["doctor"])
    out = capsys.readouterr().out
    assert out.count("FAIL  plug-in: ") == 3


@pytest.mark.parametrize("by_path", [True, False])
def test_a_name_that_is_taken_is_an_error_that_names_both(
    put: Put, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, by_path: bool
) -> None:
    put("sft_of_mine.py", METHOD.replace('"mine"', '"sft"'), "plug")
    if not by_path:
        monkeypatch.setenv(plugins.FOLDERS, "plug")
    assert invoke(["run", "--method", "plug/sft_of_mine.py" if by_path else "sft", "--dry-run"]) == 2
    message = said(capsys)
    assert "stic_eval.methods.sft:method" in message
    assert "sft_of_mine.py, line 15" in message and 'name="my_sft"' in message
    # Others are not concerned, though the preset has options for it as well.
    assert (
        invoke(["run", "--method", "baseline", "--benchmarks", "chartqa", "--limit", "2", "--dry-run"]) == 0
    )


def test_two_files_of_one_name_are_both_named(put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    put("a.py", METHOD)
    put("b.py", METHOD)
    assert invoke(["run", "--method", "./a.py", "--method", "./b.py", "--dry-run"]) == 2
    message = said(capsys)
    assert "a.py, line 15" in message and "b.py, line 15" in message
    assert invoke(["show", "./b.py"]) == 0, "another command names its own"


# ---------------------------------------------------------------- what it does


def test_show_and_data_and_score_take_files(put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    put("both.py", METHOD + BENCHMARK)
    assert invoke(["show", "./both.py"]) == 0
    out = capsys.readouterr().out
    assert "title: Mine" in out and "size: 5" in out and "title: Own" in out and "both.py" in out
    assert invoke(["data", "check", "./both.py", "--from", "pocket", "--no-images"]) == 0
    assert capsys.readouterr().out.startswith("Own: the pocket test rows: 200 rows")
    put("answers.jsonl", '{"id": "1", "response": "5"}\n')
    argv = ["score", "./both.py", "--predictions", "answers.jsonl", "--rows", "pocket", "--answered-only"]
    assert invoke([*argv, "-q"]) == 0
    assert capsys.readouterr().out.startswith("Own: ")


def test_what_a_plan_raises_is_said_with_path_and_line(put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    put("mine.py", METHOD.replace("return Plan", "raise ValueError('oops') or Plan"))
    argv = ["run", "--method", "./mine.py", "--benchmarks", "chartqa", "--limit", "2"]
    assert invoke([*argv, "-q"]) == 1
    assert "mine.py, line 12: ValueError: oops (see results/" in said(capsys)
    assert invoke([*argv, "--dry-run"]) == 1
    assert "mine.py, line 12: ValueError: oops" in said(capsys)


def test_what_others_raise_is_not_blamed_on_a_plugin(put: Put) -> None:
    put("mine.py", METHOD)
    registry.methods().get("./mine.py").plan(None, Data((), (), "", "", load_prompts()))
    with pytest.raises(ValueError, match="invalid") as caught:
        int("x")
    assert registry.explain(caught.value) == "ValueError: invalid literal for int() with base 10: 'x'"


@given(st.text())
def test_any_name_makes_a_file_name_and_back(name: str) -> None:
    file = file_name(name)
    assert named_by(file) == name
    assert not set(file) & set('<>:"/\\|?*')


def test_usual_names_are_files_as_they_are() -> None:
    assert [file_name(name) for name in registry.benchmarks().own()] == registry.benchmarks().own()
