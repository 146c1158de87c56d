"""`stic-eval plot`: the files it writes, what it says, and what a user may get wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from stic_eval.cli.app import invoke
from stic_eval.report.runs import Entry, Scores, save
from stic_eval.report.table_rows import Column
from stic_eval.types import DESCRIBED, DIRECT, Summary


def summary(right: int) -> Summary:
    return Summary(100 * right / 40, 40, 0, {str(i): (float(i < right), 1.0) for i in range(40)}, {})


def entry(method: str, right: int, *, dar: bool = False, **cell: object) -> Entry:
    name = f"{method}{dar}{cell}"
    return Entry(
        name,
        method,
        method.upper(),
        DESCRIBED if dar else DIRECT,
        0,
        {},
        {"one": summary(right), "two": summary(right)},
        cell,
    )


BASE = entry("baseline", 10)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    cells = [
        entry("stic", 10 + 3 * i + 2 * j, n=n, k=k) for i, n in enumerate((1, 2)) for j, k in enumerate("ab")
    ]
    for name, entries, axes in (
        ("plain", [BASE, entry("stic", 20), entry("stic", 22, dar=True)], {}),
        ("grid", [BASE, *cells], {"n": [1, 2], "k": ["a", "b"]}),
        ("started", [BASE, entry("stic", 20, n=1)], {"n": [1, 2]}),
        ("alone", [BASE], {}),
    ):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").touch()
        columns = [Column("one", "One"), Column("two", "Two")]
        save(Scores(name, columns, list(entries), [], "m", dict(axes)), folder)
    return tmp_path / "results"


def test_all_that_a_run_allows_is_written_and_named(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["plot", "plain"]) == 0
    out = capsys.readouterr().out.splitlines()
    expected = {
        f"results/plain/figures/{kind}.{form}"
        for kind in ("gains", "progression")
        for form in ("svg", "pdf", "png")
    }
    assert {line for line in out if line.startswith("results/")} == expected
    assert {str(p.relative_to(written.parent)) for p in (written / "plain" / "figures").iterdir()} == expected
    reasons = [line.partition(": ") for line in out if not line.startswith("results/")]
    assert [what for what, *_ in reasons] == ["no scaling", "no heatmap", "no training"]
    assert "an axis of numbers" in reasons[0][2] and "over two axes" in reasons[1][2]
    assert invoke(["plot", "grid", "--format", "svg"]) == 0
    assert {p.name for p in (written / "grid" / "figures").iterdir()} == {
        "gains.svg",
        "scaling.svg",
        "heatmap.svg",
    }


def test_each_axis_of_numbers_gets_a_file(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [entry("stic", 10 + 3 * i, n=n, p=p) for i, (n, p) in enumerate(((1, 0.5), (2, 0.5), (1, 0.1)))]
    folder = written / "two"
    folder.mkdir()
    (folder / "config.yaml").touch()
    columns = [Column("one", "One"), Column("two", "Two")]
    save(Scores("two", columns, [BASE, *cells], [], "m", {"n": [1, 2], "p": [0.5, 0.1]}), folder)
    argv = ["plot", "two", "--kind", "scaling", "--format", "svg", "--benchmark", "one"]
    assert invoke(argv) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"results/two/figures/scaling-{axis}-one.svg" for axis in "np"
    ]
    assert invoke([*argv, "--x", "p", "--out", "here"]) == 0
    assert capsys.readouterr().out == "here/scaling-p-one.svg\n"


def test_published_scores_concern_the_progression_alone(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["plot", "plain", "--published", "--format", "svg"]) == 0
    out = capsys.readouterr().out
    assert "results/plain/figures/gains.svg" in out
    assert "no progression: --published: the paper has no scores of" in out


def test_kind_benchmark_format_folder_and_size_are_as_asked(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "plot",
        "grid",
        "--kind",
        "heatmap",
        "--benchmark",
        "two",
        "--x",
        "k",
        "--y",
        "n",
        "--format",
        "png",
    ]
    assert invoke([*argv, "--out", "here", "--width", "4", "--dpi", "100"]) == 0
    assert capsys.readouterr().out == "here/heatmap-two.png\n"
    assert Image.open(tmp_path / "here" / "heatmap-two.png").width == 400


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nothing"], 'no run is called "nothing"'),
        (["plain", "--kind", "scaling"], "--kind scaling: needs an ablation over an axis of numbers"),
        (["plain", "--kind", "heatmap"], "--kind heatmap: needs an ablation over two axes"),
        (["plain", "--kind", "training"], "--kind training: this run kept no training curves"),
        (["grid", "--kind", "progression"], "--kind progression: needs the baseline and"),
        (["alone"], "nothing can be drawn"),
        (["alone", "--kind", "gains"], "--kind gains: nothing of this run is compared"),
        (["plain", "--kind", "pie"], "pie"),
        (["plain", "--benchmark", "oen"], '--benchmark oen: this run has no such benchmark; did you mean'),
        (["plain", "--method", "stik"], '--method stik: this run has no such method; did you mean "stic"?'),
        (["plain", "--x", "n"], "--x n: this run has no such axis (it has none)"),
        (["started", "--kind", "scaling"], "--kind scaling: needs scores at two values of n; this run has 1"),
        (["grid", "--kind", "scaling", "--x", "k"], "--kind scaling: k is not an axis of numbers"),
        (["grid", "--kind", "heatmap", "--x", "n", "--y", "n"], "give two axes"),
        (["grid", "--format", "svg,gif"], "--format gif: give svg, pdf or png"),
        (["grid", "--format", ","], "--format: give svg"),
        (["grid", "--width", "nan"], "--width nan: give inches"),
        (["grid", "--width", "1000"], "--width 1000: give inches"),
        (["grid", "--dpi", "0"], "--dpi 0: give pixels per inch"),
        (["plain", "--kind", "progression", "--published"], "--published: the paper has no scores of"),
        (["plain", "--kind", "gains", "--published"], "--published: goes with --kind progression, not with"),
        (["grid", "--out", "results/grid/scores.json", "--kind", "gains"], "cannot write"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_one_line_that_names_it(
    written: Path, capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    assert invoke(["plot", *argv]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
