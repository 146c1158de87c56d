"""`stic-eval judge agreement`: two gradings of the same answers, by their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stic_eval.cli.app import invoke
from stic_eval.evals.agreement import Verdict, compare

NAMES = {"kappa", "pearson", "spearman", "kendall"}


def output(path: Path, scores: dict[str, float | None], name: str = "mmvet", weight: float = 1.0) -> str:
    rows = [{"id": id_, "score": score, "weight": weight, "why": None} for id_, score in scores.items()]
    path.write_text(json.dumps({"benchmark": name, "per_sample": rows}, indent=1))
    return str(path)


def agreement(tmp_path: Path, a: Any, b: Any, **kwargs: Any) -> dict[str, Any]:
    first, second = output(tmp_path / "a.json", a, **kwargs), output(tmp_path / "b.json", b, **kwargs)
    assert invoke(["judge", "agreement", first, second, "--json", str(tmp_path / "out.json")]) == 0
    found: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    return found


def test_numbers_that_can_be_done_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = {"p": 1.0, "q": 1.0, "r": 0.0, "s": 0.0, "t": None, "u": 1.0, "only a": 1.0}
    b = {"s": 0.0, "r": 1.0, "q": 1.0, "p": 1.0, "t": 1.0, "u": None, "only b": 0.0, "only b too": 0.0}
    found = agreement(tmp_path, a, b)
    assert found | {"disagreements": 0} == {
        "common": 6, "n": 4, "only_a_scored": 1, "only_b_scored": 1, "neither_scored": 0,
        "missing_in_a": 2, "missing_in_b": 1, "mean_a": 50.0, "mean_b": 75.0, "difference": 25.0,
        "exact": 0.75, "kappa": 0.5, "pearson": pytest.approx(3**-0.5), "spearman": pytest.approx(3**-0.5),
        "kendall": pytest.approx(3**-0.5), "disagreements": 0,
    }  # fmt: skip
    assert found["disagreements"] == [{"id": "r", "a": 0.0, "b": 1.0, "difference": 1.0}]
    printed = capsys.readouterr().out
    assert "4 (left out: 1 scored by A alone, 1 scored by B alone, 1 not in B, 2 not in A)" in printed
    assert "75.0 %" in printed and "r: A 0.00, B 1.00" in printed


@pytest.mark.parametrize(
    ("both", "a_alone", "b_alone", "neither", "kappa"),
    [(20, 5, 10, 15, 0.4), (45, 15, 25, 15, 0.1304), (25, 35, 5, 35, 0.2593), (0, 5, 5, 0, -1.0)],
)
def test_kappa_of_worked_examples(both: int, a_alone: int, b_alone: int, neither: int, kappa: float) -> None:
    x = [1.0] * (both + a_alone) + [0.0] * (b_alone + neither)
    y = [1.0] * both + [0.0] * a_alone + [1.0] * b_alone + [0.0] * neither
    found = compare(*({str(n): Verdict(v, 1.0) for n, v in enumerate(values)} for values in (x, y)))
    assert found.kappa == pytest.approx(kappa, abs=1e-4)


def test_weights_count_in_the_mean_and_in_agreement(tmp_path: Path) -> None:
    first = output(tmp_path / "a.json", {"p": 0.5, "q": 0.8}, weight=1.0)
    second = output(tmp_path / "b.json", {"p": 0.5, "q": 0.8}, weight=0.5)
    assert invoke(["judge", "agreement", first, second, "--json", str(tmp_path / "o.json")]) == 0
    found = json.loads((tmp_path / "o.json").read_text())
    assert (found["mean_a"], found["mean_b"], found["exact"]) == (65.0, 130.0, 0.0)
    assert found["kappa"] is None  # not right or wrong


@pytest.mark.parametrize(
    ("a", "b", "undefined"),
    [
        ([0.5, 0.5], [0.1, 0.9], NAMES),
        ([0.1, 0.9], [0.2, 0.4], {"kappa"}),
        ([1.0, 1.0], [1.0, 1.0], NAMES),
        ([1.0], [0.0], {"pearson", "spearman", "kendall"}),
        ([None, None], [1.0, 0.0], NAMES | {"mean_a", "mean_b", "difference", "exact"}),
    ],
)
def test_what_is_not_defined_is_null_and_a_dash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], a: list[Any], b: list[Any], undefined: set[str]
) -> None:
    found = agreement(tmp_path, *({str(n): v for n, v in enumerate(values)} for values in (a, b)))
    assert {name for name, value in found.items() if value is None} == undefined
    printed = capsys.readouterr()
    dashes = sum(line.split()[-1] == "-" for line in printed.out.splitlines())
    assert dashes == len(undefined)
    assert "nan" not in printed.out.lower() and "Warning" not in printed.err


def test_records_are_read_too_and_the_largest_disagreements_come_first(tmp_path: Path) -> None:
    for name, slope in (("a", 0.0), ("b", 0.04)):
        rows = [{"id": str(n), "score": slope * n, "weight": 1.0, "response": "x"} for n in range(25)]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.json"
    assert invoke(["judge", "agreement", str(tmp_path / "a"), str(tmp_path / "b"), "--json", str(out)]) == 0
    worst = json.loads(out.read_text())["disagreements"]
    assert [item["id"] for item in worst] == [str(n) for n in range(24, 14, -1)]


def test_ids_cannot_drive_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agreement(tmp_path, {"\x1b[2J": 0.0, "b": 1.0}, {"\x1b[2J": 1.0, "b": 1.0})
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"", "no verdicts"),
        (b"\xff\xfe\x00", "not text"),
        (b"{\n", "line 1: not JSON"),
        (b'{"id": "a", "score": 1}\n{"id":', "line 2: not JSON"),
        (b"[1, 2]", "per_sample"),
        (b'{"score": 40.0, "benchmark": "mmvet"}', "per_sample"),
        (b'{"per_sample": 3}', "not a list"),
        (b'{"per_sample": []}', "no verdicts"),
        (b'{"per_sample": [{"id": "a"}]}', "per_sample[0]"),
        (b'{"id": "a", "score": "1"}', '"score" is not a number'),
        (b'{"id": "a", "score": NaN}', '"score" is not a number'),
        (b'{"id": "a", "score": 1, "weight": null}', '"weight" is not a number'),
        (b'{"id": "a", "score": 1}\n\n{"id": "a", "score": 0}', "line 3: id 'a' is there twice"),
        (b'{"id": "z", "score": 1}', "no id in common"),
        (b'{"benchmark": "chartqa", "per_sample": [{"id": "a", "score": 1}]}', "one benchmark"),
    ],
)
def test_bad_files_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, said: str
) -> None:
    good, bad = output(tmp_path / "good.json", {"a": 1.0}), tmp_path / "bad.json"
    if content is not None:
        bad.write_bytes(content)
    for files in ((good, str(bad)), (str(bad), good)):
        assert invoke(["judge", "agreement", *files]) == 2
        printed = capsys.readouterr()
        assert said in printed.err and printed.err.count("\n") == 1 and printed.out == ""


def test_an_output_that_is_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = output(tmp_path / "good.json", {"a": 1.0})
    assert invoke(["judge", "agreement", good, good, "--json", str(tmp_path)]) == 2
    assert "--json" in capsys.readouterr().err
