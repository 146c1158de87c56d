"""STIC from pictures to table through the command, and what is told about the run afterwards."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Finished

VARIANTS = ("baseline", "baseline+dar", "stic", "stic+dar")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def in_a_process(finished: Finished, *argv: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a fresh process; 99 if that imported torch."""
    code = f"import sys; from stic_eval.cli.app import invoke; code = invoke({list(argv)!r}); "
    code += "sys.exit(99 if 'torch' in sys.modules else code)"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=finished.lab.folder, env=os.environ | finished.lab.environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


# ---------------------------------------------------------------- the table and what it is made of


def test_the_table_has_baseline_and_stic_with_and_without_dar(finished: Finished) -> None:
    table = json.loads((finished.folder / "table.json").read_text())
    assert [row["label"] for row in table["rows"]] == ["Baseline", "Baseline + DaR", "STIC", "STIC + DaR"]
    assert [column["name"] for column in table["columns"]] == ["textvqa", "chartqa", "mmbench"]
    scores = {row["label"]: row["cells"]["chartqa"]["score"] for row in table["rows"]}
    assert scores["Baseline"] == 100.0  # its own answers are the right ones
    assert scores["STIC"] < 100.0
    cells = table["rows"][2]["cells"]
    assert [cells[name]["n"] for name in ("textvqa", "chartqa", "mmbench")] == [
        6,
        6,
        1,
    ]  # one unit of rotations
    assert cells["average"]["difference"]["delta"] < 0
    for suffix in ("md", "tex", "csv"):
        text = (finished.folder / f"table.{suffix}").read_text()
        assert "STIC" in text or "stic" in text
    assert all(label in finished.done.out for label in scores)


def test_every_row_of_every_variant_has_a_record(finished: Finished) -> None:
    for variant in VARIANTS:
        for name, path in finished.lab.rows.items():
            records = rows_of(finished.folder / "records" / variant / f"{name}.jsonl")
            assert len(records) == len(rows_of(path))
            assert all((record["description"] is not None) == variant.endswith("dar") for record in records)
    direct, described, trained = (
        [r["response"] for r in rows_of(finished.folder / "records" / v / "textvqa.jsonl")]
        for v in ("baseline", "baseline+dar", "stic")
    )
    assert direct != described
    assert direct != trained  # the adapter was attached


def test_the_adapter_is_an_ordinary_peft_folder(finished: Finished) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    (folder,) = finished.lab.done("infused_sft")
    base = AutoModelForImageTextToText.from_pretrained(finished.lab.model, use_safetensors=True)
    model = PeftModel.from_pretrained(base, str(folder / "adapter"))
    changed = [
        name for name, weight in model.named_parameters() if "lora_B" in name and torch.any(weight != 0)
    ]
    assert changed
    assert all("language_model" in name for name in changed)
    assert str(finished.lab.model) not in (folder / "adapter" / "adapter_config.json").read_text()


def test_pairs_are_a_data_set_as_trl_takes_it(finished: Finished, tmp_path: Path) -> None:
    from datasets import Dataset
    from PIL import Image

    (folder,) = finished.lab.done("pairs")
    pairs = Dataset.from_parquet(str(folder / "pairs.parquet"), cache_dir=str(tmp_path))
    assert {"prompt", "chosen", "rejected", "images"} <= set(pairs.column_names)
    assert len(pairs) == 6
    for row in pairs:
        assert [turn["role"] for turn in row["prompt"]] == ["user"]
        assert [turn["role"] for side in ("chosen", "rejected") for turn in row[side]] == ["assistant"] * 2
        assert len(row["images"]) == 1
        assert isinstance(row["images"][0], Image.Image)
    sources = {source: Image.open(finished.lab.photos / source).size for source in pairs["source"]}
    assert {row["source"]: row["images"][0].size for row in pairs} == sources  # the clean image


# ---------------------------------------------------------------- running it again


def test_a_second_run_loads_no_torch_and_prints_the_same(finished: Finished) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in finished.lab.stages.glob("*/manifest.json")}
    again = in_a_process(finished, *finished.argv)
    assert again.returncode == 0, again.stderr
    assert again.stdout == finished.done.out
    assert {path: path.stat().st_mtime_ns for path in finished.lab.stages.glob("*/manifest.json")} == stamps


def test_the_plan_says_beforehand_what_is_done(finished: Finished) -> None:
    from pyarrow.parquet import ParquetFile

    assert finished.plan.code == 0, finished.plan.err
    assert finished.trace == []
    lines = {}
    for line in finished.plan.out.splitlines():
        if found := re.fullmatch(r"(.+?)\s+([0-9a-f]{16})\s+(to do|cached)\s+([\d,]+)\s+([\d,]+)\s*", line):
            lines[found[1]] = found.groups()[1:]
    stages = ("pairs", "preference", "descriptions", "infused_sft")
    assert list(lines)[:4] == [f"{stage}, seed 0" for stage in stages]
    folders = {stage: finished.lab.done(stage)[0] for stage in stages}
    planned = {stage: lines[f"{stage}, seed 0"] for stage in stages}
    assert all(folders[stage].name == f"{stage}-{planned[stage][0]}" for stage in stages)
    answers = 2 * ParquetFile(folders["pairs"] / "pairs.parquet").metadata.num_rows
    described = len(rows_of(folders["descriptions"] / "descriptions.jsonl"))
    assert [int(planned[stage][2]) for stage in stages] == [answers, 0, described, 0]
    steps = [len(rows_of(folders[stage] / "log.jsonl")) for stage in ("preference", "infused_sft")]
    assert [int(planned[stage][3]) for stage in stages] == [0, steps[0], 0, steps[1]]
    evaluated = {what: line for what, line in lines.items() if what.startswith("evaluate ")}
    for variant in VARIANTS:
        for name, path in finished.lab.rows.items():
            asked = len(rows_of(path)) * (2 if variant.endswith("dar") else 1)
            assert evaluated[f"evaluate {variant} {name}"][1:3] == ("to do", str(asked))


