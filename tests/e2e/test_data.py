"""`stic-eval data` as people use it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from stic_eval.cli.app import invoke

if TYPE_CHECKING:
    from conftest import Lab


def charts(folder: Path, bad: int = 0, n: int = 3) -> Path:
    """Some rows, and as many after them whose image is not there."""
    folder.mkdir()
    Image.new("RGB", (9, 9), "red").save(folder / "x.png")
    row = {"type": "human_test", "question": "How many?", "answer": "1"}
    rows = [{**row, "image": "x.png"}] * n + [{**row, "image": "\x1b[2J.png"}] * bad
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_clean_data_is_said_to_be(lab: Lab, tmp_path: Path) -> None:
    done = lab.at(tmp_path).invoke("data", "check", "chartqa", "--from", charts(tmp_path / "a"))
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "warning: 3 rows; the data set has 2500"
    assert lines[1] == f"ChartQA: {tmp_path / 'a'}: 3 rows, no problems"


def test_problems_are_listed_up_to_a_number_and_written_in_full(lab: Lab, tmp_path: Path) -> None:
    folder, lab = charts(tmp_path / "a", bad=60), lab.at(tmp_path)
    done = lab.invoke("data", "check", "chartqa", "--from", folder, "--json", "found.json", "-q")
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0].startswith(r'row 4 (id 3): column "image": \x1b[2J.png: no such file: ')
    assert lines[50].startswith("... and 10 more problems")
    assert lines[-1] == f"ChartQA: {folder}: 63 rows, 60 problems in 60 rows"
    assert done.err == ""
    found = json.loads((lab.folder / "found.json").read_text(encoding="utf-8"))
    assert (found["benchmark"], found["rows"], len(found["problems"])) == ("chartqa", 63, 60)
    assert found["problems"][0]["row"] == 4
    assert found["problems"][0]["column"] == "image"


def test_what_is_wrong_with_all_rows_is_one_line(lab: Lab, tmp_path: Path) -> None:
    folder, lab = charts(tmp_path / "a"), lab.at(tmp_path)
    done = lab.invoke("data", "check", "mmvet", "--from", folder)
    assert done.code == 1
    assert 'all 3 rows: column "capability" is missing' in done.out
    assert "row 1" not in done.out


def test_data_is_prepared_checked_and_evaluated(lab: Lab, tmp_path: Path) -> None:
    folder, lab = charts(tmp_path / "a"), lab.at(tmp_path)
    done = lab.invoke("data", "prepare", "chartqa", "--from", folder, "--to", "out")
    assert done.code == 0, done.err
    assert "3 rows in 1 file: out (-o rows.chartqa=out)" in done.out
    assert lab.invoke("data", "check", "chartqa", "--from", "out").code == 0
    argv = ("--model", lab.model, "--benchmarks", "chartqa", "--no-dar", "-o", "rows.chartqa=out", "-q")
    ran = lab.invoke("eval", *argv, "--output", "run")
    assert ran.code == 0, ran.err
    assert len((lab.folder / "run" / "records" / "baseline" / "chartqa.jsonl").read_text().splitlines()) == 3


def test_bad_rows_are_refused_or_left_out(lab: Lab, tmp_path: Path) -> None:
    folder, lab = charts(tmp_path / "a", bad=1), lab.at(tmp_path)
    argv = ("data", "prepare", "chartqa", "--from", folder, "--to", "out")
    done = lab.invoke(*argv)
    assert done.code == 1
    assert "--skip-invalid" in done.err
    assert not (lab.folder / "out").exists()
    done = lab.invoke(*argv, "--skip-invalid")
    assert done.code == 3, done.err
    manifest = json.loads((lab.folder / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["rows"], len(manifest["skipped"])) == (3, 1)


def test_a_damaged_arrow_file_is_a_line_and_ends_no_process(lab: Lab, tmp_path: Path) -> None:
    import struct

    import pyarrow as pa
    from pyarrow import ipc

    folder, lab = charts(tmp_path / "a", n=0), lab.at(tmp_path)
    (folder / "test.jsonl").unlink()
    rows = [{"type": "human_test", "question": "How many?", "answer": "1", "image": "x.png"}] * 3
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(folder / "test.arrow"), "wb") as file, ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    data = (folder / "test.arrow").read_bytes()
    ends = struct.pack("<4i", 0, 9, 18, 27)  # of the three questions
    assert ends in data
    (folder / "test.arrow").write_bytes(data.replace(ends, struct.pack("<4i", 0, 9, 2**30, 2**30 + 9)))
    done = lab.invoke("data", "check", "chartqa", "--from", folder / "test.arrow")
    assert done.code == 2 and "test.arrow" in done.err and "offsets" in done.err, done.err


def test_an_id_that_names_no_row_is_none(lab: Lab, tmp_path: Path) -> None:
    folder, lab = charts(tmp_path / "a", n=0), lab.at(tmp_path)
    row = {"image": "x.png", "question": "What?", "caption": "A box.", "gpt_answer_content": "A box."}
    rows = [
        {**row, "category": "conv", "question_id": 1},
        {**row, "category": "conv", "question_id": 0, "id": []},
    ]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert lab.invoke("data", "check", "llava_bench", "--from", folder).code == 0
    done = lab.invoke("data", "prepare", "llava_bench", "--from", folder, "--to", "out")
    assert done.code == 0 and "2 rows" in done.out, done.err


@pytest.mark.parametrize("column", [{"question_id": None}, {}])
def test_rows_behind_one_that_is_left_out_keep_their_numbers(
    column: dict[str, None], lab: Lab, tmp_path: Path
) -> None:
    folder, lab = charts(tmp_path / "a", n=0), lab.at(tmp_path)
    row = {"image": "x.png", "question": "What?", "answer": "red", "capability": "rec"}
    rows = [
        {**row, "question_id": 1},
        {**row, "answer": "", **column},
        {**row, **column},
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    argv = ("data", "prepare", "mmvet", "--from", folder / "rows.jsonl", "--to", "out", "--skip-invalid")
    done = lab.invoke(*argv)
    assert done.code == 3 and "2 rows" in done.out, done.err


def test_vlmevals_file_becomes_one_of_ours_under_its_options(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = lab.at(tmp_path)
    Image.new("RGB", (30, 30), "red").save(tmp_path / "x.png")
    image = base64.b64encode((tmp_path / "x.png").read_bytes()).decode()
    head = ["index", "question", "hint", "A", "B", "answer", "category", "l2-category", "image"]
    rows = [
        ["7", "Which?", "", "red", "blue", "A", "color", "coarse_perception", image],
        ["1000007", "Which?", "", "blue", "red", "B", "color", "coarse_perception", "7"],
    ]
    (tmp_path / "MMBench_DEV_EN.tsv").write_text("\n".join("\t".join(row) for row in [head, *rows]))
    monkeypatch.setenv("LMUData", str(tmp_path))
    both = lab.invoke("data", "prepare", "mmbench", "--from", "vlmeval", "--to", "both")
    assert both.code == 0, both.err
    one = lab.invoke("data", "check", "mmbench", "--from", "both", "-o", "evaluation=vanilla")
    assert "both: 1 row, no problems" in one.out
    argv = ("--model", lab.model, "--benchmarks", "mmbench", "--no-dar", "-o", "rows.mmbench=vlmeval", "-q")
    ran = lab.invoke("eval", *argv, "--output", "run")
    assert ran.code == 0, ran.err
    monkeypatch.setenv("LMUData", str(tmp_path / "cache"))
    assert "holds no MMBench_DEV_EN.tsv" in lab.invoke("eval", *argv, "--output", "other").err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["data", "check", "chartq"], 'no benchmark is called "chartq"; did you mean "chartqa"?'),
        (["data", "check", "chartqa", "--from", "nowhere"], "chartqa: nowhere: no such file or folder"),
        (
            ["data", "check", "mmbench", "--from", "pocket", "-o", "evaluation=x"],
            "-o benchmarks.mmbench.evaluation",
        ),
        (["data", "check", "mmbench", "--from", "pocket", "--protocol", "x"], "--protocol x"),
        (["data", "check", "mmbench", "--from", "pocket", "--json", "."], "--json .: is a folder"),
        (["data", "prepare", "chartqa", "--from", "pocket"], "--to"),
        (["data", "prepare", "chartqa", "--from", "pocket", "--to", "."], "--output .: is not empty"),
    ],
)
def test_a_mistake_is_one_line(lab: Lab, tmp_path: Path, argv: list[str], message: str) -> None:
    (tmp_path / "something").touch()
    done = lab.at(tmp_path).invoke(*argv)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_offline_nothing_is_asked_of_the_hub(lab: Lab, tmp_path: Path) -> None:
    # In a process of its own: the hub's client looks at the environment when it is imported.
    environment = {**os.environ, **lab.environment, "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "stic_eval.cli.app", "data", "check", "chartqa", "--offline"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not in the local cache (nor under a former id: lmms-lab/ChartQA" in done.stderr


def test_rows_that_only_serve_to_score_are_checked_without_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"id": 1, "question": "How many?", "answer": "4", "type": "human_test", "image": "gone.png"}
    (tmp_path / "rows.jsonl").write_text(
        json.dumps(row) + "\n" + json.dumps({**row, "id": 2, "type": "x"}) + "\n"
    )
    argv = ["data", "check", "chartqa", "--from", str(tmp_path / "rows.jsonl"), "-q"]
    assert invoke([*argv, "--no-images"]) == 1
    without = capsys.readouterr().out
    assert "gone.png" not in without and 'column "type"' in without
    assert invoke(argv) == 1
    assert "gone.png" in capsys.readouterr().out


def test_rows_of_a_former_id_in_the_local_cache_are_used_and_written_down(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache as the hub's own client has made it before the data set moved."""
    from datasets import Dataset
    from huggingface_hub import constants

    from stic_eval import registry

    source = registry.benchmarks().get("chartqa").source
    (former,) = source.former
    folder = tmp_path / "hub" / f"datasets--{former.path.replace('/', '--')}" / "snapshots" / former.revision
    (folder / "data").mkdir(parents=True)
    picture = (lab.photos / "0.png").read_bytes()
    rows = [{"type": "human_test", "question": f"How many {n}?", "answer": "1"} for n in range(3)]
    table = Dataset.from_list([{**row, "image": {"bytes": picture, "path": None}} for row in rows])
    table.to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # so that nothing is asked whatever happens
    own = lab.at(tmp_path / "there")
    argv = ["run", "--method", "baseline", "--model", lab.model, "--benchmarks", "chartqa", "--output", "out"]
    plan = own.invoke(*argv, "--dry-run")
    said = f"rows of chartqa: {former.path}, revision {former.revision[:12]} (in the local cache)"
    assert (plan.code, said in plan.out) == (0, True), plan.err
    done = own.invoke(*argv)
    assert done.code == 0, done.err
    assert (
        f"chartqa: rows of the local cache under a former id, {former.path} (now {source.path})" in done.err
    )
    manifest = json.loads((own.folder / "out" / "manifest.json").read_text())
    assert manifest["rows"] == {"chartqa": {"id": former.path, "revision": former.revision}}
    done = own.invoke("data", "prepare", "chartqa", "--from", "hub", "--to", "prepared", "-q")
    assert (done.code, former.path in done.err) == (0, True), done.err
    written = json.loads((own.folder / "prepared" / "manifest.json").read_text())
    assert written["revision"] == f"{former.path}@{former.revision}"
