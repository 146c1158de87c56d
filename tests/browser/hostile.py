"""A run whose every text is hostile or long, made of nothing but its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stic_eval.report import html_report, runs
from stic_eval.report.table_rows import Column
from stic_eval.store import append_jsonl
from stic_eval.types import DESCRIBED, DIRECT, ImageRef

HOSTILE = (
    "</script><script>document.title='broken'</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "a\0b \u202eright to left\u202c \u2028 {{ 7 * 7 }} &lt;b&gt; ]]>",
    "\"'><svg onload=document.title='broken'>",
)
ROWS = 120
LONG = "long " * 20_000


@dataclass(frozen=True)
class Run:
    """A run made of nothing but its files.

    Attributes:
        folder: With records, config.yaml and manifest.json.
        scores: As read from scores.json.
        refs: Content hash -> image.
        stages: The cache that its pairs are in.
    """

    folder: Path
    scores: runs.Scores
    refs: Mapping[str, ImageRef]
    stages: Path
    facts: html_report.PageFacts = field(
        default_factory=lambda: html_report.PageFacts('<table class="scores"></table>')
    )

    def page(self, out: Path, **options: Any) -> Path:
        """Writes the report."""
        made = html_report.write(
            self.scores, self.folder, out, self.facts, refs=self.refs, stages=self.stages, **options
        )
        return made.page


def _drawn(number: int) -> Image.Image:
    return Image.new("RGB", (40, 30), ((37 * number) % 256, (91 * number) % 256, 80))


def _record(number: int, benchmark: str, folder: str, sha: str) -> dict[str, Any]:
    """A row: hostile texts in turn; scores so that flips, unscored and wrong rows are known."""
    right = {"baseline": number % 2, "stic@seed0": number % 3 == 0, "stic@seed1": 1, "stic+dar@seed0": 0}
    text = HOSTILE[number % len(HOSTILE)]
    return {
        "id": f"{benchmark}/{number}", "question": f"{text} question {number}",
        "images": [sha], "target": [f"target {number}", text], "group": {"kind": text},
        "description": f"description {number} {text}" if "dar" in folder else None,
        "response": LONG if number == 7 else f"{text} response of {folder} to {number}",
        "answer": None if number == 5 else f"answer {number}",
        "score": None if number == 5 else float(right.get(folder, 0)), "weight": 1.0,
        "why": text if number == 5 else None, "seconds": 0.1, "n_tokens": 3, "meta": {},
        "judge": {"model": text, "protocol": "p", "replies": [text, "10/10"]} if number == 5 else None,
    }  # fmt: skip


def _pairs(stages: Path, key: str) -> None:
    def turn(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    path = stages / f"pairs-{key[:16]}" / "pairs.parquet"
    path.parent.mkdir(parents=True)
    _drawn(1).save(path.with_suffix(".png"))
    image = [{"bytes": path.with_suffix(".png").read_bytes(), "path": None}]
    rows = [
        {
            "prompt": turn("user", f"prompt {n}"), "chosen": turn("assistant", f"good {n} {HOSTILE[0]}"),
            "rejected": turn("assistant", f"bad {n} {HOSTILE[1]}"), "images": image,
            "image_sha256": "ab" * 32, "source": HOSTILE[3],
            "negative": ("misleading", "low_res", "jitter")[n % 3], "seed": n,
        }
        for n in range(9)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), path)


def build(tmp_path: Path) -> Run:
    """Two benchmarks with 120 rows each; a baseline, and STIC with two seeds, once with DaR."""
    folder = tmp_path / "run"
    key = hashlib.sha256(b"pairs").hexdigest()
    trained = [
        runs.TrainedStage("pairs", key, 1.5, 18, 0),
        runs.TrainedStage("preference", "cd" * 32, 2.0, 0, 6),
    ]
    entries = [
        runs.Entry("baseline", "baseline", "Baseline", DIRECT, None),
        runs.Entry("stic@seed0", "stic", f"STIC {HOSTILE[1]}", DIRECT, 0, stages=trained),
        runs.Entry("stic@seed1", "stic", f"STIC {HOSTILE[1]}", DIRECT, 1),
        runs.Entry("stic+dar@seed0", "stic", "STIC", DESCRIBED, 0, stages=trained),
    ]
    refs: dict[str, ImageRef] = {}
    for number in range(ROWS):
        sha = hashlib.sha256(str(number // 2).encode()).hexdigest()
        refs[sha] = ImageRef(sha, f"picture {number}", partial(_drawn, number // 2))
    shas = list(refs)
    for benchmark in ("one", "two"):
        for entry in entries:
            if (benchmark, entry.folder) != ("two", "stic@seed1"):  # not evaluated yet
                rows = [_record(n, benchmark, entry.folder, shas[n // 2]) for n in range(ROWS)]
                append_jsonl(folder / "records" / entry.folder / f"{benchmark}.jsonl", rows)
    (folder / "config.yaml").write_text(f"model: {json.dumps(HOSTILE[0])}\n")
    (folder / "manifest.json").write_text(json.dumps({"command": [HOSTILE[0]], "seconds": 3}))
    columns = [Column("one", f"One {HOSTILE[3]}"), Column("two", "Two")]
    _pairs(tmp_path / "stages", key)
    scores = runs.Scores(f"run {HOSTILE[0]}", columns, entries, model=HOSTILE[1])
    return Run(folder, scores, refs, tmp_path / "stages")
