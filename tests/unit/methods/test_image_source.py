"""Unlabeled images of the embedded world: two sources, by `--images pocket:NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stic_eval import config
from stic_eval.ablations import build as gridbuild
from stic_eval.ablations import spec
from stic_eval.cli.app import invoke
from stic_eval.errors import UserError
from stic_eval.experiment import inputs
from stic_eval.experiment.progress import Reporter
from stic_eval.pocket import rows, world
from stic_eval.settings import RunConfig


def built(*overrides: str, **flags: Any) -> RunConfig:
    return config.load(
        flags={"methods": ("stic_stage1",), **flags}, overrides=["stage1.images=6", *overrides]
    )


def keys(run: RunConfig) -> list[str]:
    with Reporter(None, quiet=True) as report:
        return [image.sha256 for image in inputs.load(run, report).data.images]


def test_the_benchmarks_pictures_are_charts_and_signs() -> None:
    drawn = [
        found
        for _, found in zip(range(200), rows._distinct("images", rows.SOURCES["benchmarks"]), strict=False)
    ]
    charts = sum(isinstance(one, world.Chart) for _, one in drawn)
    assert 60 < charts < 140
    assert all(one.sign for _, one in drawn if isinstance(one, world.Scene))
    images = rows.unlabeled_images(200, "benchmarks")
    assert [i.sha256 for i in images] == [rows.picture(one, "images", seed).sha256 for seed, one in drawn]


def test_naming_the_source_that_it_has_anyway_is_the_same_run() -> None:
    own, named, other = built(), built(images="pocket:scenes"), built("images=pocket:benchmarks")
    assert own.key == named.key != other.key
    assert keys(own) == keys(named) == [image.sha256 for image in rows.unlabeled_images(6)]
    assert keys(other) == [image.sha256 for image in rows.unlabeled_images(6, "benchmarks")]


def test_another_model_is_shown_drawn_pictures_too() -> None:
    run = built(model="some/model", images="pocket:scenes")
    assert keys(run) == [image.sha256 for image in rows.unlabeled_images(6)]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pocket:benchmark", 'has pocket:scenes and pocket:benchmarks; did you mean "benchmarks"?'),
        ("pocket:", "has pocket:scenes and pocket:benchmarks"),
        ("pockets:benchmarks", "no such"),
    ],
)
def test_a_name_of_no_source_is_one_line(
    name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=name), Reporter(None, quiet=True) as report:
        inputs.load(built(images=name), report)
    assert invoke(["run", "--images", name, "--benchmarks", "textvqa", "--limit", "1"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert name in line and why in line


def test_the_shipped_ablation_departs_from_the_models_own_pictures() -> None:
    given = gridbuild.GridArguments(spec.load("image-source"), "image-source", (), None, None, (), {})
    (axis,), without = gridbuild.axes(given)
    assert ([value.label for value in axis.values], without) == (["scenes", "benchmarks"], [])
    grid = gridbuild.grid(given, [axis], "grid", None)
    assert [str(cell.images) for cell in grid.configs] == ["None", "pocket:benchmarks"]
