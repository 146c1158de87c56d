"""Checking finds everything that is wrong; preparing writes what is right, so that it reads back the same."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stic_eval import registry
from stic_eval.contracts.benchmark import Benchmark
from stic_eval.errors import RunError, UserError
from stic_eval.evals import data_preparation as writing
from stic_eval.evals.data_check import DataCheck, check
from stic_eval.evals.data_preparation import prepare
from stic_eval.evals.sources import samples
from stic_eval.types import Sample

NAMES = ("scienceqa", "textvqa", "chartqa", "llava_bench", "mmbench", "mmvet", "mathvista")


def bench(name: str) -> Benchmark:
    return registry.benchmarks().get(name)


def jpeg(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((40, 30)).point(lambda value: value * level // 255).save(buffer, "JPEG")
    return buffer.getvalue()


def charts(folder: Path, n: int = 4, **changes: dict[int, Any]) -> Path:
    """ChartQA rows with images beside them; a cell that is changed to `...` is left out."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for i in range(n):
        (folder / "images" / f"{i}.jpg").write_bytes(jpeg(i + 100))
        row: dict[str, Any] = {
            "id": f"c{i}", "type": "human_test", "question": f"How many {i}?", "answer": str(i),
            "image": f"images/{i}.jpg",
        }  # fmt: skip
        row |= {column: cells[i] for column, cells in changes.items() if i in cells}
        lines.append(json.dumps({column: cell for column, cell in row.items() if cell is not ...}))
    (folder / "test.jsonl").write_text("\n".join(line.replace('"!"', "!") for line in lines))
    return folder


def told(checked: DataCheck) -> list[str]:
    return [str(problem) for problem in checked.problems]


