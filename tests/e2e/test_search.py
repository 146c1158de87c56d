"""The search for steps and rates: one budget for all, validation rows alone, gone on with after a stop."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import search
from stic_eval import config, config_layers
from stic_eval.errors import UserError
from stic_eval.pocket import rows

# Few and short; what is searched is left as it is.
TINY = (
    "stic.stage1.images=4", "stic.stage1.max_new_tokens=8", "stic.stage1.warmup_ratio=0",
    *(f"{name}.stage2.{option}" for name in ("stic", "sft") for option in ("items=4", "warmup_ratio=0")),
    "seva.pairs.items=6", "lora.r=4", "lora.alpha=8",
)  # fmt: skip
Splits = list[str]


@pytest.fixture
def splits(monkeypatch: pytest.MonkeyPatch) -> Splits:
    """Which rows of the embedded world have been read so far."""
    read: Splits = []
    whole: Callable[..., Any] = rows.benchmark_rows

    def benchmark_rows(name: str, split: Any = "test") -> Any:
        read.append(split)
        return whole(name, split)

    monkeypatch.setattr(rows, "benchmark_rows", benchmark_rows)
    return read


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a full search would write."""
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search, "OUT", tmp_path / "search.json")
    return tmp_path / "search.json"


def argv(folder: Path, *extra: str) -> list[str]:
    options = [part for option in TINY for part in ("-o", option)]
    small = ["--budget", "2", "--limit", "20", "--benchmarks", "chartqa", "--seed", "0", "--jobs", "1"]
    return [*small, "--output", str(folder), *options, *extra]


RUN = ("stic", "sft", "seva")  # with describe-and-respond, without pairs, with one stage


