"""`new` and `cp`: what they write works at once, and nothing that is there is lost."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stic_eval import config, config_layers, plugins, registry
from stic_eval.cli.app import invoke
from stic_eval.cli.cp import copy_as
from stic_eval.cli.new import as_theirs
from stic_eval.contracts.method import Data, Method
from stic_eval.errors import UserError
from stic_eval.evals.sources import samples
from stic_eval.selftrain.stage_runner import stage_key
from stic_eval.training.prompt_sets import load_prompts


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own, and no plug-ins of other tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(plugins.FOLDERS, raising=False)
    plugins.forget()
    yield
    plugins.forget()


def run(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    assert invoke(list(argv)) == code
    done = capsys.readouterr()
    if code:
        assert done.err.count("\n") == 1, done.err
    return done.err if code else done.out


def commands(out: str) -> list[str]:
    """The commands that are told to be run next."""
    return [line.strip() for line in out.partition("next, on the built-in model:")[2].splitlines() if line]


# ---------------------------------------------------------------- new


@pytest.mark.parametrize("kind", ["method", "benchmark"])
def test_what_is_written_is_of_that_name_and_of_no_other(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    out = run(capsys, "new", kind, "shadow_play", "--to", "in here/deep")
    folder = tmp_path / "in here" / "deep"
    file = folder / "shadow_play.py"
    found = (registry.methods() if kind == "method" else registry.benchmarks()).get(str(file))
    assert (found.name, found.title) == ("shadow_play", "Shadow play")
    test = (folder / "test_shadow_play.py").read_text()
    for text in (file.read_text(), test):
        assert f"my_{kind}" not in text and f"My {kind}" not in text
        ast.parse(text)
    assert "'in here/deep/shadow_play.py'" in out, "a path with a blank is quoted"
    assert len(commands(out)) == 3


def test_a_new_benchmark_has_rows_to_begin_with(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(capsys, "new", "benchmark", "signs")
    benchmark = registry.benchmarks().get("./signs.py")
    rows = samples(benchmark, tmp_path / "signs.jsonl")
    assert len(rows) == 4
    assert {sample.group["kind"] for sample in rows} == {"sign", "chart"}
    for sample in rows:
        assert sample.images[0].load().size[0] > 0
        assert benchmark.score(sample, sample.target[0]).value == 1.0
        assert benchmark.score(sample, "something else").value == 0.0
    out = run(capsys, "data", "check", "./signs.py", "--from", "signs.jsonl", "--quiet")
    assert out == "Signs: signs.jsonl: 4 rows, no problems\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("1a", "cannot be a name"), ("a-b", "cannot be a name"), ("a.b", "cannot be a name"),
        ("../a", "cannot be a name"), ("class", "cannot be a name"), ("_a", "cannot be a name"),
        ("ä", "cannot be a name"), ("a\n", "cannot be a name"), ("", "cannot be a name"),
        ("json", "mistaken for something else"), ("test_a", "mistaken for something else"),
        ("all", "stands for everything, cannot be a name"), ("adapter", "which is what `--adapter` calls"),
        ("adapter2", "which is what `--adapter` calls"),
        ("stic", 'a method called "stic" already (installed)'),
    ],
)  # fmt: skip
def test_a_name_that_could_not_be_used_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, said: str
) -> None:
    assert said in run(capsys, "new", "method", name, code=2)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unless_it_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_mine.py").write_text("# mine\n")
    assert "test_mine.py: already exists" in run(capsys, "new", "method", "mine", code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path))
    run(capsys, "new", "method", "mine", "--force")
    run(capsys, "new", "method", "mine", "--force")  # its own name is not taken by itself
    (tmp_path / "other").mkdir()
    message = run(capsys, "new", "method", "mine", "--to", "other", "--force", code=2)
    assert 'a method called "mine" already (in mine.py)' in message
    (tmp_path / "file").touch()
    assert "cannot write" in run(capsys, "new", "method", "others", "--to", "file", code=2)


@pytest.mark.parametrize("gone", ["", "signs.jsonl", "signs_images/2.png"])
def test_rows_that_are_somebodys_own_are_not_overwritten(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, gone: str
) -> None:
    run(capsys, "new", "benchmark", "signs")
    for path in tmp_path.rglob("*.*"):
        if path.is_file():
            path.write_text("own\n")
    if gone:
        (tmp_path / gone).unlink()
    run(capsys, "new", "benchmark", "signs", "--force")
    changed = {path.name for path in tmp_path.rglob("*.*") if path.is_file() and path.read_text() != "own\n"}
    assert changed == {"signs.py", "test_signs.py"}


def test_imports_are_in_the_order_of_a_project_that_stic_eval_is_no_part_of(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Libraries, of which stic_eval is one there, in one block: what ruff and isort ask for."""
    for kind, names in (("method", registry.methods()), ("benchmark", registry.benchmarks())):
        run(capsys, "new", kind, f"a_{kind}")
        for name in names.own():
            run(capsys, "cp", kind, name)
    files = list(tmp_path.glob("*.py"))
    assert len(files) > 12
    for path in files:
        block = re.search(r"^(?:from|import) (?:pydantic|pytest|PIL)\b.*?\n\n", path.read_text(), re.M | re.S)
        assert block and "\nfrom stic_eval" in block[0], path


