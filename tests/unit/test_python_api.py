"""The Python API by its surface: what is imported when, what calls take, what is refused and how."""

from __future__ import annotations

import inspect
import io
import json
import re
import subprocess
import sys
import traceback
from collections import Counter
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.console import Console

import stic_eval as se
from bench import same_results
from stic_eval import flags, registry
from stic_eval.cli.app import invoke
from stic_eval.errors import Interrupted
from stic_eval.evals import runner
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.experiment import planning
from stic_eval.experiment.arguments import (
    TAKEN,
    ablation_of,
    items_of,
    settings_of_evaluation,
    settings_of_run,
)

if TYPE_CHECKING:
    from conftest import World

PLACES = ("command", "call")
OWN = {"model", "jobs", "resume", "verbose", "quiet"}  # parameters that calls declare themselves
CALLS = {"run": se.run, "evaluate": se.evaluate, "train": se.train, "ablate": se.ablate,
         "load_model": se.load_model}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))


def loaded(code: str, *heavy: str) -> list[str]:
    """Which of some packages a fresh interpreter has imported after some code."""
    lines = f"import sys\n{code}\nprint(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "pydantic", "numpy", "typer", "rich", "pandas", "yaml", "stic_eval.api")
    assert loaded("import stic_eval", *heavy) == []
    everything = "import stic_eval as se\nfor name in dir(se): getattr(se, name)"
    assert loaded(everything, "torch", "transformers", "typer", "pandas", "matplotlib", "datasets") == []


def test_every_name_is_there_and_no_other() -> None:
    assert dir(se) == sorted(se.__all__)
    assert all(getattr(se, name) is not None for name in se.__all__)
    assert se.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="evalute"):
        se.evalute  # type: ignore[attr-defined]  # noqa: B018


def test_functions_stay_functions_beside_packages_of_their_names() -> None:
    import stic_eval.ablations.grid
    import stic_eval.training.losses  # noqa: F401

    assert inspect.isfunction(se.train) and inspect.isfunction(se.ablate)


def test_its_types_come_along() -> None:
    assert files("stic_eval").joinpath("py.typed").is_file()
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '"stic_eval" = ["py.typed"]' in text


@pytest.mark.parametrize("name", CALLS)
def test_a_call_takes_what_the_command_takes(name: str) -> None:
    parameters = inspect.signature(CALLS[name]).parameters
    doc = inspect.getdoc(CALLS[name]) or ""
    for kind in TAKEN[name]:
        for option, _, declared in flags.flags_of(kind):
            if option not in ("option", "dry_run"):
                assert option in parameters
                assert f"    {option}: " in doc and (declared.help in doc or option in OWN)


def test_options_and_settings_are_one() -> None:
    by_option, _ = settings_of_run(method=["sft"], seed=[1, 2], judge="j", judge_samples=2, batch_size=4)
    by_setting, _ = settings_of_run(
        methods="sft", seeds=(1, 2), judge={"model": "j", "samples": 2}, options={"batch_size": 4}
    )
    assert by_option == by_setting
    assert by_option.judge.samples == 2
    named, _ = settings_of_evaluation(
        engine="openai", base_url="http://x/v1", model="m", adapter_name={"stic": "a"}
    )
    assert named.methods == ("baseline", "stic")


def test_values_arrive_as_they_are() -> None:
    path = Path("rows") / "a b.jsonl"
    given = {
        "a": 1e-5,
        "b": "yes",
        "c": [1, "x"],
        "d": {"e": None},
        "f": path,
        "g": "",
        "h": True,
        "i": "a\nb",
    }
    found = {}
    for item in items_of(given):
        from stic_eval.setting_paths import split

        found.update(dict(split(item)))
    assert found == {**given, "f": str(path)}
    assert items_of(["a=1"]) == items_of("a=1") == ("a=1",)


@pytest.mark.parametrize(
    ("given", "axis", "seeds"),
    [
        ({"vary": "infusion=own,none", "seeds": "1,2"}, ["own", "none"], (1, 2)),
        ({"vary": {"infusion": "none"}, "seeds": 3}, ["none"], (3,)),
        ({"vary": {"stage1.images": np.array([4, 8])}, "seeds": range(2)}, [4, 8], (0, 1)),
        ({"vary": ["infusion=own,none"], "exclude": "infusion=none", "seeds": ["1"]}, ["own", "none"], (1,)),
    ],
)  # fmt: skip
def test_one_or_several_of_anything(given: dict[str, Any], axis: list[Any], seeds: tuple[int, ...]) -> None:
    found = ablation_of(method="stic", **given)
    assert [value.label for value in found.axes[0].values] == axis
    assert found.grid.base.seeds == seeds


