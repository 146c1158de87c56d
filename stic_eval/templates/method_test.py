"""My method: its plan, and a run of it on the built-in model from pairs to table."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from stic_eval import registry
from stic_eval.cli.app import invoke
from stic_eval.contracts.method import Data
from stic_eval.pocket.rows import unlabeled_images
from stic_eval.training.prompt_sets import load_prompts

FILE = Path(__file__).with_name("my_method.py")


def test_the_plan_makes_pairs_and_trains_on_them() -> None:
    method = registry.methods().get(str(FILE))
    three = tuple(unlabeled_images(3))
    data = Data(images=three, sft_items=(), images_key="three", sft_key="", prompts=load_prompts())
    options = method.config.model_validate({"stage1": {"batch_size": 2, "epochs": 2}})
    training = method.plan(options, data).adapter
    assert training is not None
    (pairs,) = training.needs
    assert pairs.generations == 6  # two for each image
    assert training.steps == 4  # two batches, twice


def test_a_setting_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="stage2"):
        registry.methods().get(str(FILE)).config.model_validate({"stage2": {}})


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    small = ["-o", "stage1.images=4", "-o", "stage1.max_new_tokens=12", "-o", "stage1.batch_size=2"]
    test_rows = ["--benchmarks", "chartqa", "--limit", "2"]
    run = ["run", "--method", str(FILE), "--output", str(tmp_path / "run"), "--quiet"]
    assert invoke([*run, *small, *test_rows]) == 0
    (table,) = (tmp_path / "cache" / "stages").glob("pairs-*/pairs.parquet")
    rows = parquet.read_table(table).to_pylist()
    assert len(rows) == 4
    assert {row["negative"] for row in rows} == {"blur"}
    assert all(row["chosen"][0]["content"].strip() for row in rows)
    assert (tmp_path / "run" / "table.md").is_file()