@pytest.mark.parametrize(
    ("text", "theirs"),
    [
        ("import re\n\nimport stic_eval\n", None),
        ("import stic_eval\nimport yaml\n", None),
        ("import yaml\nX = 1\n\nimport stic_eval\n", None),
        ("import yaml\n\n# why\nimport stic_eval\n", None),
        ("", None),
        ("import re\n\nfrom yaml import (\n    a,\n)\n\nfrom stic_eval.x import b\n\nimport stic_eval\n",
         "import re\n\nfrom yaml import (\n    a,\n)\nfrom stic_eval.x import b\n\nimport stic_eval\n"),
    ],
)  # fmt: skip
def test_only_what_parts_libraries_from_stic_eval_is_taken_away(text: str, theirs: str | None) -> None:
    assert as_theirs(text) == (text if theirs is None else theirs)


# ---------------------------------------------------------------- cp

DATA = Data((), (), "images", "items", load_prompts())


def keys(method: Method, options: dict[str, object]) -> list[str]:
    plan = method.plan(method.config.model_validate(options), DATA)
    return [stage_key(plan.adapter, DATA, "model", 0)] if plan.adapter else []


@pytest.mark.parametrize("name", registry.methods().own())
def test_a_copied_method_is_the_same_by_another_name(capsys: pytest.CaptureFixture[str], name: str) -> None:
    out = run(capsys, "cp", "method", name)
    assert f"stic-eval run --method ./my_{name}.py --method {name}" in out
    original = registry.methods().get(name)
    text = Path(f"my_{name}.py").read_text()
    copy = registry.methods().get(f"./my_{name}.py")
    assert copy.name == f"my_{name}"
    assert copy.title == f"{original.title} (my_{name})"
    assert copy.paper == original.paper
    assert copy.config().model_dump() == original.config().model_dump()
    assert len(re.findall(r"^\w+ = Method\(", text, re.M)) == 1, "other methods of the file stay behind"
    for preset in config_layers.preset_names():
        both = [
            config.load(preset=preset, flags={"methods": [m], "model": "x"}).method_options[
                m.removesuffix(".py")
            ]
            for m in (name, f"my_{name}")
        ]
        assert both[0] == both[1], "what presets say is not lost"
    adapted = keys(original, both[0])
    if "made_pairs" not in text:  # a function of one's own has its file in the key
        assert keys(copy, both[0]) == adapted, "what does the same shares its stages"


