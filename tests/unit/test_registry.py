"""Registries: entry points, families, suggestions, collisions, and plug-ins that are broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from stic_eval import plugins, registry
from stic_eval.contracts.benchmark import Benchmark
from stic_eval.contracts.method import Method
from stic_eval.errors import UserError
from stic_eval.registry import Registry

METHOD = """
from pydantic import BaseModel, ConfigDict
from stic_eval.contracts.method import Method, Plan

class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

method = Method("good", "Good", lambda options, data: Plan(None), Options)
other = method
wrong = "no method at all"
"""
FAMILY = """
from dataclasses import replace
from stic_eval import registry

def make(rest):
    if rest == "raises":
        raise ValueError("not that one")
    name = "another" if rest == "misnamed" else f"fam:{rest}"
    return replace(registry.benchmarks().get("chartqa"), name=name, options=None, vary=None)
"""


OWN = """
from dataclasses import replace
from stic_eval import registry

chartqa = registry.benchmarks().get("chartqa")
benchmark = replace(chartqa, name="own", title="File", options=None, vary=None)
"""


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "stic_eval.methods")


def of(*points: EntryPoint) -> Registry[Method]:
    return Registry("method", "--method", points)


def test_every_builtin_loads_under_its_own_name() -> None:
    names = registry.benchmarks().names()
    assert names[:7] == ["scienceqa", "textvqa", "chartqa", "llava_bench", "mmbench", "mmvet", "mathvista"]
    for name in registry.benchmarks().own():
        assert isinstance(registry.benchmarks().get(name), Benchmark)
    assert registry.methods().names()[:4] == ["baseline", "stic", "stic_stage1", "positive_only"]
    for name in registry.methods().own():
        method = registry.methods().get(name)
        assert isinstance(method, Method)
        assert method.config().model_config.get("extra") == "forbid"


def test_a_miss_suggests_the_closest() -> None:
    with pytest.raises(UserError, match=r'--method: no method is called "stik"; did you mean "stic"\?'):
        of(point("stic", "x:y")).get("stik")


def test_a_collision_names_both_when_it_is_asked_for_and_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "collision_good.py").write_text(METHOD)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = of(point("a", "one:m"), point("a", "two:m"), point("good", "collision_good:method"))
    assert found.names() == ["a", "good"]
    with pytest.raises(UserError, match=r'"a".*one:m.*two:m.*rename one'):
        found.get("a")
    assert found.get("good").title == "Good"


def test_one_thing_that_is_installed_twice_is_no_collision() -> None:
    points = [
        p for name in registry.methods().own()[:1] for p in [point(name, f"stic_eval.methods.{name}:method")]
    ]
    assert of(*points, *points).get("baseline").title == "Baseline"


@pytest.mark.parametrize(
    ("text", "attribute", "said"),
    [
        (
            "import os\n\nimport no_such_module_anywhere\n",
            "method",
            r"line 3: ModuleNotFoundError: .*no_such_module",
        ),
        ("def f():\n    return 1 / 0\n\nf()\n", "method", r"line 2: ZeroDivisionError"),
        ("a = 1\nb = = 2\n", "method", r"line 2: SyntaxError"),
        ("raise SystemExit(3)\n", "method", r"line 1: SystemExit: 3"),
        ("a = 1\n", "method", r"AttributeError.*method"),
        (METHOD, "wrong", r"line 10: `method` is of type str"),
        (METHOD, "other", r'line 9: `method` calls itself "good", not "thing"'),
    ],
)
def test_a_broken_entry_point_is_named_with_path_and_line_and_takes_nobody_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, attribute: str, said: str
) -> None:
    package = f"broken_{abs(hash((text, attribute)))}"
    (tmp_path / f"{package}.py").write_text(text)
    (tmp_path / "entry_good.py").write_text(METHOD)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = of(point("thing", f"{package}:{attribute}"), point("good", "entry_good:method"))
    with pytest.raises(UserError, match=said) as caught:
        found.get("thing")
    assert str(tmp_path / f"{package}.py") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert found.get("good").title == "Good"


def test_an_error_within_a_package_is_named_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "deep_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text("x = 1\nx.y\n")
    (package / "method.py").write_text("from deep_package.inner import x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"deep_package.inner\.py, line 2: AttributeError"):
        of(point("deep", "deep_package.method:method")).get("deep")


def test_a_family_makes_what_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_family.py").write_text(FAMILY)
    monkeypatch.syspath_prepend(str(tmp_path))
    found: Registry[Benchmark] = Registry(
        "benchmark", "--benchmarks", [], families=[point("fam", "a_family:make")]
    )
    assert found.get("fam:x").name == "fam:x"
    assert found.get("fam:x") is found.get("fam:x")
    assert found.names() == [] and found.families() == ["fam"]
    assert found.has_family("fam:y") and not found.has_family("fam:") and not found.has_family("other:x")
    with pytest.raises(UserError, match=r"fam:raises.*a_family\.py, line 7: ValueError: not that one"):
        found.get("fam:raises")
    with pytest.raises(UserError, match=r'calls itself "another", not "fam:misnamed"'):
        found.get("fam:misnamed")
    with pytest.raises(UserError, match=r"no family of benchmarks is called 'fan' \(there is fam\)"):
        found.get("fan:x")


# ---------------------------------------------------------------- objects


@pytest.fixture
def benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[Benchmark]]:
    """A registry that knows nothing yet, and a file with a benchmark `own`."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    found: Registry[Benchmark] = Registry("benchmark", "--benchmarks", [], files=plugins.known_files)
    monkeypatch.setattr(registry, "kinds", lambda: {"benchmark": found})
    registry.forget()
    yield found
    registry.forget()


def own(title: str) -> Benchmark:
    chartqa = registry.benchmarks().get("chartqa")
    return replace(chartqa, name="own", title=title, options=None, vary=None)


def test_two_objects_of_one_name_are_refused_in_one_call(benchmarks: Registry[Benchmark]) -> None:
    first, second = own("First"), own("Second")
    for _ in range(2):  # one is often given again
        assert benchmarks.add(first) == "own"
    with pytest.raises(UserError, match='two benchmarks are called "own"; give your object another name'):
        benchmarks.add(second)
    registry.forget()
    benchmarks.add(second)
    assert benchmarks.get("own") is second


def test_a_file_that_is_named_takes_the_place_of_an_earlier_object(benchmarks: Registry[Benchmark]) -> None:
    benchmarks.add(own("Object"))
    with pytest.raises(UserError, match='two benchmarks are called "own"'):  # in one call
        benchmarks.get("own.py")
    registry.forget()
    assert benchmarks.get("own").title == "Object"
    assert benchmarks.get("own.py").title == "File"
    assert benchmarks.get("own").title == "File"
    assert not benchmarks.has_object("own") and benchmarks.names() == ["own"]
    registry.forget()
    with pytest.raises(UserError, match='no benchmark is called "own"'):
        benchmarks.get("own")
    benchmarks.add(own("Object"))
    assert benchmarks.has_object("own")
