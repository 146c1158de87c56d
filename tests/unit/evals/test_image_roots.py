"""Rows whose images lie elsewhere than the rows: `-o rows.BENCHMARK.root=DIR`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from stic_eval import registry
from stic_eval.cli.app import invoke
from stic_eval.errors import UserError
from stic_eval.evals.row_images import images_beside
from stic_eval.evals.sources import samples
from stic_eval.experiment.arguments import configure


def charts(folder: Path, image: str) -> Path:
    (folder / "elsewhere").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "elsewhere" / "a.png")
    (folder / "data").mkdir()
    row = {"question": "x", "answer": "1", "type": "human_test", "image": image}
    (folder / "data" / "rows.jsonl").write_text(json.dumps(row) + "\n")
    return folder / "data" / "rows.jsonl"


def test_paths_start_where_the_user_says(tmp_path: Path) -> None:
    benchmark, rows = registry.benchmarks().get("chartqa"), charts(tmp_path, "a.png")
    with pytest.raises(UserError, match=r"no such file: .*/data/a\.png \(-o rows\.chartqa\.root=DIR names"):
        samples(benchmark, rows)
    (found,) = samples(benchmark, rows, root=tmp_path / "elsewhere")
    assert found.images[0].load().size == (8, 8)
    assert images_beside(rows, tmp_path / "elsewhere") == [tmp_path / "elsewhere" / "a.png"]


def test_absolute_paths_are_taken_where_the_user_says_so(tmp_path: Path) -> None:
    benchmark = registry.benchmarks().get("chartqa")
    rows = charts(tmp_path, str(tmp_path / "elsewhere" / "a.png"))
    with pytest.raises(UserError, match=r"lies outside of .* \(-o rows\.chartqa\.root=DIR, or /, names"):
        samples(benchmark, rows)
    for root in (Path("/"), tmp_path):
        assert samples(benchmark, rows, root=root)[0].images[0].load().size == (8, 8)


def test_the_option_is_a_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = charts(tmp_path, "a.png")
    argv = ["data", "check", "chartqa", "--from", str(rows), "-q"]
    assert invoke(argv) == 1
    assert invoke([*argv, "-o", f"rows.chartqa.root={tmp_path / 'elsewhere'}"]) in (0, 1)
    assert "no such file" not in capsys.readouterr().out.splitlines()[-1]
    options = [f"rows.chartqa={rows}", "rows.chartqa.root=/x", "rows.all=pocket"]
    built = configure({"model": "a/b"}, options)
    assert (built.rows_of("chartqa"), built.rows_root("chartqa")) == (str(rows), Path("/x"))
    assert (built.rows_of("mmvet"), built.rows_root("mmvet")) == ("pocket", None)