def test_names_of_the_command_line_and_any_collection_are_understood() -> None:
    built, _ = settings_of_run(tasks={"chartqa"}, output_path=Path("out"), rows={"chartqa": Path("a.jsonl")})
    assert (built.benchmarks, built.output, built.rows) == (("chartqa",), Path("out"), {"chartqa": "a.jsonl"})


@pytest.mark.parametrize(
    ("call", "given", "said"),
    [
        ("run", {"modle": "pocket"}, 'run: no option is called "modle"; did you mean "model"?'),
        ("evaluate", {"methods": ["stic"]}, 'evaluate: no option is called "methods"'),
        ("evaluate", {"benchmark": "mmvet", "benchmarks": "mmvet"}, "benchmark: with benchmarks as well"),
        ("train", {"engine": "openai"}, "--engine openai: a server's model cannot be trained"),
        ("ablate", {}, "give an ablation by name"),
        ("load_model", {"model": "./nowhere"}, "--model ./nowhere: no such folder"),
        ("load_model", {"adapter": ["a", "b"]}, "--adapter: a model has one at a time, not 2"),
        ("run", {"dar": True, "solver": ["direct"]}, "--dar: with --solver as well; give only one of them"),
        ("run", {"benchmarks": []}, "benchmarks: none is given; leave it out"),
        ("run", {"methods": ()}, "methods: none is given; leave it out"),
        ("run", {"method": "sft", "methods": ["baseline"]}, "methods: with method as well; give only one"),
        ("run", {"tasks": "mmvet", "benchmarks": "mmvet"}, "tasks: with benchmarks as well"),
        ("run", {"jobs": 0}, "jobs: 0 is not a whole number of 1 or more"),
        ("run", {"config": {"limit": 3}}, "{'limit': 3}: give the path of a file or folder"),
        ("run", {"batch_size": 2.5}, "--batch-size 2.5: give a number, 1 or more, or auto"),
        ("train", {"benchmarks": "mmvet"}, 'train: no option is called "benchmarks"'),
        ("load_model", {"limit": 3}, 'load_model: no option is called "limit"'),
        ("ablate", {"vary": {"stage1.beta": [0.1]}, "seeds": ["1,x"]}, "--seeds 1,x: give whole numbers"),
        ("ablate", {"vary": "infusion"}, "--vary infusion: expected AXIS="),
        ("ablate", {"method": registry.methods().get("stic"), "vary": {"stage1.beta": [0.1]}},
         "method stic: is an object of this process"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_an_exception_of_one_line(call: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(se.UserError) as caught:
        CALLS[call](**given)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "given"),
    [
        (["--benchmarks", "chartq"], {"benchmarks": ["chartq"]}),
        (["--limit", "-1"], {"limit": "-1"}),
        (["-o", "stage1.imges=3"], {"options": {"stage1.imges": 3}}),
        (["--images", "nowhere", "--method", "stic"], {"images": "nowhere", "methods": ["stic"]}),
        (["--config", "nowhere.yaml"], {"config": "nowhere.yaml"}),
        (["--output", "/dev/null/x"], {"output": "/dev/null/x"}),
    ],
)  # fmt: skip
def test_call_and_command_say_the_same(
    argv: list[str], given: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["run", *argv]) == 2
    said = capsys.readouterr().err
    with pytest.raises(se.UserError) as caught:
        se.run(**given)
    assert said == f"stic-eval: {caught.value}\n"


def test_ctrl_c_says_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(planning, "arms_of_run", interrupted)
    Path("kept").mkdir()
    for where, said in (
        ("new", "nothing had begun, so nothing is left"),
        ("kept", "finished stages, answers and scores are kept (kept): the same command resumes"),
    ):
        with pytest.raises(KeyboardInterrupt) as caught:
            se.run(methods=["baseline"], output=where, quiet=True)
        assert isinstance(caught.value, Interrupted)
        assert str(caught.value) == f"interrupted; {said}"
        assert caught.value.result is None
    assert not Path("new").exists()


# ---------------------------------------------------------------- the same as the command


def given(world: World, **more: Any) -> dict[str, Any]:
    """What `world.run` gives the command."""
    rows = {f"rows.{name}": world.folder / f"{name}.jsonl" for name in ("one", "two")}
    return {"model": "vlm", "options": rows, "quiet": True, **more}


def test_a_call_leaves_what_the_command_leaves(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STIC_EVAL_CACHE", str(world.folder / "command" / "cache"))
    assert world.run_in("command/run", "--seed", "0", "--seed", "1") == 0
    monkeypatch.setenv("STIC_EVAL_CACHE", str(world.folder / "call" / "cache"))
    assert se.run(images="photos", **given(world, output="call/run", seeds=[0, 1])).complete
    assert same_results.differences(world.folder / "command", world.folder / "call") == []
    manifests = [json.loads((world.folder / n / "run" / "manifest.json").read_text()) for n in PLACES]
    assert [manifest.keys() for manifest in manifests] == [manifests[0].keys()] * 2
    assert manifests[0]["key"] == manifests[1]["key"]
    assert manifests[1]["command"] == []
    configs = [(world.folder / n / "run" / "config.yaml").read_text().replace(f"{n}/run", "") for n in PLACES]
    assert configs[0] == configs[1]


def test_a_call_and_the_command_find_what_the_other_has_done(world: World) -> None:
    assert world.run() == 0
    world.forget()
    result = se.run(images="photos", **given(world))
    assert result.folder.resolve() == world.results().resolve()
    assert world.calls == Counter()
    assert result.complete and result.variants == ["baseline", "baseline+dar", "stic", "stic+dar"]
    assert str(result.table) == str(se.load_run(world.results().name).table)
    se.evaluate(**given(world, benchmarks="one"))
    assert world.calls == Counter({"baseline/one": 1})


@pytest.mark.parametrize("first", ["call", "command"])
def test_either_goes_on_where_the_other_was_interrupted(world: World, first: str) -> None:
    def call() -> int:
        try:
            se.run(images="photos", **given(world))
        except KeyboardInterrupt as error:
            assert len(error.result.records("stic", "one")) == 20  # type: ignore[attr-defined]  # noqa: PT017
            return 130
        return 0

    starts = [call, world.run] if first == "call" else [world.run, call]
    world.fail_at = "stic/two"
    assert starts[0]() == 130
    world.fail_at = None
    world.forget()
    assert starts[1]() == 0
    assert world.calls == Counter(["stic/two", "stic+dar/one", "stic+dar/two"])


def test_a_run_that_fails_in_part_has_its_result(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.fail_at, world.error = "stic/one", RuntimeError
    with pytest.raises(se.RunError, match=r"RuntimeError: pulled the plug \(see .*run.log\)") as caught:
        se.run(images="photos", **given(world))
    result = caught.value.result
    assert isinstance(result, se.RunResult)
    assert "STIC + DaR" in str(result.table)
    assert world.run() == 1
    assert str(caught.value) in capsys.readouterr().err


# ---------------------------------------------------------------- results


def test_results_can_be_had_as_whatever_is_needed(world: World) -> None:
    world.answer = lambda method, sample: sample.target if "stic" in method else "no"
    result = se.run(images="photos", **given(world, seeds=[0, 1]))
    records = result.records("stic+dar@seed1", "two")
    assert isinstance(records[0], se.Record)
    path = result.folder / "records" / "stic+dar@seed1" / "two.jsonl"
    assert runner.encode(records) == path.read_bytes()
    for variant, name, said in (
        ("stic", "two", "has several training seeds; name one: stic@seed0, stic@seed1"),
        ("stik", "two", 'no variant is called "stik"; did you mean "stic"?'),
        ("baseline", "too", 'has no "too"; did you mean "two"?'),
    ):
        with pytest.raises(se.UserError) as caught:
            result.records(variant, name)
        assert said in str(caught.value)
    found = result.compare("stic", "baseline").data
    assert (found.a.key, found.b.key) == ("baseline", "stic")
    assert found.average.difference.delta == 50.0
    assert result.compare("stic").data == found
    assert [flip.change for flip in result.flips("one", "stic")] == [1.0] * 10
    frame = result.to_pandas()
    assert len(frame) == len((result.folder / "table.csv").read_text().splitlines()) - 1
    chosen = frame[(frame["label"] == "STIC") & (frame["benchmark"] == "one")]
    assert chosen["score"].tolist() == [100.0]
    assert result.notes == result.table.data.notes


def test_pandas_is_asked_for_by_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    result = se.evaluate(**given(world))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(se.UserError, match="the package pandas is not installed; pip install pandas"):
        result.to_pandas()


def test_damaged_records_are_named(world: World) -> None:
    result = se.evaluate(**given(world))
    path = result.folder / "records" / "baseline" / "one.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], '{"id": "x"}', *lines[2:]]) + "\n")
    with pytest.raises(se.UserError, match=r"one.jsonl: has changed since it was written"):
        result.records("baseline", "one")
    path.unlink()
    with pytest.raises(se.UserError, match=r"one.jsonl: no such file"):
        result.records("baseline", "one")


def test_texts_of_models_stay_texts_in_a_notebook(world: World) -> None:
    hostile = "<script>alert(1)</script> $x$ \x1b[2J"
    world.answer = lambda method, sample: hostile
    result = se.evaluate(**given(world, dar=True))
    assert "constant answer" in str(result.table)
    for shown in (result.table, result.compare("baseline+dar")):
        html = shown._repr_html_()
        assert html.startswith('<div class="tex2jax_ignore mathjax_ignore">')
        assert "<script" not in html and "\x1b" not in html + str(shown)
    assert "&lt;script&gt;" in result.table._repr_html_()


def test_a_table_is_as_wide_as_where_it_is_shown(world: World) -> None:
    table = se.evaluate(**given(world, dar=True)).table
    for width in (60, 100):
        console = Console(file=io.StringIO(), width=width)
        console.print(table)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "Baseline + DaR" in text and max(map(len, text.splitlines())) <= width


# ---------------------------------------------------------------- objects


def benchmark(name: str = "mine", **more: Any) -> se.Benchmark:
    fields: dict[str, Any] = {
        "name": name, "title": "Mine", "version": 1, "source": se.HubData("me/mine", "test"),
        "to_sample": lambda row: se.Sample(id=row["id"], images=(), question="?", target=""),
        "generation": se.Generation(4), "score": lambda sample, response: se.Score(1.0),
        "aggregate": summarize, "protocol": "none",
    }  # fmt: skip
    return se.Benchmark(**{**fields, **more})


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """No object of a test is known to the next one."""
    for kind in registry.kinds().values():
        monkeypatch.setattr(kind, "_objects", {})
        monkeypatch.setattr(kind, "_of_this_call", set())


@pytest.mark.usefixtures("objects")
def test_an_object_stands_where_a_name_does() -> None:
    mine = benchmark()
    config, _ = settings_of_evaluation(benchmarks=[mine, "mmvet"])
    assert config.benchmarks == ("mine", "mmvet")
    assert registry.benchmarks().get("mine") is mine
    # One that was edited takes its place, and one that is installed is itself.
    settings_of_evaluation(benchmarks=benchmark(title="Other"))
    assert registry.benchmarks().get("mine").title == "Other"
    own = registry.benchmarks().get("mmvet")
    assert settings_of_evaluation(benchmarks=[own])[0].benchmarks == ("mmvet",)
    # Neither is part of `all`.
    assert "mine" not in settings_of_evaluation()[0].benchmarks


@pytest.mark.usefixtures("objects")
@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (benchmark("mmvet"), 'two benchmarks are called "mmvet"; give your object another name'),
        (benchmark("all"), '`benchmark` is called "all", which stands for everything'),
        (benchmark("a b"), "`benchmark` is called 'a b'; a name has letters"),
        (benchmark(score=None), "`benchmark`: score is None; it has to be a function"),
    ],
    ids=["taken", "reserved", "name", "function"],
)  # fmt: skip
def test_an_object_that_cannot_be_used_is_refused(thing: se.Benchmark, said: str) -> None:
    with pytest.raises(se.UserError) as caught:
        se.evaluate("pocket", benchmark=thing)
    assert str(caught.value).startswith(said)


@pytest.mark.usefixtures("objects")
def test_scores_of_an_object_are_always_computed_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    known: registry.Registry[se.Benchmark] = registry.Registry("benchmark", "--benchmarks", [])
    monkeypatch.setattr(registry, "benchmarks", lambda: known)
    value, asked = {"score": 0.25}, Counter[str]()

    def answer(method: str, sample: se.Sample) -> str:
        asked[method] += 1
        return "yes"

    world.answer = answer
    # No key could tell that what a function takes from elsewhere is another value now.
    mine = benchmark(
        "one", images=False, score=lambda sample, response: se.Score(value["score"], response),
        to_sample=lambda row: se.Sample(str(row["id"]), (), f"one {row['id']}", ""),
    )  # fmt: skip
    how = {"model": "vlm", "images": "photos", "options": {"rows.one": "one.jsonl"}, "quiet": True}
    world.fail_at = "stic/one"
    with pytest.raises(KeyboardInterrupt):
        se.run(benchmarks=[mine], **how)
    world.fail_at = None
    for score in (0.25, 0.75):
        value["score"] = score
        result = se.run(benchmarks=[mine], **how)
        for variant in ("baseline", "stic", "stic+dar"):
            assert {record.score for record in result.records(variant, "one")} == {score}
        # The model is not asked again for it, nor is anything trained again.
        assert asked == Counter(baseline=20, stic=20)
        assert set(world.stages.values()) == {1}
        found = se.load_run(result.folder)
        assert str(found.table) == str(result.table)
        assert found.compare("stic").data.average.difference.delta == 0


@pytest.mark.usefixtures("objects")
def test_what_a_scorer_raises_is_said_with_its_line_and_the_log(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: registry.Registry[se.Benchmark] = registry.Registry("benchmark", "--benchmarks", [])
    monkeypatch.setattr(registry, "benchmarks", lambda: known)

    def score(sample: se.Sample, response: str) -> se.Score:
        return se.Score(sample.meta["x"])

    to_sample = partial(se.Sample, images=(), question="?", target="")
    mine = benchmark("one", images=False, score=score, to_sample=lambda row: to_sample(id=str(row["id"])))
    with pytest.raises(se.RunError) as caught:
        se.evaluate("vlm", benchmark=mine, options={"rows.one": "one.jsonl"}, quiet=True)
    line = score.__code__.co_firstlineno + 1
    said = rf"\S*test_python_api.py, line {line}: KeyError: 'x' \(see .*run.log\)"
    assert re.fullmatch(f"benchmark one, sample 0: scoring failed: {said}", str(caught.value))
    cause = caught.value.__cause__
    assert isinstance(cause, KeyError)
    assert traceback.extract_tb(cause.__traceback__)[-1].lineno == line


@pytest.mark.usefixtures("objects")
def test_one_name_is_one_thing_in_a_call(tmp_path: Path) -> None:
    text = "from stic_eval import registry\nfrom dataclasses import replace\n"
    text += 'benchmark = replace(registry.benchmarks().get("mmvet"), name="mine", rows_like="mmvet", '
    text += "options=None, vary=None)\n"
    (tmp_path / "own.py").write_text(text)
    mine = benchmark()
    for both in ([mine, benchmark(title="Other")], [mine, "own.py"]):
        with pytest.raises(se.UserError, match='two benchmarks are called "mine"; give your object'):
            settings_of_evaluation(benchmarks=both)
    settings_of_evaluation(benchmarks=[mine])
    for given in (["own.py"], "own.py"):  # a later call names a file that has one of this name
        assert settings_of_evaluation(benchmarks=given)[0].benchmarks == ("mine",)
        assert registry.benchmarks().get("mine").title == "MM-Vet"
    settings_of_evaluation(benchmarks=[mine])
    settings_of_run(plugins=["own.py"], methods=["baseline"], benchmarks=["mine"])
    assert registry.benchmarks().get("mine").title == "MM-Vet"


@pytest.mark.usefixtures("objects")
def test_workers_do_not_know_objects() -> None:
    for call, more in ((se.run, {"methods": ["baseline"], "jobs": 2}), (se.ablate, {"vary": {"beta": [1]}})):
        with pytest.raises(se.UserError, match="benchmark mine: is an object of this process, which worker"):
            call(benchmarks=[benchmark()], **more)  # type: ignore[operator]


def test_typed_code_counts_with_what_it_names() -> None:
    from stic_eval.plugin_code import foreign

    def typed(text: str) -> list[str]:
        scope: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(text, "<cell>", "exec"), scope)
        return foreign(scope["score"])

    one = typed("LIMIT = 3\ndef helper(x): return x > LIMIT\ndef score(x): return helper(x)")
    assert one == typed("LIMIT = 3\ndef helper(x): return x > LIMIT\ndef score(x): return helper(x)\ny = 1")
    assert one != typed("LIMIT = 4\ndef helper(x): return x > LIMIT\ndef score(x): return helper(x)")
    assert one != typed("LIMIT = 3\ndef helper(x): return x < LIMIT\ndef score(x): return helper(x)")
