"""Everything in `results/` made anew: `make results`, or `python -m bench.results [PART ...]`.

Parts are done in order, those that train on one thread each, as many at a time as there are cores; what they
have trained and answered is in the cache, from which the main tables are then put together. A part that is
complete is skipped unless the program, the model or its command has changed since; what was killed goes on
where it was, and loses a stage at most. Pages are written behind parts that did not fail.

`--list` says what is complete, and how long it took. `make results ARGS="components"` makes one part.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import IO, Any, Literal

from bench.committed import (
    ABLATIONS,
    ABLATIONS_FOLDER,
    CONTROLS,
    FEW,
    METHODS,
    POCKET,
    RIVALS,
    ROOT,
    SEEDS,
    program,
)
from stic_eval.store import atomic_write, content_key, file_sha256

SCRATCH = ROOT / "build" / "results"  # what is complete, logs, and runs of single seeds
Command = tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A piece of `results/`.

    Attributes:
        name: What it is called on the command line.
        commands: One after the other; the first word is `stic-eval`, or a module of this package.
        makes: A file that is there afterwards.
        kind: `seed` and `run` take one core, `grid` all of them; a `page` is made every time.
        stale: Files and folders that are removed before.
    """

    name: str
    commands: tuple[Command, ...]
    makes: Path
    kind: Literal["seed", "run", "grid", "page"]
    stale: tuple[Path, ...] = ()


def parts(jobs: int) -> list[Part]:
    """All of them, in order.

    Args:
        jobs: Workers of a grid.
    """
    return [*_seeds(), *_runs(), *_grids(jobs), *_measured(), *_pages()]


def _seeds() -> Iterator[Part]:
    """Trainings and answers of one seed: two at a time are faster than one on two threads."""
    for seed in SEEDS:
        yield _seed(f"controls-{seed}", CONTROLS, seed)
    for seed in FEW:
        for method in sorted(set(RIVALS) - set(CONTROLS)):
            yield _seed(f"{method}-{seed}", (method,), seed)


def _seed(name: str, methods: Sequence[str], seed: int) -> Part:
    folder = SCRATCH / name
    return Part(name, (_run(methods, (seed,), folder),), folder / "scores.json", "seed", _stale(folder))


def _stale(folder: Path) -> tuple[Path, ...]:
    """Of a run: settings of an earlier version would be kept, and so would curves of what it trained."""
    return (folder / "config.yaml", folder / "scores.json", folder / "training")


def _run(methods: Sequence[str], seeds: Sequence[int], folder: Path) -> Command:
    each = [part for seed in seeds for part in ("--seed", str(seed))]
    output = str(folder.relative_to(ROOT))
    return ("stic-eval", "run", "--method", ",".join(methods), *each, "--output", output, "--quiet")


def _runs() -> Iterator[Part]:
    figures = tuple(
        ("stic-eval", "plot", str(POCKET.relative_to(ROOT)), "--kind", kind, "--format", "svg")
        for kind in ("gains", "progression", "training")
    )
    for name, methods, seeds, folder, more in (
        ("main", CONTROLS, SEEDS, POCKET, figures),
        ("methods", RIVALS, FEW, METHODS, ()),
    ):
        commands = (_run(methods, seeds, folder), *more)
        yield Part(name, commands, folder / "scores.json", "run", _stale(folder))


def _grids(jobs: int) -> Iterator[Part]:
    for name in ABLATIONS:
        made = ABLATIONS_FOLDER / name / "scores.json"
        yield Part(name, (("ablations", name, "--jobs", str(jobs)),), made, "grid")


def _measured() -> Iterator[Part]:
    out = str(POCKET.relative_to(ROOT))
    yield Part("descriptions", (("descriptions", "--out", out),), POCKET / "descriptions.json", "run")
    yield Part("selfjudge", (("selfjudge",),), METHODS / "selfjudge.json", "run")
    yield Part("counting", (("counting",),), METHODS / "counting.json", "run")


def _pages() -> Iterator[Part]:
    folders = tuple(str(folder.relative_to(ROOT)) for folder in (POCKET, METHODS))
    yield Part("wordings", (("wordings", *folders),), POCKET / "wordings.md", "page")
    for name, page in (
        ("methods_md", ROOT / "docs" / "methods.md"),
        ("evidence", ROOT / "results" / "README.md"),
        ("pocket_md", ROOT / "docs" / "pocket.md"),
        ("benchmarks_md", ROOT / "docs" / "benchmarks.md"),
        ("screenshots", ROOT / "docs" / "images" / "report-light.png"),  # needs Chromium
        ("readme", ROOT / "README.md"),
    ):
        yield Part(name, ((name,),), page, "page")


# ---------------------------------------------------------------- what is complete


def _state() -> dict[str, dict[str, Any]]:
    path = SCRATCH / "parts.json"
    found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


_WRITING = threading.Lock()


