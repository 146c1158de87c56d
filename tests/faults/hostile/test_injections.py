"""Injections: texts in answers, rows, names of files and runs, which stay texts wherever they are shown."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stic_eval.printable import csv_cell
from tests.browser.conftest import Tab, browser, tab  # noqa: F401 - fixtures
from tests.faults.hostile.attempts import Place, complaints
from tests.faults.hostile.budget import counted, few, many
from tests.faults.hostile.test_servers import COMPLETION, _head, sending
from tests.faults.hostile.values import CODE, FORMULAS, LATEX, MARKUP, TERMINAL, one_of

HOSTILE = (
    *MARKUP,
    *TERMINAL,
    *FORMULAS,
    *LATEX,
    *CODE,
    "\u2028x",
    "</textarea></title><script>window.owned=1</script>",
)
injected = st.lists(one_of(HOSTILE), min_size=1, max_size=3).map(" ".join)


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    """The texts of a run: what rows ask and hold, what the model says, what files and the run are called."""
    rows = [
        {
            "id": f"{number} {draw(injected)}",
            "type": draw(st.sampled_from(["human_test", "augmented_test"])),
            "question": draw(injected),
            "answer": draw(injected),
        }
        for number in range(3)
    ]
    return {
        "rows": rows,
        "said": [draw(injected) for _ in range(3)],
        "file": _file_name(draw(injected)),
        "run": _file_name(draw(injected)),
        "model": draw(injected),
    }


def _file_name(text: str) -> str:
    return "".join(c for c in text if c not in "/\0")[:60].strip(". \t\r\n-") or "x"


def evaluate(place: Place, world: dict[str, Any]) -> Path:
    """A run on such rows, answered by such texts, twice a row; and everything that shows it."""
    Image.new("RGB", (8, 8), "red").save(place.work / f"{world['file']}.png")
    rows = [{**row, "image": f"{world['file']}.png"} for row in world["rows"]]
    (place.work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = f"out/{world['run']}"
    with sending(place) as sender:
        said = {
            **COMPLETION,
            "choices": [
                {"index": 0, "message": {"content": " ".join(world["said"])}, "finish_reason": "stop"}
            ],
        }
        sender.said = {"POST": _head(200, json.dumps(said).encode()), "GET": _head(200, b'{"data": []}')}
        url = f"http://127.0.0.1:{sender.port}/v1"
        place.attempt(
            "eval",
            "--engine",
            "openai",
            "--base-url",
            url,
            "--model",
            world["model"].replace("\0", ""),
            "--benchmarks",
            "chartqa",
            "-o",
            "rows.chartqa=rows.jsonl",
            "--dar",
            "-o",
            "server.attempts=1",
            "--output",
            run,
            codes=(0, 2, 3),
        )
    if not (place.work / run / "scores.json").exists():
        return place.work / run
    for argv in (
        ("show", run),
        ("show", run, "--benchmark", "chartqa", "-n", "9"),
        ("show", run, "--id", rows[0]["id"]),
        ("table", run),
        ("table", run, "--layout", "detail"),
        ("compare", run, "--method", "baseline+dar"),
        ("ls", "runs"),
        *(("compare", run, "--method", "baseline+dar", "--format", form) for form in ("md", "csv")),
    ):
        place.attempt(*argv)
    place.attempt("report", run, "--out", "out/report.html")
    return place.work / run


def look_at_files(run: Path) -> None:
    """Asserts that no file of a run drives whatever opens it."""
    for path in sorted(run.rglob("*")):
        if path.suffix in (".md", ".tex", ".csv", ".html", ".txt", ".log"):
            text = path.read_text(encoding="utf-8")
            wrong = [one for one in complaints_of(text) if path.suffix != ".csv" or "\r" not in one]
            assert not wrong, (path.name, wrong)
        if path.suffix == ".tex":
            assert not re.search(r"(?<!\\)\\(input|write18)", path.read_text(encoding="utf-8")), (
                path.read_text()
            )
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(?<!\\)(<script|\]\(javascript)", text), text
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                for cell in (cell for line in csv.reader(file) for cell in line):
                    assert not _is_formula(cell), cell


def complaints_of(text: str) -> list[str]:
    """Characters in a file that drive a terminal, or turn the direction of writing."""
    from tests.faults.hostile.attempts import Tried

    return [one for one in complaints(Tried(0, text, "")) if "drive" in one]


def _is_formula(cell: str) -> bool:
    first = next((c for c in cell if not (c.isspace() or unicodedata.category(c) in ("Cc", "Cf"))), "")
    number = re.fullmatch(r"[+-]?[\d.,]+", cell) is not None
    return not number and unicodedata.normalize("NFKC", first) in ("=", "+", "-", "@") and cell != "-"


def look_in_browser(page: Path, tab: Tab) -> None:  # noqa: F811
    """Asserts that a report has no markup and runs no script but its own, in all of its views."""
    for view in ("summary", "samples", "pairs", "training", "provenance"):
        tab.open(page, f"#view={view}")
        if view == "samples":
            tab.until(lambda: tab.text("#detail h2"), "a sample")
        assert tab.js("return window.owned === undefined && document.title.endsWith('stic-eval report')")
        assert (
            tab.js(
                "return document.querySelectorAll('[onerror], [onload], iframe, a[href^=javascript]').length"
            )
            == 0
        )
        assert tab.complaints() == []


def explore_worlds(place: Place, budget: Any, tab: Tab | None) -> None:  # noqa: F811
    def once(world: dict[str, Any]) -> None:
        run = evaluate(place, world)
        look_at_files(run)
        if tab is not None and (place.work / "out" / "report.html").exists():
            look_in_browser(place.work / "out" / "report.html", tab)
        place.clear()
        for path in place.work.glob("*.png"):
            if path.name != "good.png":
                path.unlink()

    with counted("injections in a browser" if tab else "injections", place):
        budget(given(worlds())(once))()


@pytest.fixture
def folder(place: Place) -> Place:
    """Without the images of other tests."""
    for path in place.work.iterdir():
        path.unlink()
    return place


def test_injections(folder: Place) -> None:
    explore_worlds(folder, few(2), None)


def test_injections_in_a_browser(folder: Place, tab: Tab) -> None:  # noqa: F811
    explore_worlds(folder, few(1), tab)


@pytest.mark.campaign
def test_many_injections(folder: Place) -> None:
    explore_worlds(folder, many(60), None)


@pytest.mark.campaign
def test_many_injections_in_a_browser(folder: Place, tab: Tab) -> None:  # noqa: F811
    explore_worlds(folder, many(40), tab)


@given(st.text() | injected)
def test_no_cell_of_a_spreadsheet_is_a_formula(text: str) -> None:
    assert not _is_formula(csv_cell(text)) or csv_cell(text) == text == "-"
