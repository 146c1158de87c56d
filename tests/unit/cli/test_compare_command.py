"""`stic-eval compare`: which variants it takes, what it prints, and what it refuses."""

from __future__ import annotations

import csv
import gc
import io
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stic_eval.cli.app import invoke
from stic_eval.evals.runner import encode
from stic_eval.evals.scoring.aggregate import all_right, summarize
from stic_eval.report import compared_variants, flips, runs
from stic_eval.report.runs import Entry, Scores
from stic_eval.report.table_rows import Column
from stic_eval.store import atomic_write, read_jsonl
from stic_eval.types import DESCRIBED, DIRECT, Record

Answers = Mapping[str, float | None]  # row -> score
Capture = pytest.CaptureFixture[str]
TITLES = {"baseline": "Baseline", "stic": "STIC", "sft": "SFT only"}


def answers(scores: str) -> dict[str, float | None]:
    """`10?5` -> right, wrong, unscored, half right."""
    worth = {"1": 1.0, "0": 0.0, "5": 0.5, "?": None}
    return {str(i): worth[letter] for i, letter in enumerate(scores)}


def record(id_: str, score: float | None, **changed: Any) -> Record:
    given = f"answer {id_} {score}"
    fields: dict[str, Any] = {
        "question": f"question {id_}", "images": (f"image {id_}",), "target": f"target {id_}", "group": {},
        "description": None, "response": given, "answer": given, "score": score, "weight": 1.0,
        "why": None, "seconds": 0.0, "n_tokens": 1,
    }  # fmt: skip
    return Record(id=id_, **{**fields, **changed})


def write_run(
    folder: Path,
    variants: Mapping[str, Mapping[str, Answers]],
    *,
    circular: bool = False,
    protocol: str = "protocol llava",
    **changed: Any,
) -> str:
    """A run's folder: variant's folder -> benchmark -> answers."""
    entries: list[Entry] = []
    for name, benchmarks in variants.items():
        plain, _, seed = name.partition("@seed")
        method, _, dar = plain.partition("+")
        summaries = {}
        for benchmark, scores in benchmarks.items():
            records = [
                record(i, s, **({"meta": {"unit": str(int(i) % 2)}} if circular else {}), **changed)
                for i, s in scores.items()
            ]
            atomic_write(folder / "records" / name / f"{benchmark}.jsonl", encode(records))
            summaries[benchmark] = (
                all_right(records, lambda r: r.meta["unit"]) if circular else summarize(records)
            )
        number = int(seed) if seed else None
        entries.append(
            Entry(
                name,
                method,
                TITLES[method],
                DESCRIBED if bool(dar) else DIRECT,
                number,
                dict.fromkeys(summaries, ""),
                summaries,
            )
        )
    names = dict.fromkeys(b for benchmarks in variants.values() for b in benchmarks)
    columns = [Column(b, b.upper(), protocol) for b in names]
    runs.save(Scores(folder.name, columns, entries, model="vlm"), folder)
    return str(folder)


