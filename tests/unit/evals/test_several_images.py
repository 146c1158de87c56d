"""Rows with several images: lists of them, and columns `image_1`, `image_2`, ..., in every format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, List
from datasets import Image as ImageFeature

from stic_eval.contracts.benchmark import Benchmark, HubData
from stic_eval.errors import UserError
from stic_eval.evals.data_check import check
from stic_eval.evals.data_preparation import prepare
from stic_eval.evals.image_cells import PLACEHOLDER
from stic_eval.evals.opened_rows import open_rows
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.evals.sources import samples
from stic_eval.types import Generation, Sample, Score


def to_sample(row: Mapping[str, Any]) -> Sample:
    several = row["images"]
    images = (*(several if isinstance(several, tuple) else ()), *filter(None, [row.get("image_1")]))
    return Sample("", images, row["question"], None)


SEVERAL = Benchmark(
    "several", "Several", 1, HubData("somebody/several", "test"), to_sample, Generation(),
    lambda sample, response: Score(1.0), summarize, "", images=False,
)  # fmt: skip


def write(folder: Path, photos: Path, kind: str) -> Path:
    """Two rows: with two images in a list and one in a column, and with an empty list and none."""
    names = [f"{index}.{'jpg' if index % 2 else 'png'}" for index in range(3)]
    cells: list[Any] = [{"bytes": (photos / name).read_bytes(), "path": name} for name in names]
    if kind == "jsonl":
        cells = names
        for name in names:
            (folder / name).write_bytes((photos / name).read_bytes())
    rows = [
        {"question": "a", "images": cells[:2], "image_1": cells[2]},
        {"question": "b", "images": [], "image_1": None},
    ]
    path = folder / f"test.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        data = Dataset.from_list(rows).cast_column("images", List(ImageFeature()))
        data.cast_column("image_1", ImageFeature()).to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_they_are_listed_unread_and_read_in_order(kind: str, photos: Path, tmp_path: Path) -> None:
    path = write(tmp_path, photos, kind)
    light = open_rows(SEVERAL, path).light
    assert [row["images"] is PLACEHOLDER for row in light] == [True, False]
    assert [row["image_1"] is PLACEHOLDER for row in light] == [True, False]
    first, second = samples(SEVERAL, path)
    assert [image.load().size for image in first.images] == [(40, 64), (48, 60), (56, 56)]
    assert second.images == ()


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_prepared_rows_have_the_same_images(kind: str, photos: Path, tmp_path: Path) -> None:
    path = write(tmp_path, photos, kind)
    checked = check(SEVERAL, path)
    assert checked.problems == ()
    prepare(checked, tmp_path / "new")
    before, after = (samples(SEVERAL, where) for where in (path, tmp_path / "new"))
    assert [[image.sha256 for image in sample.images] for sample in after] == [
        [image.sha256 for image in sample.images] for sample in before
    ]


def test_a_damaged_one_among_them_is_named(photos: Path, tmp_path: Path) -> None:
    path = write(tmp_path, photos, "jsonl")
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8\xffnothing")
    (problem,) = check(SEVERAL, path).problems[:1]
    assert (problem.row, problem.column) == (1, "images")
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(UserError, match=r'row 1: column "images": 1\.jpg'):
        samples(SEVERAL, path)
