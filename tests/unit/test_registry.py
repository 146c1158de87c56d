"""Registries: entry points, suggestions, collisions, and plug-ins that are broken."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from stic_eval import registry
from stic_eval.errors import UserError
from stic_eval.evals.benchmark import Benchmark
from stic_eval.registry import Registry
from stic_eval.selftrain.method import Method


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "stic_eval.methods")


def test_every_builtin_loads_under_its_own_name() -> None:
    names = registry.benchmarks().names()
    assert names[:7] == ["scienceqa", "textvqa", "chartqa", "llava_bench", "mmbench", "mmvet", "mathvista"]
    for name in names[:7]:
        assert isinstance(registry.benchmarks().get(name), Benchmark)
    assert registry.methods().names()[:4] == ["baseline", "stic", "sft", "positive_only"]
    for name in registry.methods().names()[:4]:
        method = registry.methods().get(name)
        assert isinstance(method, Method)
        assert method.config().model_config.get("extra") == "forbid"


def test_a_miss_suggests_the_closest() -> None:
    with pytest.raises(UserError, match=r'--method: no method is called "stik"; did you mean "stic"\?'):
        Registry("method", "--method", [point("stic", "x:y")]).get("stik")


def test_a_collision_names_both() -> None:
    with pytest.raises(UserError, match=r'"a".*one:m.*two:m'):
        Registry("method", "--method", [point("a", "one:m"), point("a", "two:m")])


def test_a_broken_plugin_is_named_and_takes_nobody_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_plugin.py").write_text("import no_such_module_anywhere\n")
    (tmp_path / "good_plugin.py").write_text("class M:\n    name = 'good'\nmethod = M()\nother = M()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = Registry[object](
        "method",
        "--method",
        [
            point("broken", "broken_plugin:method"),
            point("good", "good_plugin:method"),
            point("alias", "good_plugin:other"),
        ],
    )
    with pytest.raises(UserError, match=r"broken_plugin:method.*no_such_module_anywhere"):
        found.get("broken")
    assert getattr(found.get("good"), "name", None) == "good"
    with pytest.raises(UserError, match='calls itself "good"'):
        found.get("alias")
