"""Versions stand for code: what changes what comes out raises one, and what does not, says so."""

from __future__ import annotations

import ast
import inspect
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bench import units, versions
from bench.units import ASIDE, UNITS, files, imports
from bench.versions import ROOT, findings, main, tree, update
from stic_eval import registry
from stic_eval.contracts.method import Data
from stic_eval.experiment.variants import stages
from stic_eval.training.prompt_sets import load_prompts

RECORD = json.loads(versions.RECORD.read_text(encoding="utf-8"))


def test_every_version_stands_for_its_code() -> None:
    assert [line for _, _, line in findings(ROOT, RECORD)] == []


# ---------------------------------------------------------------- which code counts


def covered() -> set[str]:
    return {file.partition(":")[0] for name in UNITS for file in files(ROOT, name)}


def test_all_that_evaluates_is_in_a_unit() -> None:
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "stic_eval/evals").rglob("*.py")}
    there |= {f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.py")}
    assert there - covered() - ASIDE == set()


def test_what_a_unit_imports_is_in_one() -> None:
    """A helper that moves out of sight takes its versions with it."""
    whole = {file for name in UNITS for file in files(ROOT, name) if file.endswith(".py")}
    known = covered() | ASIDE
    assert {file: more for file in whole if (more := imports(ROOT, file) - known)} == {}


def test_what_makes_stages_is_in_a_unit() -> None:
    """A method that makes pairs of its own has a version of its own."""
    for name in registry.methods().own():
        method = registry.methods().get(name)
        plan = method.plan(method.config(), Data((), (), "images", "sft", load_prompts()))
        for stage in stages(plan.adapter):
            for made in (stage.run, *stage.code):
                function = made.func if isinstance(made, partial) else made
                file = Path(inspect.getfile(function)).resolve().relative_to(ROOT).as_posix()
                assert file in covered(), (name, stage.name)


def test_nothing_is_set_aside_that_is_in_a_unit_or_gone() -> None:
    assert ASIDE & {file for name in UNITS for file in files(ROOT, name)} == set()
    assert [file for file in ASIDE if not (ROOT / file).is_file()] == []


def test_a_benchmark_is_its_file_and_what_it_is_graded_by() -> None:
    assert files(ROOT, "chartqa") == ["benchmarks/chartqa.py", "stic_eval/evals/scoring/relaxed.py"]
    assert {
        f"stic_eval/evals/{name}.py" for name in ("rule_grading", "scoring/keyfacts", "scoring/subjects")
    } <= set(files(ROOT, "mmvet"))


# ---------------------------------------------------------------- what of code counts

CODE = '''
"""A module."""
from a import b

def f(x: int, *, y=None) -> str:
    """Does."""
    z = {**x}
    return f"{b(x)!r:>{y}} {{or}} not"
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', "# a comment"), ('    """Does."""\n', ""), ("    z = ", "    # why\n    z  =  "),
        ('f"{b(x)!r:>{y}} {{or}} not"', '(f"{b(x)!r:>{y}}"\n        " {or} " "not")'),
    ],
)  # fmt: skip
def test_text_that_does_nothing_does_not_count(old: str, new: str) -> None:
    assert old in CODE
    assert tree(CODE.replace(old, new)) == tree(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("y=None", "y=0"), ("y=None", "y=False"), ("{**x}", "{None: x}"), ("!r", "!s"), ("} not", "}"),
        (">{y}", ">{x}"), ("int", "str"), ("import b", "import c as b"), ("f(x: int, *, y", "f(x: int, y"),
        ("return ", ""),
    ],
)  # fmt: skip
def test_what_code_does_counts(old: str, new: str) -> None:
    assert old in CODE
    assert tree(CODE.replace(old, new)) != tree(CODE)


def test_numbers_of_other_types_are_others() -> None:
    assert len({json.dumps(tree(f"x = {text}")) for text in ("1", "1.0", "True", '"1"', 'b"1"')}) == 5


def test_what_newer_versions_of_python_add_to_trees_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12 gives functions and classes `type_params`, and cuts the texts of f-strings elsewhere."""
    before, parse = tree(CODE), ast.parse

    def newer(text: str) -> ast.Module:
        found = parse(text)
        for node in ast.walk(found):
            if isinstance(node, ast.FunctionDef):
                node._fields = (*node._fields, "type_params", "default_value")
                node.type_params, node.default_value = [], None
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[-1], ast.Constant):
                texts = [ast.Constant(text) for text in (" {", "", "or} not")]
                node.values = [*node.values[:-1], *texts]
        return found

    with monkeypatch.context() as patch:
        patch.setattr(ast, "parse", newer)
        after = tree(CODE)
    assert after == before


def test_a_definition_stands_for_itself_and_what_it_uses() -> None:
    code = "A, D = 1, 5\nB: int = 2\nclass C: pass\ndef f(): return g()\ndef g(): return A\n"
    assert tree(code, ["B", "C"]) == tree(code.replace("A, D = 1", "A, D = 3"), ["B", "C"])
    assert tree(code, ["B", "f"]) != tree(code.replace("A, D = 1", "A, D = 3"), ["B", "f"])
    assert tree(code, ["B", "f"]) == tree(code.replace("pass", "x = 1"), ["B", "f"])
    assert tree(code, ["B"]) != tree(code.replace("2", "3"), ["B"])
    with pytest.raises(LookupError, match="E"):
        tree(code, ["E"])


# ---------------------------------------------------------------- in a copy of the project


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's code, with a record of its own; versions are those of the code that runs."""
    for name in ("stic_eval", "benchmarks", "methods"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "model"))
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    monkeypatch.setattr(versions, "RECORD", tmp_path / "versions.json")
    assert main([]) == 0
    assert not list(findings(tmp_path, record(tmp_path)))
    return tmp_path


def record(copy: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads((copy / "versions.json").read_text())
    return found


def edit(copy: Path, file: str, change: Callable[[str], str]) -> None:
    path = copy / file
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("stic_eval/evals/scoring/relaxed.py", "return ", "return not ", {"scoring", "chartqa"}),
        ("stic_eval/evals/scoring/aggregate.py", "return ", "return not ", {"runner"}),
        ("stic_eval/solvers/requests.py", "return ", "return not ", {"solvers"}),
        ("stic_eval/evals/clusters.py", "_DIGITS = 12", "_DIGITS = 13", {"runner"}),
        ("stic_eval/evals/columns.py", "return ", "return not ", {"rows"}),
        ("benchmarks/chartqa.py", "version=2", "version=1 + 2", {"chartqa"}),
        ("stic_eval/pocket/prompts.yaml", "plain:", "plain: []\nother:", {"pocket"}),
        ("stic_eval/setting_groups.py", "opened: bool = False", "opened: bool = True", {"runner"}),
        (
            "stic_eval/setting_groups.py",
            "attempts: int = Field(default=6",
            "attempts: int = Field(default=7",
            set(),
        ),
        ("stic_eval/models/sampling.py", "return ", "return not ", {"requests"}),
        ("stic_eval/models/chat_wire.py", 'text, finish = refusal, "refusal"', 'text = ""', {"requests"}),
        ("stic_eval/experiment/work.py", "8, 2048", "9, 2048", {"runner"}),
        ("stic_eval/experiment/work.py", "engine.answers(adapter)", "engine.answers(None)", {"runner"}),
        ("stic_eval/selftrain/stage_runner.py", "thinking, stop), asked", "thinking, ()), asked", {"stages"}),
        ("stic_eval/training/losses.py", "return ", "return not ", {"stages"}),
        (
            "stic_eval/models/clip.py",
            "return ",
            "return not ",
            {"stages", "csr", "rlaif_v_lite", "seva", "sima"},
        ),
        ("methods/csr.py", "return ", "return not ", {"csr"}),
    ],
)
def test_a_change_names_the_versions_that_it_concerns(
    copy: Path, file: str, old: str, new: str, named: set[str]
) -> None:
    edit(copy, file, lambda text: text + ("" if file.endswith(".yaml") else "\n# a comment\n"))
    assert not list(findings(copy, record(copy)))
    edit(copy, file, lambda text: text.replace(old, new, 1))
    assert (copy / file).read_text().count(new), "nothing was changed"
    assert {name for name, _, _ in findings(copy, record(copy))} == named


def test_a_change_without_a_higher_version_fails_until_somebody_says_that_the_same_comes_out(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(copy, "stic_eval/evals/scoring/relaxed.py", lambda text: text + "\nMORE = 1\n")
    capsys.readouterr()
    assert main([]) == 1
    out = capsys.readouterr().out
    assert "raise SCORING in stic_eval/evals/evaluation_versions.py" in out
    assert "raise version in benchmarks/chartqa.py" in out
    assert "stic_eval/evals/scoring/relaxed.py changed" in out
    assert main(["--same-output", "scoring", "--because", "a name that nobody uses"]) == 1  # chartqa is left
    assert record(copy)["scoring"]["same output"] == ["a name that nobody uses"]
    assert "same output" not in record(copy)["chartqa"]
    assert main(["--same-output", "chartqa", "--because", "so here"]) == 0
    edit(copy, "stic_eval/evals/scoring/relaxed.py", lambda text: text + "\nMORE = 2\n")
    assert main([]) == 1  # a reason is for the change that it was given for


def test_a_reason_is_asked_for(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (
        ["--same-output", "scoring"],
        ["--same-output", "scoring", "--because", " "],
        ["--because", "x"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert ended.value.code == 2
        assert "--same-output and --because go together" in capsys.readouterr().err


def test_a_higher_version_is_taken_down_and_a_lower_one_is_not(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(copy, "stic_eval/solvers/requests.py", lambda text: text + "\nMORE = 1\n")
    now = {"direct": 1, "describe_and_respond": 1}

    def version(**changed: int) -> None:
        own = UNITS["solvers"]
        replaced = units.Unit(own.files, lambda: now | changed, own.where)
        monkeypatch.setitem(UNITS, "solvers", replaced)

    known = record(copy)
    version(more=1)
    assert update(copy, record(copy))  # a version that is new says nothing about the others
    version(direct=2)
    assert [may for _, may, _ in findings(copy, known)] == [True]
    assert update(copy, known) == []
    assert known["solvers"]["version"] == {"direct": 2, "describe_and_respond": 1}
    version(direct=1)
    (line,) = update(copy, known)
    assert "only raise it" in line
    assert update(copy, known, ["solvers"], "really") == [line]


def test_a_unit_that_is_gone_is_forgotten(copy: Path) -> None:
    known = record(copy) | {"gone": {"version": 1, "files": {}}}
    assert update(copy, known) == []
    assert "gone" not in known
