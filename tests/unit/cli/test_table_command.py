"""`stic-eval table` through the front door: layouts, formats, references, several runs, mistakes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stic_eval.cli.app import invoke
from stic_eval.report import runs
from stic_eval.report.runs import Entry, Scores, TrainedStage
from stic_eval.report.table_rows import Column
from stic_eval.types import DESCRIBED, DIRECT, SolverLabel, Summary

PAIRS, DPO = TrainedStage("pairs", "a" * 64, 1, 1, 0), TrainedStage("preference", "b" * 64, 1, 0, 1)
DESCRIBE, SFT = (
    TrainedStage("descriptions", "c" * 64, 1, 1, 0),
    TrainedStage("infused_sft", "d" * 64, 1, 0, 1),
)
BOTH = (PAIRS, DPO, DESCRIBE, SFT)
VOTE = SolverLabel("self_consistency", "SC", "sc")
COLUMNS = (("mmbench", "MMBench"), ("mmvet", "MM-Vet"))


def summary(right: int, n: int = 100, parts: Mapping[str, float] | None = None, first: int = 0) -> Summary:
    units = {f"{first + i}": (float(i < right), 1.0) for i in range(n)}
    return Summary(100 * right / n, n, 0, units, parts or {})


def entry(
    method: str,
    dar: bool,
    seed: int | None,
    right: int,
    settings: Mapping[str, Any] | None = None,
    stages: Sequence[TrainedStage] = (),
    title: str | None = None,
    names: Sequence[str] = ("mmbench", "mmvet"),
    n: int = 100,
    first: int = 0,
) -> Entry:
    cell = "".join(f"+{axis}={value}" for axis, value in (settings or {}).items())
    folder = f"{method}{cell}{'+dar' if dar else ''}{'' if seed is None else f'@seed{seed}'}"
    parts = {"mmbench": {"ability/CP": right / 2, "ability/LR": 3.0, "category/x": 1.0, "vanilla": 9.0},
             "mmvet": {"capability/rec": 50.0, "capability/ocr": right * 1.0}}  # fmt: skip
    return Entry(
        folder, method, title or {"baseline": "Baseline", "stic": "STIC"}.get(method, method),
        DESCRIBED if dar else DIRECT, seed,
        summaries={name: summary(right, n, parts.get(name), first) for name in names},
        settings=dict(settings or {}), stages=list(stages),
    )  # fmt: skip


def save(
    folder: Path,
    entries: list[Entry],
    *,
    model: str = "org/llava",
    axes: dict[str, list[Any]] | None = None,
    columns: Sequence[tuple[str, str]] = COLUMNS,
    protocol: str = "asked so",
) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    fields = [Column(name, title, protocol) for name, title in columns]
    runs.save(Scores(folder.name, fields, entries, model=model, axes=axes or {}), folder)
    return str(folder)


@pytest.fixture
def plain(tmp_path: Path) -> str:
    """A run of STIC with three seeds, with and without DaR."""
    entries = [entry("baseline", False, None, 50), entry("baseline", True, None, 45)]
    entries += [entry("stic", False, seed, 70 + seed, stages=BOTH) for seed in range(3)]
    entries += [entry("stic", True, seed, 72 + seed, stages=BOTH) for seed in range(3)]
    return save(tmp_path / "plain", entries)


@pytest.fixture
def ablation(tmp_path: Path) -> str:
    """Two axes; the default cell is blur at 0.5."""
    axes: dict[str, list[Any]] = {"corruption": ["blur", "crop"], "p_corrupt": [0.5, 1.0]}
    entries = [entry("baseline", False, None, 50)]
    right = {("blur", 0.5): 70, ("blur", 1.0): 66, ("crop", 0.5): 60, ("crop", 1.0): 55}
    for (kind, p), value in reversed(right.items()):
        entries += [
            entry("stic", True, s, value + s, {"corruption": kind, "p_corrupt": p}, BOTH) for s in (0, 1)
        ]
    return save(tmp_path / "ablation", entries, axes=axes)


Run = Any


@pytest.fixture
def table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "120")

    def run(*args: str, code: int = 0) -> str:
        assert invoke(["table", *args]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return run


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_plain_layout_is_methods_by_benchmarks(table: Run, plain: str) -> None:
    text = table(plain, "--notes")
    assert re.search(r"STIC \+ DaR +73\.0 ±1\.0 +73\.0 ±1\.0 +73\.0 ±1\.0", text)
    assert "differences to Baseline in points" in text and "3 training seeds (0, 1, 2)" in text
    assert "over the table's 3 averages" in " ".join(text.split())


def test_every_format_has_the_same_numbers(table: Run, plain: str) -> None:
    data = json.loads(table(plain, "--format", "json"))
    stic = data["rows"][2]["cells"]["mmvet"]
    assert stic["score"] == pytest.approx(71.0) and stic["difference"]["delta"] == pytest.approx(21.0)
    assert {"p", "p_holm", "test", "better", "worse", "detectable", "mark"} <= set(stic["difference"])
    found = next(r for r in rows(table(plain, "--format", "csv"))
                 if (r["label"], r["benchmark"]) == ("STIC", "mmvet"))  # fmt: skip
    assert float(found["score"]) == pytest.approx(71.0) and float(found["p_holm"]) >= float(found["p"])
    for kind in ("md", "html", "tex", "text"):
        text = table(plain, "--format", kind)
        assert "71.0" in text and "+21.0" in text, kind


def test_out_writes_a_file(table: Run, plain: str, tmp_path: Path) -> None:
    out = tmp_path / "made" / "t.txt"
    out.parent.mkdir()
    assert table(plain, "--out", str(out)) == ""
    assert "Baseline + DaR" in out.read_text(encoding="utf-8")
    assert max(map(len, out.read_text(encoding="utf-8").splitlines())) <= 120


@pytest.mark.parametrize("ending", ["md", "tex", "html", "csv", "json", "txt"])
def test_a_files_ending_says_its_format(table: Run, plain: str, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"T.{ending.upper()}"
    kind = "text" if ending == "txt" else ending
    table(plain, "--out", str(out))
    other = tmp_path / "noending"
    table(plain, "--out", str(other), "--format", kind)
    assert out.read_text(encoding="utf-8") == other.read_text(encoding="utf-8") != ""
    if kind != "text":
        assert out.read_text(encoding="utf-8") == table(plain, "--format", kind)


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("t.md", ("--format", "tex"), "ends in .md, but --format is tex"),
        ("t.pdf", (), "say which with --format"),
        ("table", (), "say which with --format"),
        ("no/such/t.md", (), "is not a folder; make it first"),
        ("", ("--format", "md"), "is a folder"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_and_nothing_made(
    table: Run, plain: str, tmp_path: Path, name: str, args: tuple[str, ...], said: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    error = table(plain, "--out", str(folder / name), *args, code=2)
    assert said in error and len(error.strip().splitlines()) == 1
    assert list(folder.iterdir()) == []


def test_five_lines_of_notes_are_printed_and_all_are_written(table: Run, plain: str, tmp_path: Path) -> None:
    short, whole = table(plain), table(plain, "--notes")
    notes = short.rpartition("\n\n")[2].splitlines()
    assert len(notes) == 5 and re.fullmatch(r"\d+ more notes: `.* --notes` shows them", notes[-1])
    assert "asked so" in whole and "asked so" not in short
    assert whole.startswith(short.rpartition("\n\n")[0])
    table(plain, "--out", str(tmp_path / "t.txt"))
    assert "asked so" in (tmp_path / "t.txt").read_text() and "asked so" in table(plain, "--format", "md")


@pytest.mark.parametrize("kind", ["text", "md", "tex", "html", "json"])
@pytest.mark.parametrize("layout", ["paper", "detail"])
def test_notes_can_be_left_out(table: Run, plain: str, kind: str, layout: str) -> None:
    args = (plain, "--layout", layout, "--format", kind)
    whole, bare = table(*args, "--notes"), table(*args, "--no-notes")
    assert "asked so" in whole and "training seeds" in " ".join(whole.split())
    if kind == "json":
        items = json.loads(bare)
        assert [item["notes"] for item in (items if layout == "detail" else [items])] in ([[]], [[], []])
        return
    assert "asked so" not in bare and "seeds (" not in bare and "stic-eval" not in bare and "--by" not in bare
    assert "Baseline" in bare and "<ul" not in bare


def test_wide_is_for_latex(table: Run, plain: str) -> None:
    assert r"\begin{table*}" in table(plain, "--format", "tex", "--wide")
    assert "--wide" in table(plain, "--format", "md", "--wide", code=2)


def test_caption_and_label(table: Run, plain: str) -> None:
    text = table(plain, "--format", "tex", "--caption", "50% & more", "--label", "tab:mine")
    assert r"\caption{50\% \& more}" in text and r"\label{tab:mine}" in text
    assert "<caption>a &lt;b&gt;</caption>" in table(plain, "--format", "html", "--caption", "a <b>")
    assert "--label" in table(plain, "--format", "tex", "--label", "a}b", code=2)


# ------------------------------------------------------------ layouts


def test_components_are_leading_columns(table: Run, plain: str) -> None:
    data = json.loads(table(plain, "--layout", "components", "--format", "json"))
    assert data["heads"] == ["Stage 1", "Stage 2", "DaR"]
    assert [row["heads"] for row in data["rows"]] == [
        ["–", "–", "–"], ["–", "–", "yes"], ["yes", "yes", "–"], ["yes", "yes", "yes"],
    ]  # fmt: skip


def test_components_name_methods_where_ticks_do_not_tell_them_apart(table: Run, tmp_path: Path) -> None:
    made = [PAIRS, TrainedStage("positive_sft", "e" * 64, 1, 0, 1)]
    entries = [
        entry("baseline", False, None, 50),
        entry("stic_stage1", False, 0, 60, stages=(PAIRS, DPO)),
        entry("positive_only", False, 0, 61, stages=made),
        entry("sft", False, 0, 61, stages=(TrainedStage("sft", "f" * 64, 1, 0, 1),)),
    ]
    run = save(tmp_path / "run", entries)
    data = json.loads(table(run, "--layout", "components", "--format", "json"))
    assert data["heads"] == ["Method", "Stage 1", "Stage 2", "DaR"]
    assert [row["heads"][1:3] for row in data["rows"]] == [
        ["–", "–"], ["yes", "–"], ["yes", "–"], ["–", "yes"],
    ]  # fmt: skip


def test_components_name_a_solver_that_has_no_column(table: Run, tmp_path: Path) -> None:
    answered = replace(entry("stic", False, 0, 61, stages=BOTH), folder="stic+sc", solver=VOTE)
    run = save(tmp_path / "run", [entry("baseline", False, None, 50), answered])
    data = json.loads(table(run, "--layout", "components", "--format", "json"))
    assert data["heads"] == ["Method", "Stage 1", "Stage 2", "DaR"]
    assert [row["heads"] for row in data["rows"]] == [
        ["Baseline", "–", "–", "–"], ["STIC + SC", "yes", "yes", "–"],
    ]  # fmt: skip


def test_an_ablation_has_a_column_for_each_axis_in_the_grids_order(table: Run, ablation: str) -> None:
    data = json.loads(table(ablation, "--format", "json"))
    assert data["heads"] == ["corruption", "p_corrupt"]
    assert [row["heads"] for row in data["rows"]] == [
        ["Baseline", ""], ["blur", "0.5"], ["blur", "1.0"], ["crop", "0.5"], ["crop", "1.0"],
    ]  # fmt: skip
    assert data["rows"][1]["cells"]["mmvet"]["difference"]["delta"] == pytest.approx(20.5)
    assert (
        "Cells: STIC + DaR." in data["notes"] and "Default: corruption=blur, p_corrupt=0.5." in data["notes"]
    )
    found = rows(table(ablation, "--format", "csv"))
    assert {r["settings.corruption"] for r in found} == {"", "blur", "crop"}


def test_by_shows_one_axis_and_the_others_at_their_default(table: Run, ablation: str) -> None:
    data = json.loads(table(ablation, "--by", "corruption", "--format", "json"))
    assert [row["heads"] for row in data["rows"]] == [["Baseline"], ["blur"], ["crop"]]
    assert [row["settings"].get("p_corrupt") for row in data["rows"]] == [None, 0.5, 0.5]
    both = json.loads(table(ablation, "--by", "p_corrupt", "--by", "corruption", "--format", "json"))
    assert [row["heads"] for row in both["rows"]][1:] == [
        ["0.5", "blur"], ["0.5", "crop"], ["1.0", "blur"], ["1.0", "crop"],
    ]  # fmt: skip


def test_axes_that_do_not_tell_cells_apart_leave_it_to_the_method(table: Run, tmp_path: Path) -> None:
    entries = [entry("baseline", False, None, 50)]
    entries += [entry("stic", dar, 0, 60 + at, {"beta": at}, BOTH) for at in (0, 1) for dar in (False, True)]
    run = save(tmp_path / "run", entries, axes={"beta": [0, 1]})
    data = json.loads(table(run, "--format", "json"))
    assert data["heads"] == ["Method", "beta"]
    assert [row["heads"] for row in data["rows"]][1:3] == [["STIC", "0"], ["STIC + DaR", "0"]]


@pytest.mark.parametrize(
    ("reference", "zero"), [("default", 1), ("STIC + DaR, corruption=crop, p_corrupt=1.0", 4),
                            ("stic+corruption=crop+p_corrupt=0.5+dar", 3), ("blur,1.0", 2),
                            ("corruption=blur, p_corrupt=1.0", 2), ("baseline", 0)]
)  # fmt: skip
def test_another_reference(table: Run, ablation: str, reference: str, zero: int) -> None:
    data = json.loads(table(ablation, "--reference", reference, "--format", "json"))
    scores = [row["cells"]["mmvet"]["score"] for row in data["rows"]]
    for at, row in enumerate(data["rows"]):
        difference = row["cells"]["mmvet"]["difference"]
        if at == zero:
            assert difference is None
        else:
            assert difference["delta"] == pytest.approx(scores[at] - scores[zero])


def test_detail_is_a_benchmark_by_its_parts_without_tests(table: Run, plain: str) -> None:
    data = json.loads(table(plain, "--layout", "detail", "--benchmark", "mmvet", "--format", "json"))
    assert [column["title"] for column in data["columns"]] == ["rec", "ocr"]  # the paper's order
    cell = data["rows"][3]["cells"]["ocr"]
    assert cell["score"] == pytest.approx(73.0) and cell["sd"] == pytest.approx(1.0)
    assert all(c["difference"] is None for row in data["rows"] for c in row["cells"].values())
    assert any("no difference is tested" in note for note in data["notes"])
    both = json.loads(table(plain, "--layout", "detail", "--format", "json"))
    assert [item["name"] for item in both] == ["detail-mmbench-ability", "detail-mmvet-capability"]
    other = json.loads(table(plain, "--layout", "detail", "--by", "category", "--format", "json"))
    assert other["name"] == "detail-mmbench-category"
    lines = rows(table(plain, "--layout", "detail", "--format", "csv"))
    told = {(line["label"], line["benchmark"], line["group"], line["part"]) for line in lines}
    assert len(lines) == len(told) == 4 * 2 + 4 * 2
    assert ("STIC", "mmvet", "capability", "ocr") in told
    assert "part" not in rows(table(plain, "--format", "csv"))[0]
    assert "MMBench of llava by ability" in table(plain, "--layout", "detail")


# ------------------------------------------------------------ published rows


def test_published_rows_are_marked_and_not_compared(table: Run, plain: str) -> None:
    data = json.loads(table(plain, "--published", "--format", "json"))
    paper = [row for row in data["rows"] if row["published"]]
    assert paper and all("(published)" in row["label"] for row in paper)
    assert all(cell["difference"] is None for row in paper for cell in row["cells"].values())
    stic = next(row for row in paper if row["label"].startswith("LLaVA-v1.6-7B+STIC"))
    assert stic["cells"]["average"]["score"] == pytest.approx((67.8 + 45.0) / 2)
    assert any("with describe-and-respond" in note for note in data["notes"])
    measured = json.loads(table(plain, "--format", "json"))
    assert data["comparisons"] == measured["comparisons"]
    assert data["rows"][: len(measured["rows"])] == measured["rows"]
    for kind in ("text", "md", "tex", "html", "csv"):
        assert "(published)" in table(plain, "--published", "--format", kind), kind
    # Who graded them is said wherever they are shown, and nowhere else.
    (judges,) = [note for note in data["notes"] if "Published figures by a judge" in note]
    assert "MM-Vet by gpt-4-0613" in judges and "MMBench" not in judges
    for extra in ((), ("--no-notes",)):
        for kind in ("text", "md", "tex", "html", "json"):
            said = table(plain, "--published", *extra, "--format", kind)
            assert "Published figures by a judge" in " ".join(said.split()), (kind, extra)
    assert json.loads(table(plain, "--published", "--no-notes", "--format", "json"))["notes"] == [judges]
    assert json.loads(table(plain, "--no-notes", "--format", "json"))["notes"] == []
    assert r"\textbf{67.8}" not in table(plain, "--published", "--format", "tex")
    assert '<tr class="published">' in table(plain, "--published", "--format", "html")


def test_published_components_and_details(table: Run, plain: str) -> None:
    data = json.loads(table(plain, "--layout", "components", "--published", "--format", "json"))
    assert [row["heads"] for row in data["rows"] if row["published"]] == [
        ["LLaVA-v1.6-7B (published)", "–", "–", "–"], ["LLaVA-v1.6-7B (published)", "–", "–", "yes"],
        ["LLaVA-v1.6-7B+STIC (published)", "yes", "yes", "–"],
        ["LLaVA-v1.6-7B+STIC (published)", "yes", "yes", "yes"],
    ]  # fmt: skip
    args = ("--layout", "detail", "--benchmark", "mmbench", "--published", "--format", "json")
    data = json.loads(table(plain, *args))
    paper = [row for row in data["rows"] if row["published"]]
    assert [row["cells"]["CP"]["score"] for row in paper] == [80.7, 83.1]


# ------------------------------------------------------------ several runs


def test_rows_of_several_models_are_compared_with_their_own_baseline(
    table: Run, plain: str, tmp_path: Path
) -> None:
    entries = [entry("baseline", False, None, 30), entry("stic", False, 0, 40, stages=BOTH)]
    other = save(tmp_path / "other", entries, model="org/qwen")
    data = json.loads(table(plain, other, "--format", "json"))
    assert data["heads"] == ["Model", "Method"]
    assert [row["heads"] for row in data["rows"]][-2:] == [["qwen", "Baseline"], ["qwen", "STIC"]]
    assert data["rows"][-2]["cells"]["mmvet"]["difference"] is None
    assert data["rows"][-1]["cells"]["mmvet"]["difference"]["delta"] == pytest.approx(10.0)
    assert any("of the same model or run" in note for note in data["notes"])
    published = json.loads(table(plain, other, "--published", "--format", "json"))
    assert published["rows"][-1]["heads"] == ["LLaVA-v1.6-7B", "STIC (published)"]


def test_the_same_row_appears_once_with_the_benchmarks_of_both(
    table: Run, plain: str, tmp_path: Path
) -> None:
    names = ("mmvet", "scienceqa")
    entries = [entry("baseline", False, None, 50, names=names),
               entry("sft", False, 0, 60, names=names, stages=(SFT,))]  # fmt: skip
    other = save(tmp_path / "other", entries, columns=[("mmvet", "MM-Vet"), ("scienceqa", "ScienceQA")])
    data = json.loads(table(plain, other, "--format", "json"))
    assert [row["label"] for row in data["rows"]] == [
        "Baseline",
        "Baseline + DaR",
        "STIC",
        "STIC + DaR",
        "sft",
    ]
    assert [column["name"] for column in data["columns"]] == ["mmbench", "mmvet", "scienceqa"]
    assert data["averaged"] == ["mmvet"]
    assert data["rows"][0]["cells"]["scienceqa"]["score"] == 50.0
    missing = data["rows"][1]["cells"]["scienceqa"]
    assert missing["score"] is None and not missing["complete"]
    assert any("without MMBench, ScienceQA" in note for note in data["notes"])


def test_rows_of_one_name_with_other_results_name_their_run(table: Run, plain: str, tmp_path: Path) -> None:
    entries = [entry("baseline", False, None, 50), entry("stic", False, 0, 40, stages=BOTH)]
    other = save(tmp_path / "other", entries)
    data = json.loads(table(plain, other, "--format", "json"))
    assert data["heads"] == ["Run", "Method"]
    found = {row["label"]: row["cells"]["mmvet"]["score"] for row in data["rows"]}
    assert found["plain: STIC"] == pytest.approx(71.0) and found["other: STIC"] == pytest.approx(40.0)


def test_a_runs_row_and_the_default_cell_are_one_row_where_results_are_equal(
    table: Run, plain: str, tmp_path: Path
) -> None:
    axes: dict[str, list[Any]] = {"beta": [0.1, 0.5], "dar": ["on", "off"]}
    entries = [entry("baseline", False, None, 50)]
    for beta, dar, right in ((0.1, True, 72), (0.1, False, 70), (0.5, True, 72), (0.5, False, 61)):
        cell = {"beta": beta, "dar": "on" if dar else "off"}
        entries += [entry("stic", dar, seed, right + seed, cell, BOTH) for seed in range(3)]
    grid = save(tmp_path / "grid", entries, axes=axes)
    data = json.loads(table(plain, grid, "--layout", "paper", "--format", "json"))
    assert data["heads"] == ["Method"]
    assert [row["label"] for row in data["rows"]] == [
        "Baseline", "Baseline + DaR", "STIC", "STIC + DaR", "STIC + DaR, beta=0.5", "STIC, beta=0.5",
    ]  # fmt: skip
    data = json.loads(table(plain, grid, "--format", "json"))
    assert [row["heads"] for row in data["rows"]] == [
        ["Baseline", ""], ["Baseline + DaR", ""],
        ["0.1", "on"], ["0.1", "off"], ["0.5", "on"], ["0.5", "off"],
    ]  # fmt: skip
    reference = json.loads(
        table(plain, grid, "--layout", "paper", "--reference", "default", "--format", "json")
    )
    assert [row["cells"]["mmvet"]["difference"] is None for row in reference["rows"]].count(True) == 1
    assert reference["rows"][3]["cells"]["mmvet"]["difference"] is None


def test_a_default_cell_with_other_results_is_a_row_of_its_own(
    table: Run, plain: str, tmp_path: Path
) -> None:
    cells = [entry("stic", False, seed, 60 + seed, {"beta": 0.1}, BOTH) for seed in range(3)]
    grid = save(tmp_path / "grid", [entry("baseline", False, None, 50), *cells], axes={"beta": [0.1]})
    data = json.loads(table(plain, grid, "--layout", "paper", "--format", "json"))
    assert [row["label"] for row in data["rows"]][-1] == "STIC, beta=0.1" and len(data["rows"]) == 5


def test_a_run_is_called_what_its_folder_is(table: Run, plain: str, tmp_path: Path) -> None:
    other = save(tmp_path / "other", [entry("stic", False, 0, 40, stages=BOTH)])
    moved = (tmp_path / "other").rename(tmp_path / "short")
    data = json.loads(table(plain, str(moved), "--format", "json"))
    assert other not in data["rows"][-1]["label"] and data["rows"][-1]["label"] == "short: STIC"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": "asked otherwise"}, "asked in another way"),
        ({"n": 50}, "100 rows"),
        ({"first": 1000}, "different rows"),
    ],
)
def test_what_cannot_stand_side_by_side_is_refused(
    table: Run, plain: str, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    own = {key: value for key, value in change.items() if key != "protocol"}
    other = save(tmp_path / "other", [entry("baseline", False, None, 30, **own)],
                 protocol=change.get("protocol", "asked so"))  # fmt: skip
    error = table(plain, other, code=2)
    assert said in error and "plain" in error and "other" in error and "MMBench" in error
    assert len(error.strip().splitlines()) == 1


# ------------------------------------------------------------ mistakes and strangers' text


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--layout", "ablation"), "is not an ablation"),
        (("--by", "beta"), "--by"),
        (("--reference", "default"), "is not an ablation"),
        (("--reference", "STICK"), '"STIC"'),
        (("--benchmark", "mmvet"), "--layout detail"),
        (("--layout", "detail", "--benchmark", "mmvte"), "mmvet"),
        (("--layout", "detail", "--by", "abilty"), "ability"),
        (("--layout", "detail", "--reference", "STIC"), "--reference"),
        (("--out", "/dev/null/t.txt"), "cannot write"),
        (("--out", "/proc/t.txt"), "cannot write"),
        (("--format", "pdf"), "--format"),
    ],
)
def test_mistakes_are_one_line(table: Run, plain: str, args: tuple[str, ...], said: str) -> None:
    error = table(plain, *args, code=2)
    assert said in error and len(error.strip().splitlines()) == 1


def test_mistakes_about_an_ablation(table: Run, ablation: str) -> None:
    error = table(ablation, "--by", "corrupton", code=2)
    assert error.rstrip().endswith('(corruption, p_corrupt); did you mean "corruption"?')
    error = table(ablation, "--reference", "deflt", code=2)
    assert '"STIC + DaR, corruption=blur, p_corrupt=0.5"' in error and '"default"?' in error
    assert "may be" in table(ablation, "--reference", "stic", code=2)
    assert "--published" in table(ablation, "--published", code=2)


def test_a_run_without_recorded_stages_has_no_components(table: Run, tmp_path: Path) -> None:
    run = save(tmp_path / "old", [entry("baseline", False, None, 50), entry("stic", False, 0, 60)])
    assert "did not record stages" in table(run, "--layout", "components", code=2)


EVIL = '=1+1 <script>alert("x")</script> [red]|a&b_c% \\input{x} $y$ \x1b[31m \x00'


def test_strangers_text_is_escaped_in_every_format(table: Run, tmp_path: Path) -> None:
    settings = {EVIL: EVIL}
    entries = [entry("baseline", False, None, 50, title=EVIL),
               entry("stic", False, 0, 60, settings, BOTH, title=EVIL),
               entry("stic", False, 0, 61, {EVIL: 2}, BOTH, title=EVIL)]  # fmt: skip
    run = save(tmp_path / "evil", entries, model=EVIL, axes={EVIL: [EVIL, 2]},
               columns=[("mmbench", EVIL), ("mmvet", "MM-Vet")], protocol=EVIL)  # fmt: skip
    texts = {
        kind: "".join(table(run, "--format", kind, "--layout", layout) for layout in ("paper", "ablation"))
        for kind in ("text", "md", "tex", "html", "csv")
    }
    for kind, text in texts.items():
        assert "\x1b" not in text and "\x00" not in text, kind
    assert "<script" not in texts["html"] + texts["md"].replace(r"\<script", "")
    assert r"\input" not in texts["tex"] and "$y$" not in texts["tex"]
    cells = [cell for line in csv.reader(io.StringIO(texts["csv"])) for cell in line]
    assert not any(cell.startswith(("=", "@", "+")) for cell in cells)
    assert "[red]" in texts["text"]
    json.loads(table(run, "--format", "json"))

    tags: set[str] = set()

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.add(tag)

    Parser().feed(texts["html"])
    assert tags == {"table", "caption", "thead", "tbody", "tr", "th", "td", "span", "ul", "li"}