def test_only_what_the_other_methods_of_a_file_have_used_stays_behind(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(capsys, "cp", "method", "stic")
    run(capsys, "cp", "method", "stic_stage1", ".", "--as", "first")
    stic, first = Path("my_stic.py").read_text(), Path("first.py").read_text()
    assert "NoStage2" not in stic and "class Stage2" in stic
    assert "NoStage2" in first and '"stic"' not in first
    assert first.count("# paper and released code") >= 2, "comments stay"


@pytest.mark.parametrize("name", registry.benchmarks().own())
def test_a_copied_benchmark_asks_and_scores_the_same_rows(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run(capsys, "cp", "benchmark", name, "sub", "--as", "mine")
    original, copy = registry.benchmarks().get(name), registry.benchmarks().get("sub/mine.py")
    assert (copy.name, copy.title) == ("mine", f"{original.title} (mine)")
    rows = [samples(b, "pocket", limit=5, images=False) for b in (original, copy)]
    assert [s.question for s in rows[0]] == [s.question for s in rows[1]]
    if copy.options is not None:
        assert copy.vary is not None
        assert copy.vary(copy.options()).name == "mine", "so it is called under options"


def test_a_copy_of_a_copy_and_of_a_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "new", "method", "one")
    run(capsys, "cp", "method", "./one.py", "--as", "two")
    run(capsys, "cp", "method", "./two.py", "--as", "three")
    found = registry.methods().get("./three.py")
    assert (found.name, found.title) == ("three", "One (two) (three)")
    assert found.presets == registry.methods().get("./one.py").presets
    assert "already exists" in run(capsys, "cp", "method", "./one.py", "--as", "two", code=2)
    assert 'called "stic" already' in run(capsys, "cp", "method", "./one.py", "--as", "stic", code=2)
    assert 'no method is called "onne"' in run(capsys, "cp", "method", "onne", code=2)


def test_what_cannot_be_copied_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(capsys, "new", "method", "one")
    text = (tmp_path / "one.py").read_text()
    named = text.replace('name="one"', 'name="".join(["o", "ne"])')
    (tmp_path / "one.py").write_text(named)
    assert "can be seen in it; copy that file by hand" in run(
        capsys, "cp", "method", "./one.py", "--as", "two", code=2
    )
    (tmp_path / "one.py").write_text(text + "\nassert method.name == 'one'\n")
    assert "two.py, line" in run(capsys, "cp", "method", "./one.py", "--as", "two", code=2)
    assert not (tmp_path / "two.py").exists()


def test_a_copy_may_be_called_by_the_file_it_is_to_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(capsys, "cp", "method", "sft", "sub/tuned.py")
    assert registry.methods().get("sub/tuned.py").name == "tuned"
    assert "gives another name" in run(capsys, "cp", "method", "sft", "a.py", "--as", "b", code=2)


def test_imports_from_a_package_of_ones_own_are_made_whole(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(capsys, "new", "method", "one")
    text = (
        "from . import parts\nfrom .parts import (\n    a,\n    b as c,\n)\n"
        + (tmp_path / "one.py").read_text()
    )
    method = registry.methods().get("./one.py")

    def made_by() -> None: ...

    made_by.__module__ = "package.one"
    whole = copy_as(text, "method", method, "two", {}, made_by)
    assert "from package import parts\nfrom package.parts import a, b as c\n" in whole


@given(st.sampled_from(["é", "漢字", "🙂", "a", '"', "\\"]), st.booleans())
def test_text_of_any_kind_around_a_name_stays_as_it_is(character: str, constant: bool) -> None:
    name, title = ("NAME", "TITLE") if constant else ("'x'", "'X'")
    text = (
        f"# {character}\nNAME = 'x'; TITLE = 'X'  # {character}\n"
        f"method = Method({name}, {title}, plan, C, {character!r})  # {character}\n"
    )
    method = Method("x", "X", lambda options, data: None, int)  # type: ignore[arg-type, return-value]
    done = copy_as(text, "method", method, "y", {}, method.plan)
    assert '"y"' in done and '"X (y)"' in done and "'x'" not in done.replace("NAME = 'x'", "")
    assert done.count(f"# {character}\n") == 3
    assert repr(character) in done
    ast.parse(done)


def test_a_file_that_is_no_python_is_told_of() -> None:
    with pytest.raises(UserError):
        registry.methods().get("./nothing.py")