def test_the_plan_of_a_finished_run_has_nothing_left_to_do(finished: Finished) -> None:
    text = finished.lab.invoke(*finished.argv, "--dry-run").out
    assert "to do in all" in text
    assert text.count("to do") == 1
    total = next(line for line in text.splitlines() if line.startswith("to do in all"))
    assert total.split()[-2:] == ["0", "0"]


# ---------------------------------------------------------------- telling of it


def test_an_adapter_of_the_run_scores_as_in_the_run_without_asking_again(finished: Finished) -> None:
    (stage,) = finished.lab.done("infused_sft")
    argv = finished.lab.argv("eval", "--adapter", stage / "adapter", "--no-dar", "-q", "--output", "alone")
    done = in_a_process(finished, *argv)
    assert done.returncode == 0, done.stderr  # 99: torch was imported to answer anew
    alone = finished.lab.folder / "alone"
    for name in finished.lab.rows:
        ours = rows_of(alone / "records" / "adapter" / f"{name}.jsonl")
        assert ours == rows_of(finished.folder / "records" / "stic" / f"{name}.jsonl")


@pytest.mark.parametrize("suffix", ["md", "tex", "csv", "json"])
def test_table_prints_the_files_of_the_run(finished: Finished, suffix: str) -> None:
    done = finished.lab.invoke("table", finished.folder.name, "--format", suffix)
    assert done.code == 0
    assert done.out == (finished.folder / f"table.{suffix}").read_text()


def test_runs_are_listed_and_shown(finished: Finished) -> None:
    listed = finished.lab.invoke("ls", "runs")
    assert listed.code == 0
    assert finished.folder.name in listed.out
    assert "STIC + DaR" in listed.out
    shown = finished.lab.invoke("show", finished.folder.name)
    assert shown.code == 0
    assert "learning_rate: 0.01" in shown.out
    *_, last = shown.out.splitlines()
    assert last.startswith("# scores: stic-eval table ") and "--benchmark " in last
    answers = finished.lab.invoke(
        "show", finished.folder.name, "--benchmark", "chartqa", "--wrong", "-n", "1"
    )
    assert answers.out.startswith("# chartqa: protocol ")
    assert all(f"-- {variant}: " in answers.out for variant in VARIANTS)


# ---------------------------------------------------------------- what others wrote cannot break out


def safe(text: str) -> bool:
    return not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def test_a_question_cannot_drive_the_terminal(finished: Finished) -> None:
    done = finished.lab.invoke("show", finished.folder.name, "--benchmark", "textvqa", "--id", "34607")
    assert done.code == 0
    assert "[bold red]x[/]" in done.out
    assert "\\x1b[2j" in done.out  # TextVQA's questions are put in lower case but for the first letter
    assert safe(done.out)


def test_titles_of_a_foreign_run_cannot_break_out_of_any_format(finished: Finished, tmp_path: Path) -> None:
    data = json.loads((finished.folder / "scores.json").read_text())
    evil = "=cmd|' /C calc'!A0 \x1b]0;owned\x07 & \\input{x} $ # [red]r[/] <script> `x` |\r\n% \x9b31m"
    data["columns"][0] |= {"title": evil, "protocol": evil}
    data["variants"][2] |= {"title": evil, "method": evil}
    data["notes"] = [evil]
    (tmp_path / "scores.json").write_text(json.dumps(data))
    texts = {
        kind: finished.lab.invoke("table", tmp_path, "--format", kind)
        for kind in ("text", "md", "tex", "csv")
    }
    assert [done.code for done in texts.values()] == [0] * 4
    assert "[red]r[/]" in texts["text"].out  # shown, not obeyed
    assert {kind: safe(done.out) for kind, done in texts.items()} == dict.fromkeys(texts, True)
    head = texts["md"].out.splitlines()[0]
    assert len(re.findall(r"(?<!\\)\|", head)) == 6  # method, three benchmarks, average
    assert "<script>" not in texts["md"].out.replace("\\<", "")
    code = [line for line in texts["tex"].out.splitlines() if not line.startswith("%")]
    assert not any(re.search(r"\\input|(?<!\\)[#$%]", line) for line in code if "cmd" in line)
    rows = code[code.index(r"\toprule") : code.index(r"\bottomrule")]
    assert any("cmd" in line for line in rows)
    assert all(line.endswith(r"\\") for line in rows if "cmd" in line)
    cells = [cell for row in csv.reader(io.StringIO(texts["csv"].out)) for cell in row]
    assert any("cmd" in cell for cell in cells)
    assert not any(cell.startswith(("=", "@", "\t", "\r")) for cell in cells)
