"""Settings of cells: what wins over what, defaults, methods that differ in what they have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stic_eval.ablations import build as gridbuild
from stic_eval.ablations.grid import Grid
from stic_eval.ablations.spec import Spec
from stic_eval.errors import UserError


def build(
    *vary: str, overrides: tuple[str, ...] = (), file: Path | None = None, **spec: Any
) -> tuple[Grid, dict[str, list[object]], list[str]]:
    given = gridbuild.GridArguments(Spec(**spec), "mine.yaml", vary, None, file, overrides, {})
    axes, without = gridbuild.axes(given)
    values = {axis.name: [value.label for value in axis.values] for axis in axes}
    return gridbuild.grid(given, axes, "grid", None), values, without


def betas(grid: Grid) -> list[float]:
    return [config.method_options["stic"]["stage1"]["beta"] for config in grid.configs]


def test_a_cell_sets_what_it_says_over_everything_else() -> None:
    grid, _, _ = build("beta=0.5,0.2", overrides=("stage1.beta=0.3", "stage1.images=7"))
    assert betas(grid) == [0.5, 0.2]
    assert {config.method_options["stic"]["stage1"]["images"] for config in grid.configs} == {7}
    assert grid.base.method_options["stic"]["stage1"]["beta"] == 0.3
    assert {config.output for config in grid.configs} == {grid.base.output}


def test_one_at_a_time_departs_from_the_default_though_it_is_not_named() -> None:
    grid, values, without = build("beta=0.01,0.5", "stage1.alpha=0,0.1", design="one-at-a-time")
    assert values == {"beta": [0.1, 0.01, 0.5], "stage1.alpha": [1.0, 0, 0.1]}
    assert without == []
    assert [tuple(cell.settings.values()) for cell in grid.cells] == [
        (0.1, 1.0), (0.01, 1.0), (0.5, 1.0), (0.1, 0), (0.1, 0.1),
    ]  # fmt: skip
    assert betas(grid) == [0.1, 0.01, 0.5, 0.1, 0.1]


def test_a_full_grid_says_which_axes_have_no_default() -> None:
    _, values, without = build("beta=0.01,0.1", "stage1.alpha=0,0.1")
    assert values == {"beta": [0.1, 0.01], "stage1.alpha": [0, 0.1]}
    assert without == ["stage1.alpha"]


def test_the_ablations_way_of_answering_gives_way(tmp_path: Path) -> None:
    assert build("beta=0.5", dar="only")[0].configs[0].dar["use"] == "only"
    assert build("beta=0.5", dar="only", overrides=("dar.use=true",))[0].configs[0].dar["use"] is True
    file = tmp_path / "run.yaml"
    file.write_text("dar: false")
    assert build("beta=0.5", dar="only", file=file)[0].configs[0].dar["use"] is False
    grid, _, _ = build(vary={"a": {"x": {"dar.use": True}, "y": {"dar.use": False}}}, dar="only")
    assert [config.dar["use"] for config in grid.configs] == [True, False]
    assert [c.dar["use"] for c in build("dar=on,off")[0].configs] == ["only", False]


def test_methods_take_what_they_have() -> None:
    overrides = ("stage1.images=16", "stage2.items=9", "stic.stage1.beta=0.7", "dar.max_new_tokens=5")
    grid, _, _ = build("method=stic,sft", overrides=overrides)
    stic, sft = (config.method_options for config in grid.configs)
    assert (stic["stic"]["stage1"]["images"], stic["stic"]["stage1"]["beta"]) == (16, 0.7)
    assert stic["stic"]["stage2"]["items"] == sft["sft"]["stage2"]["items"] == 9
    assert {config.dar["max_new_tokens"] for config in grid.configs} == {5}


@pytest.mark.parametrize(
    ("vary", "more", "why"),
    [
        (("beta=abc",), {}, "mine.yaml: value abc: -o stic.stage1.beta 'abc'"),
        (("beta=0.5", "beta=0.6"), {}, "--vary beta: is given more than once"),
        ((), {}, "mine.yaml: varies nothing"),
        ((), {"vary": {"method": 5}}, "mine.yaml: method: give a list"),
        ((), {"vary": {"a": {"x": 3}}}, "mine.yaml: x: expected `setting: value` lines"),
        ((), {"vary": {"a": {"x": {"stage1.alpha": 0, "stage1.beta": 1}}}, "design": "one-at-a-time"},
         "--one-at-a-time: no value of a is the default"),
        (("beta=0.5",), {"overrides": ("stage1.images=0",)}, "stage1.images 0"),
        (("beta=0.5",), {"overrides": ("stage9.images=1",)}, 'has the option "stage9.images"'),
    ],
)  # fmt: skip
def test_mistakes_are_named_by_where_they_stand(
    vary: tuple[str, ...], more: dict[str, Any], why: str
) -> None:
    with pytest.raises(UserError) as raised:
        build(*vary, **more)
    assert why in str(raised.value)