@pytest.fixture
def data(capsys: Capture) -> Callable[..., dict[str, Any]]:
    """Runs the command and reads its JSON."""

    def read(*argv: str) -> dict[str, Any]:
        assert invoke(["compare", *argv, "--format", "json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return read


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A run with three seeds; rows flip in both directions."""
    base = {"one": answers("1100110011"), "two": answers("5511005511")}
    stic = {"one": answers("1111110001"), "two": answers("1155005511")}
    other = {"one": answers("1110110001"), "two": answers("1155005511")}
    made = {"baseline": base, "baseline+dar": base, "sft": stic}
    made |= {"stic@seed0": stic, "stic@seed1": other, "stic@seed2": stic}
    return write_run(tmp_path / "run", made)


def fails(capsys: Capture, *argv: str) -> str:
    assert invoke(["compare", *argv]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


# ---------------------------------------------------------------- numbers


def test_numbers_that_can_be_done_by_hand(run: str, data: Callable[..., dict[str, Any]]) -> None:
    found = data(run, "--method", "sft")
    assert (found["a"]["variant"], found["b"]["variant"]) == ("baseline", "sft")
    one, two = found["benchmarks"]
    assert (one["benchmark"], one["n"], one["a"], one["b"], one["delta"]) == ("one", 10, 60, 70, 10)
    assert (one["better"], one["worse"], one["test"], one["p"]) == (2, 1, "McNemar", 1)
    assert (two["a"], two["b"], two["better"], two["worse"], two["test"]) == (60, 60, 2, 2, "permutation")
    assert found["average"]["delta"] == pytest.approx(5)
    assert all(line["p"] <= line["p_holm"] <= 1 for line in (one, two, found["average"]))
    assert found["rows_that_differ"] == 7 and len(found["rows"]) == 5


def test_seeds_are_put_together_or_named(run: str, data: Callable[..., dict[str, Any]]) -> None:
    together = data(run, "--method", "stic")
    assert together["b"]["seeds"] == [0, 1, 2]
    one = together["benchmarks"][0]
    assert one["b"] == pytest.approx((70 + 60 + 70) / 3)
    assert one["sd_b"] == pytest.approx((100 / 3) ** 0.5) and one["sd_a"] is None
    assert (one["better"], one["worse"]) == (pytest.approx(5 / 3), 1)
    alone = data(f"{run}:stic@seed1", f"{run}:stic@seed0")
    assert (alone["a"]["seeds"], alone["b"]["seeds"]) == ([1], [0])
    assert alone["benchmarks"][0]["delta"] == 10
    assert [row["id"] for row in alone["rows"]] == ["3"]


def test_a_variant_between_two_runs_pairs_the_seeds_of_both(
    run: str, tmp_path: Path, data: Callable[..., dict[str, Any]]
) -> None:
    stic = {"one": answers("1111111111"), "two": answers("1111111111"), "three": answers("1")}
    later = write_run(tmp_path / "later", {"stic@seed1": stic, "stic@seed2": stic})
    found = data(run, later)  # the only variant that both have
    assert found["a"]["seeds"] == found["b"]["seeds"] == [1, 2]
    assert found["benchmarks"][0]["a"] == 65 and found["benchmarks"][0]["b"] == 100
    notes = " ".join(found["notes"])
    assert "seeds 0" in notes and "three" in notes


def test_unscored_rows_are_left_out_and_counted(tmp_path: Path, data: Callable[..., dict[str, Any]]) -> None:
    made = {"baseline": {"one": answers("1?0011")}, "stic": {"one": answers("1111?1")}}
    found = data(write_run(tmp_path / "run", made))
    (one,) = found["benchmarks"]
    assert (one["n"], one["a"], one["b"]) == (4, 50, 100)
    assert any(
        "4 units are paired; A has 6 (1 unscored), B 6 (1 unscored)" in note for note in found["notes"]
    )
    assert {row["id"] for row in found["rows"]} == {"2", "3"}
    assert found["average"] == {**one, "benchmark": "average"}


def test_of_groups_of_rows_those_behind_a_flipped_group_are_shown(
    tmp_path: Path, data: Callable[..., dict[str, Any]]
) -> None:
    # Unit 0 has rows 0, 2, 4 and becomes right; unit 1 has rows 1, 3, 5 and stays wrong.
    made = {"baseline": {"one": answers("100010")}, "stic": {"one": answers("111010")}}
    found = data(write_run(tmp_path / "run", made, circular=True))
    assert found["benchmarks"][0]["n"] == 2 and found["benchmarks"][0]["better"] == 1
    assert [row["id"] for row in found["rows"]] == ["2"]


# ---------------------------------------------------------------- what variants are called


def ablation(folder: Path, **changed: Any) -> str:
    """A grid of two axes and two seeds over STIC + DaR, in which `power` is nothing without `kind`."""
    values: dict[str, list[Any]] = {"kind": ["blur", "off"], "power": [1.0, 0.5]}
    given = {"one": summarize([record(str(i), 1.0) for i in range(4)])}
    entries = [Entry("baseline", "baseline", "Baseline", DIRECT, None, {}, given)]
    for kind, power, seed in product(*values.values(), (0, 1)):
        name = f"stic+kind={kind}+power={1.0 if kind == 'off' else power}+dar@seed{seed}"
        cell = {"kind": kind, "power": power}
        entries.append(Entry(name, "stic", "STIC", DESCRIBED, seed, {}, given, cell))
    for entry in entries:
        same = encode([record(str(i), 1.0) for i in range(4)])
        atomic_write(folder / "records" / entry.folder / "one.jsonl", same)
    runs.save(Scores(folder.name, [Column("one", "ONE")], entries, axes=values, **changed), folder)
    return str(folder)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("default", "STIC + DaR, kind=blur, power=1.0"),
        ("stic+kind=blur+power=1.0+dar", "STIC + DaR, kind=blur, power=1.0"),
        ("stic + dar, KIND=blur, power=1.0", "STIC + DaR, kind=blur, power=1.0"),
        ("kind=blur,power=1", "STIC + DaR, kind=blur, power=1.0"),
        ("kind=blur power=5e-1", "STIC + DaR, kind=blur, power=0.5"),
        ("power=0.5+kind=off", "STIC + DaR, kind=off, power=0.5"),
        ("stic+kind=off+power=1.0+dar#2", "STIC + DaR, kind=off, power=0.5"),
        ("Baseline", "Baseline"),
    ],
)
def test_cells_go_by_label_folder_settings_or_default(
    tmp_path: Path, data: Callable[..., dict[str, Any]], name: str, label: str
) -> None:
    run = ablation(tmp_path / "grid")
    other = "kind=off,power=1" if name != "Baseline" else "default"
    assert data(f"{run}:{other}", f"{run}:{name}")["b"]["label"] == label
    assert data(run, "--method", other, "--method", name)["b"]["label"] == label
    if name != "Baseline":
        alone = data(f"{run}:{name}@seed1", f"{run}:{other}")
        assert alone["a"]["label"] == label and alone["a"]["seeds"] == [1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kind=blur", '"kind=blur" may be default or kind=blur+power=0.5; give one'),
        ("power=0.5", '"power=0.5" may be kind=blur+power=0.5 or kind=off+power=0.5; give one'),
        ("kind=blu", "(there are baseline, default, kind=blur+power=0.5, kind=off+power=1.0, "),
        ("stic", 'no variant is called "stic"'),
        ("default@seed7", "default has no seed 7 (there are 0, 1)"),
        ("baseline@seed0", "baseline has no seed 0 (it is not trained: leave @seed out)"),
    ],
)
def test_names_that_fit_no_cell_or_several_list_what_there_is(
    tmp_path: Path, capsys: Capture, name: str, message: str
) -> None:
    assert message in fails(capsys, ablation(tmp_path / "grid"), "--method", name)


def test_a_grid_without_a_default_has_no_default_cell(tmp_path: Path, capsys: Capture) -> None:
    run = ablation(tmp_path / "grid", without_default=["power"])
    message = fails(capsys, run, "--method", "default")
    assert "has no default value of power" in message and "kind=off+power=0.5" in message


VALUES = st.one_of(st.booleans(), st.integers(-2, 2), st.floats(-1, 1), st.none(), st.text(max_size=5))


@settings(deadline=None)
@given(
    cells=st.lists(st.tuples(st.sampled_from(["stic", "sft"]), st.booleans(), VALUES, VALUES), max_size=5),
    shared=st.booleans(),
)
def test_names_that_are_listed_are_taken(cells: list[tuple[str, bool, Any, Any]], shared: bool) -> None:
    entries = [
        Entry(
            f"same@seed{seed}" if shared else f"cell{at}@seed{seed}",
            method, TITLES[method], DESCRIBED if dar else DIRECT, seed, settings={"a": one, "b.c": two},
        )
        for at, (method, dar, one, two) in enumerate(cells)
        for seed in (0, 1)
    ]  # fmt: skip
    axes = {"a": [one for _, _, one, _ in cells], "b.c": [two for _, _, _, two in cells]}
    scores = Scores(
        "grid", [], [Entry("baseline", "baseline", "Baseline", DIRECT, None), *entries], axes=axes
    )
    listed = compared_variants.names(scores)
    assert len(set(listed.values())) == len(listed)
    for key, name in listed.items():
        (word,) = shlex.split(name)
        assert compared_variants.pick(scores, word, Path()) == (key, compared_variants.groups(scores)[key])


def test_two_cells_of_one_evaluation_are_said_to_be_one(
    tmp_path: Path, data: Callable[..., dict[str, Any]]
) -> None:
    run = ablation(tmp_path / "grid")
    found = data(f"{run}:kind=off+power=1", f"{run}:kind=off+power=0.5")
    assert any("are the same evaluation" in note for note in found["notes"])
    assert found["a"]["variant"] != found["b"]["variant"]
    assert not any("same evaluation" in note for note in data(run, "--method", "default")["notes"])


def test_of_two_runs_the_only_method_of_both_is_meant(
    run: str, tmp_path: Path, data: Callable[..., dict[str, Any]], capsys: Capture
) -> None:
    base = {"one": answers("1100110011"), "two": answers("5511005511")}
    one = write_run(tmp_path / "one", {"baseline": base, "sft": base})
    assert data(run, one)["a"]["variant"] == data(run, one)["b"]["variant"] == "sft"
    both = write_run(tmp_path / "both", {"baseline": base, "sft": base, "stic@seed0": base})
    assert "choose with --method among sft, stic" in fails(capsys, run, both)
    # Nobody who has trained something wants the two baselines compared.
    none = write_run(tmp_path / "none", {"baseline": base})
    message = fails(capsys, run, none)
    assert "share no variant but the baseline" in message
    assert f"{run} has baseline, baseline+dar, sft, stic; {none} has baseline" in message
    alone = write_run(tmp_path / "alone", {"baseline": base})
    assert data(none, alone)["a"]["variant"] == "baseline"


def test_a_run_may_have_a_colon_in_its_name(tmp_path: Path, data: Callable[..., dict[str, Any]]) -> None:
    made = {"baseline": {"one": answers("10")}, "sft": {"one": answers("11")}}
    run = write_run(tmp_path / "a:b", made)
    assert data(f"{run}:baseline", f"{run}:sft")["b"]["variant"] == data(run)["b"]["variant"] == "sft"


# ---------------------------------------------------------------- what is shown


@pytest.mark.parametrize(("which", "signs"), [("better", {True}), ("worse", {False}), ("all", {True, False})])
def test_rows_are_chosen_by_direction_benchmark_and_number(
    run: str, data: Callable[..., dict[str, Any]], which: str, signs: set[bool]
) -> None:
    found = data(run, "--method", "sft", "--flips", which, "--benchmark", "two", "-n", "100")
    assert {row["benchmark"] for row in found["rows"]} == {"two"}
    assert {row["change"] > 0 for row in found["rows"]} == signs
    assert found["rows_that_differ"] == len(found["rows"])
    assert len(found["benchmarks"]) == 2  # the table, and what Holm corrects for, stay the same
    first = found["rows"][0]
    assert [answer["side"] for answer in first["answers"]] == ["A", "B"]
    assert first["target"] == f"target {first['id']}"
    assert len(data(run, "--method", "sft", "-n", "3")["rows"]) == 3


def test_rows_come_from_every_benchmark_in_turn(run: str, data: Callable[..., dict[str, Any]]) -> None:
    found = data(run, "--method", "sft", "-n", "2")
    assert [row["benchmark"] for row in found["rows"]] == ["one", "two"]


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_shows_everything_within_its_width(
    run: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert invoke(["compare", run, "--method", "stic", "-n", "50", "--notes"]) == 0
    text = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    for shown in ("ONE", "TWO", "Average", "p (Holm)", "±", "t with seeds", "B (1.00, seeds 0, 2)"):
        assert shown in " ".join(text.split())
    flat = " ".join(text.split())
    assert "STIC" in flat and "training seeds 0, 1, 2" in flat
    assert "one 2: B is better, +1.00" in text and "target 2" in text


def test_what_others_wrote_drives_nothing(tmp_path: Path, capsys: Capture) -> None:
    evil = {"response": "\x1b[2J[red]x[/red]|<script>", "question": "`a`\x9b|b", "description": "\x07*d*"}
    made = {"baseline": {"=cmd": answers("10")}, "stic": {"=cmd": answers("01")}}
    folder = write_run(tmp_path / "run", made, **evil)
    for format_ in ("text", "md", "csv", "json"):
        assert invoke(["compare", folder, "--format", format_]) == 0
        text = capsys.readouterr().out
        assert not {"\x1b", "\x9b", "\x07"} & set(text)
        if format_ == "text":
            assert "[red]x[/red]" in text
        if format_ == "md":
            assert r"\<script\>" in text and "<script>" not in text.replace(r"\<script\>", "")
            assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {12}
        if format_ == "csv":
            assert [row["benchmark"] for row in csv.DictReader(io.StringIO(text))] == ["'=cmd"]


def test_csv_has_a_line_for_each_comparison(run: str, capsys: Capture) -> None:
    assert invoke(["compare", run, "--method", "sft", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["benchmark"] for row in rows] == ["one", "two", "average"]
    assert float(rows[0]["delta"]) == 10 and rows[0]["sd_b"] == ""


def test_without_records_there_are_numbers_and_no_rows(tmp_path: Path, capsys: Capture) -> None:
    made = {"baseline": {"one": answers("10")}, "stic": {"one": answers("11")}}
    first = write_run(tmp_path / "first", made)
    second = write_run(tmp_path / "second", made)
    for path in (tmp_path / "second").glob("records/*/*.jsonl"):
        path.unlink()
    assert invoke(["compare", f"{first}:baseline", f"{second}:stic"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "has no records" in text and "No row on which one side does better" in text
    assert invoke(["compare", second, "-n", "0"]) == 0
    assert "No row" not in capsys.readouterr().out


# ---------------------------------------------------------------- what is refused, and what is pointed out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{run}"], "choose with --method among baseline+dar, sft, stic"),
        (["{run}:stik"], 'no variant is called "stik"; did you mean "stic"?'),
        (["{run}:stic", "{run}:stic"], "compared with itself"),
        (["{run}", "--method", "baseline"], "compared with itself"),
        (["{run}", "--method", "stic", "--method", "sft", "--method", "baseline"], "two are compared, not 3"),
        (["{run}:stic", "--method", "sft", "--method", "baseline"], "name two of"),
        (["{run}", "--method", "stic@seed9"], "stic has no seed 9 (there are 0, 1, 2)"),
        (["{run}:"], "choose with --method among"),
        (["nowhere:"], 'no run is called "nowhere"'),
        (["{run}:stic", "{run}:sft", "--method", "baseline"], "say which already"),
        (["{run}", "--method", "sft", "--benchmark", "onne"], 'did you mean "one"?'),
        (["nowhere"], 'no run is called "nowhere"'),
        (["nowhere:stic"], 'no run is called "nowhere"'),
    ],
)
def test_what_cannot_be_meant_is_refused(run: str, capsys: Capture, argv: list[str], message: str) -> None:
    assert message in fails(capsys, *(word.format(run=run) for word in argv))


def test_runs_of_other_rows_are_refused(tmp_path: Path, capsys: Capture) -> None:
    made = {"baseline": {"one": answers("10")}}
    first = write_run(tmp_path / "first", made)
    apart = write_run(tmp_path / "apart", {"baseline": {"one": {"7": 1.0}}})
    assert "no rows with a verdict in common" in fails(capsys, first, apart)
    elsewhere = write_run(tmp_path / "elsewhere", {"baseline": {"two": answers("10")}})
    assert "no benchmark in common" in fails(capsys, first, elsewhere)
    namesake = write_run(tmp_path / "namesake", made, target="x", images=("y",))
    message = fails(capsys, first, namesake, "-n", "0")
    assert "were asked different rows" in message and "one 0" in message


def test_other_protocols_and_targets_are_pointed_out(
    tmp_path: Path, data: Callable[..., dict[str, Any]]
) -> None:
    made = {"baseline": {"one": answers("10")}}
    first = write_run(tmp_path / "first", made)
    second = write_run(tmp_path / "second", made, protocol="protocol lmms", target="x")
    notes = " ".join(data(first, second)["notes"])
    assert "asked or scored differently" in notes and "protocol lmms" in notes
    assert "2 rows have another target" in notes


def test_a_damaged_record_is_named(run: str, capsys: Capture) -> None:
    path = Path(run) / "records" / "sft" / "one.jsonl"
    path.write_text(path.read_text() + '{"id": "x", "score": "high"}\n')
    assert f"{path}, line 11: not a record" in fails(capsys, run, "--method", "sft")


def test_of_seeds_under_way_the_finished_ones_count(
    tmp_path: Path, data: Callable[..., dict[str, Any]]
) -> None:
    full = {"one": answers("1010"), "two": answers("1010")}
    made = {"baseline": full, "stic@seed0": full, "stic@seed1": {"one": answers("1111")}}
    found = data(write_run(tmp_path / "run", made))
    assert found["b"]["seeds"] == [0] and len(found["benchmarks"]) == 2


def test_the_method_is_compared_with_the_baseline_where_nothing_is_named(
    tmp_path: Path, data: Callable[..., dict[str, Any]], capsys: Capture
) -> None:
    one = {"one": answers("1100")}
    names = ("baseline", "baseline+dar", "stic@seed0", "stic+dar@seed0")
    found = data(write_run(tmp_path / "run", dict.fromkeys(names, one)))
    assert [found[side]["variant"] for side in "ab"] == ["baseline", "stic"], found["a"]
    assert capsys.readouterr().err == ""


def test_a_side_that_is_unfinished_is_warned_of(tmp_path: Path, capsys: Capture) -> None:
    full = {"one": answers("1010"), "two": answers("1010")}
    part = {"one": full["one"]}
    run = write_run(
        tmp_path / "run", {"baseline": full, "stic@seed0": part, "sft@seed0": full, "sft@seed1": part}
    )
    assert invoke(["compare", run, "--method", "stic", "--format", "csv"]) == 0
    said = capsys.readouterr()
    assert said.err == f"warning: B, STIC of {run}, is unfinished (not evaluated yet: TWO)\n"
    assert invoke(["compare", run, "--method", "sft"]) == 0
    said = capsys.readouterr()
    assert "(left out, as less of it is there: seed 1)" in said.err
    assert "B is unfinished (left out, as less of it is there: seed 1)." in " ".join(said.out.split())


def test_what_a_run_wrote_can_be_compared(world: Any, capsys: Capture) -> None:
    world.answer = lambda variant, sample: "yes" if variant.startswith("stic") else "no"
    assert world.run("--method", "stic") == 0
    capsys.readouterr()
    assert invoke(["compare", str(world.results()), "--method", "stic", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["benchmarks"][0]["n"] == 20
    assert (found["benchmarks"][0]["better"], found["benchmarks"][0]["worse"]) == (10, 10)


# ---------------------------------------------------------------- who graded


def graded(run: str, benchmark: str, grader: str, judged: int = 0) -> None:
    """Says of a run who graded a benchmark, and how many answers a judge decided."""
    path = Path(run) / "scores.json"
    data = json.loads(path.read_text())
    next(column for column in data["columns"] if column["name"] == benchmark)["grader"] = grader
    for entry in data["variants"]:
        entry["summaries"][benchmark]["judged"] = judged
    path.write_text(json.dumps(data))


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    """Two runs of one variant on two benchmarks."""
    first, second = (
        write_run(tmp_path / name, {"stic": {"one": answers(one), "two": answers("0101")}})
        for name, one in (("a", "0000"), ("b", "1111"))
    )
    return first, second


def test_scores_by_different_judges_are_not_compared(
    two: tuple[str, str], data: Callable[..., dict[str, Any]]
) -> None:
    graded(two[0], "one", "judge gpt-4-0613 (stic-eval-1)", judged=4)
    graded(two[1], "one", "judge gpt-4o (stic-eval-1)", judged=4)
    found = data(*two)
    assert [line["benchmark"] for line in found["benchmarks"]] == ["two"]
    assert found["average"]["delta"] == 0
    (note,) = [note for note in found["notes"] if note.startswith("ONE:")]
    assert note == (
        "ONE: A is judge gpt-4-0613 (stic-eval-1), B judge gpt-4o (stic-eval-1); left out, as scores by "
        "different judges are not compared."
    )


@pytest.mark.parametrize(
    ("graders", "judged", "compared"),
    [
        (("judge a (stic-eval-1)", "judge a (stic-eval-1)"), (4, 4), True),
        (("judge a (stic-eval-1)", "judge a (stic-eval-1), 3 replies each"), (4, 4), True),
        (("judge a (stic-eval-1)", "judge a (official@x)"), (4, 4), False),
        # MMBench: a judge reads what rules cannot; where it decided nothing, rules did on both sides.
        (("", "judge a (stic-eval-1)"), (0, 0), True),
        (("judge b (stic-eval-1)", "judge a (stic-eval-1)"), (0, 0), True),
        (("", "judge a (stic-eval-1)"), (0, 1), False),
        (("judge b (stic-eval-1)", "judge a (stic-eval-1)"), (1, 0), False),
        # Rules in a judge's place, of two versions.
        (("graded by rule, version 1", "graded by rule, version 2"), (0, 0), False),
        (("graded by rule", "judge a (stic-eval-1)"), (0, 4), False),
    ],
)
def test_who_graded_decides_what_is_compared(
    two: tuple[str, str], data: Callable[..., dict[str, Any]], graders: Any, judged: Any, compared: bool
) -> None:
    for run, grader, count in zip(two, graders, judged, strict=True):
        graded(run, "one", grader, count)
    assert [line["benchmark"] for line in data(*two)["benchmarks"]] == ["one", "two"][not compared :]


def test_where_nothing_is_left_to_compare_it_says_so(two: tuple[str, str], capsys: Capture) -> None:
    for name in ("one", "two"):
        graded(two[0], name, "judge a (stic-eval-1)", judged=4)
        graded(two[1], name, "judge b (stic-eval-1)", judged=4)
    assert invoke(["compare", *two]) == 2
    said = capsys.readouterr().err
    assert "ONE, TWO were graded by different judges, whose scores are not compared" in said


def versioned(run: str, benchmark: str, version: int) -> None:
    path = Path(run) / "scores.json"
    data = json.loads(path.read_text())
    next(column for column in data["columns"] if column["name"] == benchmark)["version"] = version
    path.write_text(json.dumps(data))


def test_scores_by_different_versions_are_not_compared(
    two: tuple[str, str], data: Callable[..., dict[str, Any]], capsys: Capture
) -> None:
    """Rows may read alike and be graded by other rules: neither does a table have both."""
    versioned(two[0], "one", 2)
    assert [line["benchmark"] for line in data(*two)["benchmarks"]] == ["one", "two"], "one does not say"
    versioned(two[1], "one", 3)
    found = data(*two)
    assert [line["benchmark"] for line in found["benchmarks"]] == ["two"]
    assert found["average"]["delta"] == 0
    assert (
        "ONE: left out, as version 2 of the benchmark graded A, and version 3 B; run the older again."
    ) in found["notes"]
    for run, version in zip(two, (2, 3), strict=True):
        versioned(run, "two", version)
    assert invoke(["compare", *two]) == 2
    said = capsys.readouterr().err
    assert "ONE, TWO were graded by different versions of the benchmarks, whose scores are not" in said


# ---------------------------------------------------------------- load


def test_every_record_is_read_once(run: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    read: list[Path] = []

    def counting(path: Path) -> Iterator[dict[str, Any]]:
        read.append(path.relative_to(run))
        return read_jsonl(path)

    monkeypatch.setattr(flips, "read_jsonl", counting)
    assert invoke(["compare", run, "--method", "sft"]) == 0
    both = [f"records/{side}/{name}.jsonl" for name in ("one", "two") for side in ("baseline", "sft")]
    assert sorted(map(str, read)) == sorted(both)


def test_garbage_is_looked_for_seldom_while_records_are_read_and_as_before_afterwards(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, meanwhile = gc.get_threshold(), []

    def counting(path: Path) -> Iterator[dict[str, Any]]:
        meanwhile.append(gc.get_threshold()[0])
        return read_jsonl(path)

    monkeypatch.setattr(flips, "read_jsonl", counting)
    assert invoke(["compare", run, "--method", "sft"]) == 0
    assert min(meanwhile) > 10 * before[0]
    assert gc.get_threshold() == before


@pytest.mark.parametrize("which", ["all", "better", "worse"])
@pytest.mark.parametrize("number", [0, 1, 2, 100])
def test_rows_that_are_shown_are_the_first_of_all(run: str, which: flips.Which, number: int) -> None:
    a, b = compared_variants.choose(run, None, ["stic"])
    everything = flips.flips(a, b, "one")
    fitting = [flip for flip in everything if which == "all" or (flip.change > 0) == (which == "better")]
    shown = flips.choose(flips.read(a, b, "one"), flips.Choice(which, number))
    assert shown == (fitting[:number], len(fitting))