def test_methods_are_searched_on_validation_rows_with_one_budget(
    splits: Splits, found: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    methods = ("--methods", ",".join(RUN))
    assert search.main(argv(tmp_path / "out", *methods)) == 0
    assert splits and set(splits) == {"val"}
    done = [json.loads(line) for line in (tmp_path / "out" / "search.jsonl").read_text().splitlines()]
    assert [row["method"] for row in done] == list(RUN) * 2  # they take turns
    for name in RUN:
        first, second = (row["settings"] for row in done if row["method"] == name)
        assert first == search.preset(name) != second
        assert second in list(search.points(name))
    folders = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert len(folders) == 6
    for folder in folders:
        built = config_layers.read_file(folder / "config.yaml")
        assert built["rows"] == {"all": "pocket:val"} and built["limit"] == 20
        own = next(row for row in done if folder.name == f"{row['method']}-{row['key'][:8]}")
        for path, value in own["settings"].items():
            options = built["method_options"][own["method"]]
            for part in path.split("."):
                options = options[part]
            assert options == value
        assert own["average"] == pytest.approx(average_of(folder, own["method"]))
    shown = capsys.readouterr().out
    assert [line.split(" | ")[0:2] for line in shown.splitlines() if line.startswith("| `")] == [
        [f"| `{name}`", "2"] for name in RUN
    ]
    assert not found.exists()  # it was no full search

    # The same command computes nothing and says the same.
    splits.clear()
    before = (tmp_path / "out" / "search.jsonl").read_bytes()
    assert search.main(argv(tmp_path / "out", *methods)) == 0
    assert (splits, (tmp_path / "out" / "search.jsonl").read_bytes()) == ([], before)
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("name", search.SPACES)
def test_what_a_search_sets_is_what_its_run_has(name: str) -> None:
    settings = search.configurations(name, 2)[1]
    command = search.argv(search.Search(), name, settings)
    given = [value for flag, value in itertools.pairwise(command) if flag == "-o"]
    built = config.load(flags={"methods": (name,)}, overrides=given)
    assert built.rows == {"all": "pocket:val"}
    for path, value in settings.items():
        options: Any = built.method_options[name]
        for part in path.split("."):
            options = options[part]
        assert options == value


def average_of(folder: Path, method: str) -> float:
    """What the run's own table says of the row that answers as the method does."""
    shown = json.loads((folder / "table.json").read_text())["rows"]
    dar = method == "stic"
    (row,) = [row for row in shown if row["label"] != "Baseline" and row["label"].endswith("+ DaR") == dar
              and not row["label"].startswith("Baseline")]  # fmt: skip
    return float(row["cells"]["chartqa"]["score"])


def test_a_stopped_search_goes_on_with_what_it_has(
    splits: Splits, found: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    averages = iter([50.0, 70.0, None, 60.0, 40.0])
    ran: list[str] = []

    def average(command: list[str], method: str, folder: Path) -> float | None:
        ran.append(method)
        return next(averages)

    monkeypatch.setattr(search, "_average", average)
    wanted = search.Search(methods=("seva", "sima"), budget=2)
    with monkeypatch.context() as patch:
        patch.setattr(search, "append_jsonl", stopping(after=1))
        with pytest.raises(KeyboardInterrupt):
            search.run(wanted, tmp_path)
    assert ran == ["seva", "sima"]
    # The first of SIMA was not written down; now it fails, and is tried again another time.
    trials = search.run(wanted, tmp_path)
    assert [(trial.method, trial.average) for trial in trials] == [
        ("seva", 50.0), ("sima", None), ("seva", 60.0), ("sima", 40.0),
    ]  # fmt: skip
    best = search.best(trials, "sima")
    assert best is not None and best.average == 40.0
    assert ran == ["seva", "sima", "sima", "seva", "sima"]
    assert search.table(trials)[2].startswith("| `seva` | 2 | 50.0 | 60.0 |")


def test_a_search_out_of_time_begins_nothing_and_counts_what_every_method_has_had(
    splits: Splits, found: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = itertools.count(0, 900)  # a quarter of an hour between two looks at the clock
    monkeypatch.setattr(search.time, "time", lambda: float(next(now)))
    monkeypatch.setattr(search, "_average", lambda command, method, folder: 50.0)
    wanted = search.Search(methods=("seva", "sima"), budget=4)
    trials = search.run(wanted, tmp_path, hours=1.5)
    assert [trial.method for trial in trials] == ["seva", "sima", "seva"]
    assert {trial.seconds for trial in trials} == {900.0}
    assert [trial.method for trial in search.compared(trials, wanted.methods)] == ["seva", "sima"]
    # What they took counts.
    more = search.run(wanted, tmp_path, hours=1.9)
    assert [trial.method for trial in more] == ["seva", "sima", "seva", "sima", "seva"]
    assert [trial.method for trial in search.run(wanted, tmp_path)] == ["seva", "sima"] * 4
    assert search.compared([], wanted.methods) == []


def test_workers_do_what_one_would(
    splits: Splits, found: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two of them, in processes of their own; only the order in which they finish may differ."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # put back afterwards: workers are given another
    command = ["run", "--method", "baseline", "--benchmarks", "chartqa", "--limit", "1", "--quiet"]
    todo = [
        (search._Job(n, str(n), "baseline", {}, (*command, "-o", "rows=pocket:val"), tmp_path / str(n)), None)
        for n in range(2)
    ]
    one = {job.place: average for job, average, _ in search._done(todo, 1)}
    assert {job.place: average for job, average, _ in search._done(todo, 2)} == one


def stopping(after: int) -> Callable[..., None]:
    """Writing that is interrupted behind so many lines."""
    written: list[Any] = []

    def append(path: Path, lines: Any) -> None:
        if len(written) == after:
            raise KeyboardInterrupt
        written.append(lines)
        WRITE(path, lines)

    return append


WRITE = search.append_jsonl


def test_the_highest_validation_average_is_chosen_and_a_full_search_is_written_down(
    found: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def average(command: list[str], method: str, folder: Path) -> float | None:
        assert list(command[-2:]) == ["-o", "rows=pocket:val"]
        rate = next(part for part in command if ".learning_rate=" in part)
        return 100 - abs(float(rate.partition("=")[2]) - 3e-4)

    monkeypatch.setattr(search, "_average", average)
    assert search.main(["--jobs", "1", "--output", str(tmp_path / "out")]) == 0
    written = json.loads(found.read_text())
    assert (written["rows"], written["limit"], written["seeds"]) == ("pocket:val", 60, [0])
    assert written["compared"] == written["budget"] == search.BUDGET
    for name in search.SPACES:
        own = [trial for trial in written["trials"] if trial["method"] == name]
        assert len(own) == len({json.dumps(trial["settings"]) for trial in own}) == search.BUDGET
        trials = [search.Trial(**trial) for trial in own]
        best = search.best(trials, name)
        assert best is not None and best.average == max(trial["average"] for trial in own)


def test_a_full_search_goes_on_from_the_committed_one(
    found: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was tried is not tried again, not in a wider space either; another model begins anew."""
    ran: list[str] = []

    def average(command: list[str], method: str, folder: Path) -> float | None:
        ran.append(method)
        return 50.0

    monkeypatch.setattr(search, "_average", average)
    argv = ["--jobs", "1", "--output", str(tmp_path / "out")]
    assert search.main(argv) == 0
    written = json.loads(found.read_text())
    fewer = written["trials"][: -2 * len(search.SPACES)]
    # As before alpha was in STIC's space.
    rates = itertools.product(search.RATES, repeat=2)
    for trial in (trial for trial in fewer if trial["method"] == "stic"):
        trial["settings"] = dict(
            zip(("stage1.learning_rate", "stage2.learning_rate"), next(rates), strict=True)
        )
    found.write_text(json.dumps({**written, "trials": fewer}))
    ran.clear()
    assert search.main(["--jobs", "1", "--output", str(tmp_path / "more")]) == 0
    assert ran == list(search.SPACES) * 2
    again = json.loads(found.read_text())["trials"]
    assert len(again) == search.BUDGET * len(search.SPACES)
    assert again[0]["settings"]["stage1.alpha"] == 1 / 1024  # the method's own, which it was
    for name in search.SPACES:
        own = [json.dumps(trial["settings"]) for trial in again if trial["method"] == name]
        assert len(own) == len(set(own))
    for point in search.AIMED["stic"]:
        assert point in [trial["settings"] for trial in again]

    found.write_text(json.dumps({**written, "model": "0" * 64}))
    ran.clear()
    assert search.main(["--jobs", "1", "--output", str(tmp_path / "other")]) == 0
    assert len(ran) == search.BUDGET * len(search.SPACES)


def test_a_configuration_that_fails_is_never_chosen() -> None:
    trials = [search.Trial("sft", {"a": n}, average) for n, average in enumerate([None, 3.0, None, 5.0, 5.0])]
    best = search.best(trials, "sft")
    assert best is not None and best.settings == {"a": 3}
    assert search.best(trials[:1], "sft") is None
    assert "failed" in search.table(trials[:1])[2]


@pytest.mark.parametrize("name", search.SPACES)
def test_every_space_has_the_preset_and_as_many_points_as_the_budget(name: str) -> None:
    found = search.configurations(name, search.BUDGET)
    assert found[0] == search.preset(name)
    assert len({json.dumps(one) for one in found}) == search.BUDGET
    assert all(one in list(search.points(name)) for one in found)
    assert search.configurations(name, 3) == found[:3]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["-o", "rows=pocket"], "its own rows"),
        (["-o", "rows.chartqa=pocket"], "its own rows"),
        (["--budget", "99"], "between 1 and"),
        (["--methods", "stik"], 'did you mean "stic"'),
    ],
)
def test_what_a_search_cannot_do_is_refused(
    extra: list[str], said: str, splits: Splits, found: Path, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    assert search.main(argv(tmp_path / "out", *extra)) == 2
    assert said in capsys.readouterr().err
    assert splits == []


def test_a_run_that_read_other_rows_ends_the_search(
    found: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Even if a command were put together wrongly, no number would come of it."""
    command = ["run", "--method", "baseline", "--benchmarks", "chartqa", "--limit", "1", "--quiet"]
    with pytest.raises(Exception, match="was run on the rows"):
        search._average([*command, "-o", "rows=pocket"], "baseline", tmp_path / "other")
    with pytest.raises(UserError, match="did not begin"):
        search._average([*command, "-o", "rows=nowhere"], "baseline", tmp_path / "none")