def _complete(part: Part, key: str, seconds: float) -> None:
    with _WRITING:
        known = _state() | {part.name: {"key": key, "seconds": round(seconds, 1)}}
        atomic_write(SCRATCH / "parts.json", json.dumps(known, indent=1) + "\n")


def key_of(part: Part, source: str) -> str:
    """What a part is complete for: its commands, the program, and what it runs of this package."""
    modules = {command[0] for command in part.commands} - {"stic-eval"}
    return content_key([source, part.commands, [file_sha256(_module(name)) for name in sorted(modules)]])


def _module(name: str) -> Path:
    return Path(__file__).parent / f"{name}.py"


def is_complete(part: Part, key: str, known: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether nothing is to do."""
    return part.kind != "page" and part.makes.is_file() and known.get(part.name, {}).get("key") == key


# ---------------------------------------------------------------- doing


class Workers:
    """Commands that are under way, so that they can be ended together."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.stopped = False
        self._running: set[subprocess.Popen[bytes]] = set()

    def do(self, part: Part, key: str, threads: int | None) -> bool:
        """Does a part, on so many threads if that is to be said; whether it went well."""
        if self.stopped:
            return False
        start = time.monotonic()
        log = SCRATCH / f"{part.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        for path in part.stale:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
        with log.open("wb") as out:
            for command in part.commands:
                code = self._run(command, environment, out)
                if code and not self.stopped:
                    print(f"{part.name}: {shlex.join(command)}: exit code {code}; see {log}", flush=True)
                if code:
                    return False
        seconds = time.monotonic() - start
        _complete(part, key, seconds)
        print(f"{part.name}: {seconds / 60:.1f} minutes", flush=True)
        return True

    def _run(self, command: Command, environment: Mapping[str, str], out: IO[bytes]) -> int:
        process = subprocess.Popen(
            _argv(command), cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT
        )
        self._running.add(process)
        try:
            if self.stopped:  # while it was started
                process.terminate()
            return process.wait()
        finally:
            self._running.discard(process)

    def stop(self) -> None:
        """Ends what is under way: stages that were finished are kept."""
        self.stopped = True
        for process in list(self._running):
            process.terminate()


def _argv(command: Command) -> list[str]:
    if command[0] == "stic-eval":
        return [str(Path(sys.executable).parent / "stic-eval"), *command[1:]]
    return [sys.executable, "-m", f"bench.{command[0]}", *command[1:]]


def make(wanted: Sequence[Part], workers: Workers) -> list[str]:
    """Makes parts that are not complete; names of those that failed, or that are left for want of one."""
    source = program()
    failed: list[str] = []
    for together in _batches(wanted):
        if failed and together[0].kind == "page":
            failed += [part.name for part in together]
            continue
        known, keys = _state(), {part.name: key_of(part, source) for part in together}
        todo = [part for part in together if not is_complete(part, keys[part.name], known)]
        jobs = max(1, min(workers.jobs, len(todo))) if together[0].kind in ("seed", "run") else 1
        threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
        with ThreadPoolExecutor(jobs) as pool:
            try:
                done = list(pool.map(workers.do, todo, (keys[p.name] for p in todo), repeat(threads)))
            except BaseException:
                workers.stop()
                raise
        failed += [part.name for part, well in zip(todo, done, strict=True) if not well]
    return failed


def _batches(wanted: Sequence[Part]) -> Iterator[list[Part]]:
    """Neighbours of one kind, which do not need each other."""
    batch: list[Part] = []
    for part in wanted:
        if batch and batch[0].kind != part.kind:
            yield batch
            batch = []
        batch.append(part)
    if batch:
        yield batch


def listed(every: Sequence[Part]) -> Iterator[str]:
    """A line for each part, and the time of all that are complete."""
    source, known, total = program(), _state(), 0.0
    for part in every:
        seconds = known.get(part.name, {}).get("seconds", 0.0)
        state = "complete" if is_complete(part, key_of(part, source), known) else "to do"
        if part.kind == "page":
            state = "made every time"
        total += seconds
        yield f"{part.name:22} {state:16} {f'{seconds / 60:6.1f} minutes' if seconds else ''}".rstrip()
    yield f"{'in all':39} {total / 60:6.1f} minutes of parts, up to {os.cpu_count()} at a time"


def _end(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str]) -> int:
    """Makes what is named, or everything."""
    cores = os.cpu_count() or 1
    every = parts(cores)
    names = [part.name for part in every]
    parser = argparse.ArgumentParser(prog="python -m bench.results", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="PART", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--list", action="store_true", help="what is complete; makes nothing")
    given = parser.parse_args(argv)
    unknown = sorted(set(given.names) - set(names))
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; --list shows all")
    if given.list:
        print("\n".join(listed(every)))
        return 0
    signal.signal(signal.SIGTERM, _end)
    wanted = [part for part in every if not given.names or part.name in given.names]
    try:
        failed = make(wanted, Workers(cores))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    if failed:
        print(f"not made: {', '.join(failed)}; the same command tries again", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
