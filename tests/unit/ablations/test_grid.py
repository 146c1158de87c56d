"""Axes, cells and conditions of an ablation, and the ablations that are shipped."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stic_eval.ablations import grid, spec
from stic_eval.errors import UserError

SHIPPED = (
    "alpha-beta", "components", "corruption", "data-fraction", "image-source", "infusion", "iterations",
    "lora-rank", "negatives", "prompts", "released-code-quirks",
)  # fmt: skip


def axis(item: str) -> grid.Axis:
    return grid.parse_axis(item, ["stic"])


def labels(item: str) -> list[object]:
    return [value.label for value in axis(item).values]


@pytest.mark.parametrize(
    ("item", "label", "option"),
    [
        ("stage1.beta=0.5", 0.5, "stage1.beta=0.5"),
        ("beta=0.5", 0.5, "stage1.beta=0.5"),
        ("stage2.items=10", 10, "stage2.items=10"),
        ("stage1.use=false", False, "stage1.use=false"),
        ("stage2.max_length=null", "none", "stage2.max_length=null"),
        ("beta=1e-5", 1e-5, "stage1.beta=1e-05"),
        ("dar.prompt='Look, then say'", "Look, then say", 'dar.prompt="Look, then say"'),
        ("infusion=none", "none", 'stage2.infusion="none"'),
        ("dar.separator=['\\n']", "\\n", 'dar.separator="\\\\n"'),
        ("corruption=blur", "blur", 'stage1.corruptions={"blur": 1.0}'),
        ("corruption=both", "both", 'stage1.corruptions={"low_res": 0.5, "jitter": 0.5}'),
    ],
)
def test_a_value_says_what_it_sets(item: str, label: object, option: str) -> None:
    (value,) = axis(item).values
    assert (value.label, value.options) == (label, (option,))


@given(st.lists(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans(),
                min_size=1, max_size=6, unique_by=grid.text))  # fmt: skip
def test_values_come_back_as_they_were_written(values: list[object]) -> None:
    item = "stage1.beta=" + ",".join(grid.text(value) for value in values)
    assert labels(item) == values
    assert labels(f"stage1.beta=[{item.partition('=')[2]}]") == values


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ("beta", "expected AXIS=VALUE"),
        ("beta=", "expected AXIS=VALUE"),
        ("=1", "expected AXIS=VALUE"),
        ("beta=[1", "not valid YAML"),
        ("betta=1", 'no setting of stic is called "betta" - did you mean'),
        ("temperature=0", "may be stage1.temperature or stage2.temperature"),
        ("corruption=blurr", "blurr is not a corruption - did you mean"),
        ("dar=maybe", "dar is on or off"),
        ("seed=1,2", "give --seeds"),
        ("seeds=1,2", "give --seeds"),
        ("model=a,b", "model is the same for all cells"),
        ("dar.sees=true", 'unknown option "dar.sees"'),
        ("method=stick", '"stick"'),
        ("beta=0.1,0.10", "more than once"),
        ("beta=[.nan]", "nan is not a number"),
        ("corruption=[[1]]", "[1] is not a name"),
        ("dar=[[1]]", "[1] is not a name"),
        ("method=[5]", "5 is not a name"),
    ],
)
def test_what_is_no_axis_is_refused_by_name(item: str, why: str) -> None:
    with pytest.raises(UserError) as raised:
        axis(item)
    assert why.split(" - ", maxsplit=1)[0] in str(raised.value)
    assert "\n" not in str(raised.value)


AXES = [axis("corruption=both,blur,blank"), axis("p_corrupt=0.5,0,1")]
DEFAULT = {a.name: a.values[0] for a in AXES}


def settings(**more: object) -> list[dict[str, object]]:
    return [c.settings for c in grid.cells(AXES, "stic", default=DEFAULT, **more)]  # type: ignore[arg-type]


def test_a_full_grid_has_every_combination_once() -> None:
    expected = list(product(["both", "blur", "blank"], [0.5, 0, 1]))
    assert [tuple(s.values()) for s in settings()] == expected


def test_one_at_a_time_departs_from_the_default_in_one_thing() -> None:
    found = [tuple(s.values()) for s in settings(one_at_a_time=True)]
    assert found == [("both", 0.5), ("blur", 0.5), ("blank", 0.5), ("both", 0), ("both", 1)]


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ("p_corrupt=0 corruption!=both", lambda c, p: not (p == 0 and c != "both")),
        ("p_corrupt=0.0,1e0", lambda c, p: p == 0.5),
        ("corruption=blur,blank", lambda c, p: c == "both"),
        ("p_corrupt!=0.5", lambda c, p: p == 0.5),
    ],
)
def test_a_condition_leaves_out_the_cells_for_which_all_of_it_holds(condition: str, left: object) -> None:
    expected = [pair for pair in product(["both", "blur", "blank"], [0.5, 0, 1]) if left(*pair)]  # type: ignore[operator]
    assert [tuple(s.values()) for s in settings(exclude=[condition])] == expected


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("p_corrupt", "expected AXIS=VALUE"),
        ("p_corupt=0", "no axis is called p_corupt"),
        ("p_corrupt=0.3", "p_corrupt has no value 0.3"),
        (" ", "is empty"),
        ("corruption=both,blur,blank", "no cell is left"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_refused(condition: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        settings(exclude=[condition])


def test_a_condition_may_name_what_yaml_takes_for_truth() -> None:
    dar = axis("dar=on,off")
    found = grid.cells([dar], "stic", default={"dar": dar.values[0]}, exclude=["dar=on"])
    assert [cell.settings for cell in found] == [{"dar": "off"}]


def test_cells_have_names_of_files_of_their_own() -> None:
    long = [
        axis(f"stage1.images={','.join(map(str, range(1, 30)))}"),
        axis("dar.separator=['/','\\\\','..']"),
    ]
    found = grid.cells(long, "stic", default={a.name: a.values[0] for a in long})
    slugs = [cell.slug for cell in found]
    assert len(set(slugs)) == len(slugs) == 29 * 3
    assert all("/" not in slug and "\\" not in slug and len(slug) < 120 for slug in slugs)


def test_names_stand_for_several_settings() -> None:
    made = grid.axis("rank", {8: {"lora.r": 8, "lora.alpha": 16}, "sft": {"method": "sft"}}, ["stic"], "x")
    eight, sft = made.values
    assert (eight.label, eight.options) == (8, ("lora.r=8", "lora.alpha=16"))
    assert (sft.label, sft.options, sft.method) == ("sft", (), "sft")


def test_what_is_shipped_is_readable() -> None:
    assert spec.shipped_names() == sorted(SHIPPED)
    for name in SHIPPED:
        content = spec.load(name)
        assert content.title
        for key, values in content.vary.items():
            assert grid.axis(key, values, [content.method, "positive_only"], name).values


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("vary: [", "is not valid YAML"),
        ("- a", "expected keys"),
        ("varry: {}", "unknown key varry"),
        ("design: half", "design"),
        ("seeds: [a]", "seeds.0"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_its_name(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as raised:
        spec.load(str(path))
    assert str(path) in str(raised.value) and why in str(raised.value)


def test_an_ablation_that_there_is_not_is_suggested() -> None:
    with pytest.raises(UserError, match="components"):
        spec.load("component")
