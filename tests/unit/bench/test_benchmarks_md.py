"""docs/benchmarks.md says what the benchmark files say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel

from bench import benchmarks_md
from stic_eval import registry
from stic_eval.contracts.benchmark import Benchmark

NAMES = ("scienceqa", "textvqa", "chartqa", "llava_bench", "mmbench", "mmvet", "mathvista")


def bench(name: str) -> Benchmark:
    return registry.benchmarks().get(name)


def test_the_page_is_what_the_files_declare() -> None:
    written = benchmarks_md.PAGE.read_text(encoding="utf-8")
    assert written == benchmarks_md.page(), "stale: python -m bench.benchmarks_md"


@pytest.mark.parametrize("name", NAMES)
def test_a_section_has_everything_that_is_declared(name: str) -> None:
    benchmark = bench(name)
    section = benchmarks_md.page().split(f"\n## {benchmark.title}\n")[1].split("\n## ")[0]
    made = benchmarks_md.variants(benchmark)
    assert made[0] is benchmark
    assert len({one.variant for one in made}) == len(made)
    for one in made:
        assert f"| `{one.variant}` | {one.protocol} | {one.generation.max_new_tokens:,} |" in section
        assert f"n = {one.source.rows:,}" in section
        assert all(text in section for d in one.departures for text in (d.what, d.why, d.example))
    said = [benchmark.metric, *benchmark.sources, benchmark.source.path, benchmark.source.revision]
    said += [text for old in benchmark.source.former for text in (old.path, old.revision)]
    said += [layout.name for layout in benchmark.layouts]
    said += [pattern for layout in benchmark.layouts for pattern in layout.files.values()]
    said += [benchmark.vlmeval, f"| version | {benchmark.version} |"]
    assert benchmark.options is not None
    said += benchmarks_md.described(benchmark.options).values()
    assert [text for text in said if not text or text not in section] == []


def test_variants_are_all_choices_of_all_options() -> None:
    assert [one.variant for one in benchmarks_md.variants(bench("textvqa"))] == [
        "llava", "llava, no ocr", "lmms", "lmms, ocr"
    ]  # fmt: skip
    assert [one.variant for one in benchmarks_md.variants(bench("chartqa"))] == ["lmms", "lmms, strict"]


def test_breakdowns_are_named() -> None:
    assert benchmarks_md.labels(bench("chartqa")) == ["questions"]
    assert benchmarks_md.labels(bench("textvqa")) == []
    assert benchmarks_md.labels(bench("mmvet")) == ["capability", "combination"]


class Told(BaseModel):
    """What may be chosen.

    Attributes:
        first: One
            thing.
        second: Another.
    """

    first: Literal["a"] = "a"
    second: bool = False


class Untold(Told):
    """Nothing."""


def test_options_mean_what_their_docstring_says() -> None:
    assert benchmarks_md.described(Told) == {"first": "One thing.", "second": "Another."}
    with pytest.raises(KeyError, match="first"):
        benchmarks_md.described(Untold)


def test_check_tells_a_stale_page_and_writes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    monkeypatch.setattr(benchmarks_md, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["benchmarks_md", "--check"])
    for stale in (None, "old\n"):
        if stale is not None:
            page.write_text(stale)
        with pytest.raises(SystemExit, match=r"benchmarks\.md is not what the benchmark files say"):
            benchmarks_md.main()
        assert page.exists() == (stale is not None)
    monkeypatch.setattr(sys, "argv", ["benchmarks_md"])
    benchmarks_md.main()
    monkeypatch.setattr(sys, "argv", ["benchmarks_md", "--check"])
    benchmarks_md.main()
    assert page.read_text(encoding="utf-8") == benchmarks_md.page()
