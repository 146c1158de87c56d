"""`make results`: what is complete is skipped, what fails stops nobody else, what is killed goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import results
from bench.committed import ABLATIONS, FEW, METHODS, POCKET, SEEDS
from bench.results import Part

Make = Callable[..., Part]


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Parts whose commands are Python, in a project of their own."""
    for name, value in (("ROOT", tmp_path), ("SCRATCH", tmp_path / "build"), ("program", lambda: "source")):
        monkeypatch.setattr(results, name, value)
    monkeypatch.setattr(results, "_argv", lambda command: [sys.executable, "-c", command[1]])

    def make(name: str, code: str = "", kind: str = "seed", stale: tuple[Path, ...] = ()) -> Part:
        code = code or f"open({name!r}, 'a').write('made ')"
        return Part(name, (("stic-eval", code),), tmp_path / name, kind, stale)  # type: ignore[arg-type]

    return make


def test_what_is_complete_is_skipped_until_the_program_changes(
    part: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [part("one"), part("two"), part("grid", kind="grid"), part("page", kind="page")]

    def made() -> list[int]:
        return [(tmp_path / one.name).read_text().count("made") for one in every]

    assert results.make(every, results.Workers(2)) == []
    assert results.make(every, results.Workers(2)) == []
    assert made() == [1, 1, 1, 2]  # a page takes seconds
    (tmp_path / "two").unlink()
    assert results.make(every, results.Workers(2)) == []
    assert made() == [1, 1, 1, 3]
    assert [line.split()[1] for line in results.listed(every[:3])][:3] == ["complete"] * 3
    monkeypatch.setattr(results, "program", lambda: "another")
    assert [line.split()[1:3] for line in results.listed(every[:3])][:3] == [["to", "do"]] * 3
    assert results.make(every, results.Workers(2)) == []
    assert made() == [2, 2, 2, 4]


def test_a_part_that_fails_stops_the_pages_alone(
    part: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = part("wrong", "print('out of luck'); raise SystemExit(1)")
    every = [wrong, part("right"), part("grid", kind="grid"), part("page", kind="page")]
    assert results.make(every, results.Workers(1)) == ["wrong", "page"]
    assert {one.name for one in every if (tmp_path / one.name).exists()} == {"right", "grid"}
    assert "exit code 1; see" in capsys.readouterr().out
    assert "out of luck" in (tmp_path / "build" / "wrong.log").read_text()
    assert results.make([part("wrong"), *every[1:]], results.Workers(1)) == []
    assert (tmp_path / "right").read_text().count("made") == 1


def test_two_at_a_time_share_the_cores_and_leave_nothing_of_before(part: Make, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "curve").touch()
    code = "import os; print(os.environ.get('OMP_NUM_THREADS', 'any'), os.path.exists('old'))"
    both = [part("one", code, "run", (tmp_path / "old", tmp_path / "none")), part("two", code, "run")]
    assert results.make(both, results.Workers(2)) == []
    share = max(1, (os.cpu_count() or 1) // 2)
    assert (tmp_path / "build" / "one.log").read_text() == f"{share} False\n"


def test_ending_it_ends_what_is_under_way_and_takes_nothing_down_as_complete(tmp_path: Path) -> None:
    code = f"""
import signal, sys
from pathlib import Path
from bench import results
from bench.results import Part
folder = Path({str(tmp_path)!r})
results.ROOT, results.SCRATCH, results.program = folder, folder / "build", lambda: "source"
results._argv = lambda command: [sys.executable, "-c", command[1]]
wait = "import os, time; open(f'{{os.getpid()}}.started', 'w').close(); time.sleep(600)"
results.parts = lambda jobs: [Part(name, (("stic-eval", wait),), folder / name, "seed") for name in "abc"]
results.os.cpu_count = lambda: 2
sys.exit(results.main([]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    while len(found := list(tmp_path.glob("*.started"))) < 2 and process.poll() is None:
        pass
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130
    assert len(found) == len(list(tmp_path.glob("*.started"))) == 2
    for path in found:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.stem), 0)
    assert not (tmp_path / "build" / "parts.json").exists()


def test_all_that_is_committed_is_made_with_its_seeds() -> None:
    every = {part.name: part for part in results.parts(2)}
    assert len(every) == len(results.parts(2))
    assert set(ABLATIONS) <= set(every)
    assert ABLATIONS["components"].seeds == SEEDS and len(SEEDS) == 5 and len(FEW) == 3
    for name, folder, seeds in (("main", POCKET, SEEDS), ("methods", METHODS, FEW)):
        command = every[name].commands[0]
        assert [int(command[i + 1]) for i, word in enumerate(command) if word == "--seed"] == list(seeds)
        assert every[name].makes == folder / "scores.json"
    assert {f"{method}-{seed}" for method in ("seva", "sima", "csr", "rlaif_v_lite") for seed in FEW} <= set(
        every
    )
    modules = {command[0] for part in every.values() for command in part.commands} - {"stic-eval"}
    assert all(results._module(name).is_file() for name in modules)


def test_a_part_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        results.main(["component"])
    assert error.value.code == 2
    assert "no part component" in capsys.readouterr().err