def test_clean_rows_have_no_problems_and_their_number_is_a_warning(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    checked = check(
        bench("chartqa"), charts(tmp_path / "a"), progress=lambda done, of: calls.append((done, of))
    )
    assert told(checked) == []
    assert checked.warnings == ("4 rows; the data set has 2500",)
    assert list(checked.samples) == [0, 1, 2, 3]
    assert calls[-1] == (4, 4)
    assert check(bench("chartqa"), "pocket").warnings == ()


def test_every_problem_is_found_and_named(tmp_path: Path) -> None:
    folder = charts(
        tmp_path / "a", 9,
        image={1: "images/none.jpg", 2: None, 3: ..., 4: "../out.jpg",
               5: "https://a.b/c.jpg", 6: "images/cut.jpg"},
        answer={0: ..., 1: ..., 8: "!"}, id={7: "c2"},
    )  # fmt: skip
    (folder / "images" / "cut.jpg").write_bytes(jpeg(9)[:-200])
    checked = check(bench("chartqa"), folder)
    lines = told(checked)
    assert lines[0] == 'row 1 (id c0): column "answer" is missing'
    assert lines[1].startswith('row 2 (id c1): column "image": images/none.jpg: no such file: ')
    assert lines[1].endswith("(-o rows.chartqa.root=DIR names the folder that paths start at)")
    assert lines[2] == 'row 2 (id c1): column "answer" is missing'
    assert lines[3] == 'row 3 (id c2): column "image" is empty'
    assert lines[4] == 'row 4 (id c3): column "image" is missing'
    assert lines[5].startswith('row 5 (id c4): column "image": ../out.jpg: lies outside of')
    assert "is on the web; give --allow-remote-images" in lines[6]
    assert lines[7].startswith('row 7 (id c6): column "image": images/cut.jpg: damaged')
    assert lines[8] == "row 8 (id c2): has the id of row 3"
    assert lines[9].startswith("row 9: test.jsonl, line 9: is not valid JSON")
    assert len(lines) == 10
    assert checked.bad_rows == 9
    assert not checked.samples


def save_tsv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


def rotated(question: int, turns: int, image: str) -> list[dict[str, str]]:
    return [
        {"index": str(question + turn * 1_000_000), "question": "?", "hint": "", "A": "a", "B": "b", "C": "c",
         "D": "", "answer": "ABC"[turn], "category": "x", "l2-category": "coarse_perception",
         "image": image if turn == 0 else str(question)}
        for turn in range(turns)
    ]  # fmt: skip


def test_missing_rotations_are_a_warning(tmp_path: Path) -> None:
    image = base64.b64encode(jpeg(50)).decode()
    rows = rotated(1, 3, image) + rotated(2, 2, image)
    warnings = check(bench("mmbench"), save_tsv(tmp_path / "a.tsv", rows)).warnings
    assert "1 of 2 questions lack rotations, e.g. 2 has 2 of 3" in warnings
    warnings = check(bench("mmbench"), save_tsv(tmp_path / "b.tsv", rotated(1, 3, image))).warnings
    assert not any("rotation" in warning for warning in warnings)
    rows = rotated(1, 1, image) + rotated(2, 1, image)
    warnings = check(bench("mmbench"), save_tsv(tmp_path / "c.tsv", rows)).warnings
    assert any(warning.startswith("no question has its rotations") for warning in warnings)


def test_a_shared_image_is_wrong_in_every_row_that_shares_it(tmp_path: Path) -> None:
    bad = base64.b64encode(jpeg(50)[:-300]).decode()
    lines = told(check(bench("mmbench"), save_tsv(tmp_path / "a.tsv", rotated(1, 3, bad))))
    assert len(lines) == 3
    assert all('column "image"' in line and "damaged" in line for line in lines)


def test_what_the_variant_leaves_out_is_not_looked_at(tmp_path: Path) -> None:
    folder = charts(tmp_path / "a", answer={0: ...}, image={1: "no.jpg"})
    late = replace(bench("chartqa"), keep=lambda row: int(row["id"][1:]) >= 2)
    assert told(check(late, folder)) == []
    broken = replace(bench("chartqa"), keep=lambda row: row["nothing"])
    assert told(check(broken, folder))[0] == 'row 1: column "nothing" is missing'


# ---------------------------------------------------------------- preparing


def shape(sample: Sample) -> Any:
    meta = {key: value for key, value in sample.meta.items() if key != "rows"}
    pixels = [image.load().tobytes() for image in sample.images]
    return sample.id, sample.question, sample.target, sample.choices, dict(sample.group), meta, pixels


@pytest.mark.parametrize("name", NAMES)
def test_what_is_prepared_reads_back_the_same(name: str, tmp_path: Path) -> None:
    done = prepare(check(bench(name), "pocket"), tmp_path / "out")
    before, after = samples(bench(name), "pocket", limit=12), samples(bench(name), tmp_path / "out")
    assert done.rows == len(after)
    chosen = {sample.id for sample in before}
    assert [shape(s) for s in before] == [shape(s) for s in after if s.id in chosen]
    split = bench(name).source.split
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        f"{split}-00000-of-00001.parquet",
        "manifest.json",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_images_keep_their_encoding_and_files_their_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    from datasets import Dataset

    folder = charts(tmp_path / "a", 5)
    # Every image is larger than a shard: one row a file.
    monkeypatch.setattr("stic_eval.evals.data_preparation.SHARD_BYTES", 10)
    done = prepare(check(bench("chartqa"), folder), tmp_path / "b" / "out")
    names = [f"test-{i:05}-of-00005.parquet" for i in range(5)]
    assert list(done.files) == names
    assert [s.images[0].sha256 for s in samples(bench("chartqa"), done.folder)] == [
        s.images[0].sha256 for s in samples(bench("chartqa"), folder)
    ]
    manifest = json.loads((done.folder / "manifest.json").read_text())
    assert (manifest["benchmark"], manifest["rows"], manifest["skipped"]) == ("chartqa", 5, [])
    for name in names:
        known = manifest["files"][name]
        assert known["rows"] == 1
        assert known["sha256"] == hashlib.sha256((done.folder / name).read_bytes()).hexdigest()
    assert str(tmp_path) not in (done.folder / "manifest.json").read_text()
    # What `datasets` itself makes of it.
    read = Dataset.from_parquet(str(done.folder / names[2]), cache_dir=str(tmp_path / "cache"))
    assert read[0]["image"].size == (40, 30)
    assert read.column_names == ["id", "type", "question", "answer", "image"]


def test_rows_without_ids_keep_their_numbers_when_some_are_left_out(tmp_path: Path) -> None:
    folder = charts(tmp_path / "a", 4, id=dict.fromkeys(range(4), ...), answer={1: ...})
    checked = check(bench("chartqa"), folder)
    prepare(checked, tmp_path / "out")
    assert [s.id for s in samples(bench("chartqa"), tmp_path / "out")] == ["0", "2", "3"]
    skipped = json.loads((tmp_path / "out" / "manifest.json").read_text())["skipped"]
    assert skipped == [{"row": 2, "id": "", "column": "answer", "message": "is missing"}]


def test_cells_of_different_kinds_become_text_or_are_refused(tmp_path: Path) -> None:
    folder = charts(tmp_path / "a", answer={0: 7}, extra={0: 1, 1: "one", 2: [1]})
    checked = check(bench("chartqa"), folder)
    assert told(checked) == ['row 3 (id c2): column "extra" is a list, where most rows have a single value']
    assert prepare(checked, tmp_path / "left").rows == 3
    folder = charts(tmp_path / "b", extra={0: [1], 1: ["one"]}, more={0: 1, 1: "one"})
    prepare(check(bench("chartqa"), folder), tmp_path / "out")
    assert len(samples(bench("chartqa"), tmp_path / "out")) == 4


def test_what_does_not_read_back_the_same_is_not_written(tmp_path: Path) -> None:
    calls = iter(range(100))
    looked_at = 2 * 4 - 1  # the last of them: by the check: once as they are, and once as a table has them
    changing = replace(
        bench("chartqa"),
        to_sample=lambda row: replace(
            bench("chartqa").to_sample(row), question=f"{max(looked_at, next(calls))}"
        ),
    )
    with pytest.raises(RunError, match="row 1 is not the same when read back: its question differs"):
        prepare(check(changing, charts(tmp_path / "a")), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_what_is_checked_is_what_can_be_prepared(tmp_path: Path) -> None:
    extra = {0: "\ud800", 1: {}, 2: "ok", 3: {"a": 1}, 4: {"a": "x"}, 5: 10**30, 6: "ok", 7: float("nan")}
    folder = charts(tmp_path / "a", 8, extra=extra)
    checked = check(bench("chartqa"), folder)
    assert [problem.row for problem in checked.problems] == [1, 2, 4, 5]
    assert "half of a surrogate pair" in told(checked)[0]
    assert prepare(checked, tmp_path / "out").rows == 4
    again = check(bench("chartqa"), tmp_path / "out")
    assert not again.problems and len(again.samples) == 4


@pytest.mark.parametrize("error", [RecursionError, ZeroDivisionError, SystemExit, GeneratorExit])
def test_one_bad_row_never_stops_the_others(error: type[BaseException], tmp_path: Path) -> None:
    def to_sample(row: Any) -> Sample:
        if row["id"] == "c1":
            raise error
        return bench("chartqa").to_sample(row)

    checked = check(replace(bench("chartqa"), to_sample=to_sample), charts(tmp_path / "a"))
    assert told(checked)[0].startswith(f"row 2 (id c1): {error.__name__}")
    assert sorted(checked.samples) == [0, 2, 3]


@pytest.mark.parametrize(
    "cell", [{"bytes": 5}, {"bytes": "x"}, {"path": ["x"]}, [[["x"]]], "a\0b", "x" * 5000]
)
def test_an_image_cell_may_hold_anything(cell: Any, tmp_path: Path) -> None:
    checked = check(bench("chartqa"), charts(tmp_path / "a", image={1: cell}))
    assert {problem.row for problem in checked.problems} == {2}
    assert all(len(line) < 700 for line in told(checked))


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    checked = check(bench("chartqa"), charts(tmp_path / "a"))
    (tmp_path / "out").mkdir()
    prepare(checked, tmp_path / "out")  # an empty one is fine
    with pytest.raises(UserError, match="is not empty"):
        prepare(checked, tmp_path / "out")
    assert len(samples(bench("chartqa"), tmp_path / "out")) == 4
    with pytest.raises(UserError, match="is a file"):
        writing.refuse_taken(tmp_path / "a" / "test.jsonl")
    with pytest.raises(UserError, match="cannot write "):
        prepare(checked, tmp_path / "a" / "test.jsonl" / "x")


KILLED = """
import os, signal, sys
from pathlib import Path
from stic_eval import registry
from stic_eval.evals.data_check import check
from stic_eval.evals.data_preparation import prepare

def progress(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

checked = check(registry.benchmarks().get("chartqa"), sys.argv[1])
prepare(checked, Path(sys.argv[2]), progress=progress)
"""


def test_a_kill_leaves_no_half_folder_and_does_not_hinder_the_next(tmp_path: Path) -> None:
    folder, out = charts(tmp_path / "a"), tmp_path / "out"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf")}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, folder, out], env=environment, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    prepare(check(bench("chartqa"), folder), out)
    assert len(samples(bench("chartqa"), out)) == 4
    assert {p.name for p in tmp_path.iterdir()} - {"hf"} == {"a", "out"}
