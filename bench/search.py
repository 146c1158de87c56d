"""Steps and rates of all methods, chosen on validation rows: `python -m bench.search`.

Each method that trains is given the same number of configurations: the preset of the embedded model as it is,
then draws from the method's own space, without repetition. Each is a run of `stic-eval run` on the embedded
model and the first rows of `pocket:val`; the one with the highest validation average is chosen, answering as
the method answers. Test rows are never read: the rows are no option of this command, and what a run has read
is looked at again in its folder.

Methods take turns, a configuration each, as many at a time as there are cores, one thread each. The search
ends when all are done or after `--hours`, and then goes by the configurations that every method has had. What
is done is kept in `search.jsonl` of the output folder and not run again by the same command, unless the
program has changed; the runs' own cache has the rest. A search of all methods with all defaults writes
`results/pocket/search.json`, and goes on from what is there if the model is the same: a larger budget or a
wider space runs what is new alone. Any other search prints its table and knows nothing of that file.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.committed import POCKET, ROOT, program
from stic_eval import config, config_layers, registry
from stic_eval.contracts.method import Data
from stic_eval.errors import RunError, UserError
from stic_eval.pocket.rows import MODEL_DIR
from stic_eval.report import runs
from stic_eval.store import append_jsonl, atomic_write, content_key, file_sha256, read_jsonl
from stic_eval.training.prompt_sets import load_prompts

OUT = POCKET / "search.json"
# Of each method, some two hours in all on two cores of 70 GFLOP/s together.
ROWS, BUDGET, SEEDS, LIMIT, HOURS = "pocket:val", 8, (0,), 60, 2.0
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
_TRAINING = {"training.learning_rate": RATES, "training.epochs": (1, 3)}
# Method -> path -> values. Rates and passes for all; what else decides how far a method moves for some.
SPACES: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "stic": {
        "stage1.learning_rate": RATES,
        "stage2.learning_rate": RATES,
        "stage1.alpha": (1 / 1024, 0.1, 1.0),
    },
    "seva": {**_TRAINING, "pairs.step": (200, 300, 500, 800)},
    "sima": _TRAINING,
    "csr": {**_TRAINING, "iterations": (1, 3)},
    "rlaif_v_lite": {**_TRAINING, "iterations": (1, 2)},
    "positive_only": {"stage1.learning_rate": RATES, "stage2.learning_rate": RATES},
    "sft": {"stage2.learning_rate": RATES, "stage2.epochs": (1, 3)},
}
Settings = dict[str, float]
# In place of draws: the first six of STIC had 3e-4 or more in stage 1, and the best of them had forgotten
# there how to describe (docs/pocket.md).
AIMED: Mapping[str, tuple[Settings, ...]] = {
    "stic": tuple(
        {"stage1.learning_rate": 1e-3, "stage2.learning_rate": 1e-4, "stage1.alpha": alpha}
        for alpha in (1.0, 0.1)
    )
}


@dataclass(frozen=True)
class Search:
    """What is searched, and on how much.

    Attributes:
        methods: Whose settings.
        budget: Configurations of each.
        seeds: Training seeds of each configuration.
        benchmarks: Of which the average is taken; `all` or names with commas.
        limit: Rows of each benchmark; None: all.
        options: Further settings of all runs, `PATH=VALUE`.
    """

    methods: tuple[str, ...] = tuple(SPACES)
    budget: int = BUDGET
    seeds: tuple[int, ...] = SEEDS
    benchmarks: str = "all"
    limit: int | None = LIMIT
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.methods:
            if name not in SPACES:
                near = registry.suggest(name, list(SPACES))
                raise UserError(f'--methods: "{name}" has no space here{near}')
            most = len(list(points(name)))
            if not 1 <= self.budget <= most:
                raise UserError(f"--budget: {self.budget} is not between 1 and {most}, the points of {name}")
        for option in self.options:
            if option.partition("=")[0].strip().partition(".")[0] in ("rows", "model", "seeds", "methods"):
                raise UserError(f"-o {option}: a search has its own rows, model, seeds and methods")

    @property
    def full(self) -> bool:
        """Whether it is the search whose outcome is kept in the project."""
        return self == Search()


@dataclass(frozen=True)
class Trial:
    """A configuration and what came of it.

    Attributes:
        method: Registry name.
        settings: Path below the method's own -> value.
        average: Mean of the benchmarks' scores on validation rows in percent; None: its training failed.
        seconds: That it took on its core.
    """

    method: str
    settings: Settings
    average: float | None
    seconds: float = 0.0


@dataclass(frozen=True)
class _Job:
    """A configuration that is to be run: its place in the search, its key, its command and folder."""

    place: int
    key: str
    method: str
    settings: Settings
    command: tuple[str, ...]
    folder: Path


def points(method: str) -> Iterator[Settings]:
    """All points of a method's space."""
    space = SPACES[method]
    return (dict(zip(space, values, strict=True)) for values in itertools.product(*space.values()))


def preset(method: str) -> Settings:
    """The embedded model's preset at the paths of the method's space."""
    options = config.load(flags={"methods": (method,)}).method_options[method]
    return {path: _at(options, path) for path in SPACES[method]}


def configurations(method: str, budget: int, known: Sequence[Settings] = ()) -> list[Settings]:
    """What is tried, in this order.

    Args:
        method: Whose.
        budget: How many.
        known: What an earlier search has tried.

    Returns:
        What is known, or else the preset; what is aimed at something; then points of the space, in an order
        that the method's name and what stands before them decide.
    """
    first = list(known) or [preset(method)]
    first += [point for point in AIMED.get(method, ()) if point not in first]
    others = [point for point in points(method) if point not in first]
    return [*first, *random.Random(f"search {method}").sample(others, len(others))][:budget]


def committed() -> list[Trial]:
    """The trials of the committed search; none if it was of another model.

    A path that a space did not have then was at the method's own default.
    """
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
    if found.get("model") != file_sha256(MODEL_DIR / "model.safetensors"):
        return []
    trials = []
    for row in found["trials"]:
        trial = Trial(**row)
        default = registry.methods().get(trial.method).config().model_dump()
        missing = {path: _at(default, path) for path in SPACES[trial.method] if path not in trial.settings}
        trials.append(replace(trial, settings=trial.settings | missing))
    return trials


def _at(options: Any, path: str) -> Any:
    for part in path.split("."):
        options = options[part]
    return options


def argv(search: Search, method: str, settings: Settings) -> list[str]:
    """The run of one configuration, but for where it goes."""
    found = ["run", "--model", "pocket", "--method", method, "--benchmarks", search.benchmarks, "--quiet"]
    for seed in search.seeds:
        found += ["--seed", str(seed)]
    if search.limit is not None:
        found += ["--limit", str(search.limit)]
    for option in search.options:
        if option.partition(".")[0] not in set(SPACES) - {method}:
            found += ["-o", option]
    for path, value in settings.items():
        found += ["-o", f"{method}.{path}={json.dumps(value)}"]
    return [*found, "-o", f"rows={ROWS}"]


def run(search: Search, folder: Path, jobs: int = 1, hours: float | None = None) -> list[Trial]:
    """Trials, those that are known among them; each is written down as soon as it is done.

    One that failed is not: the same command tries it again.

    Args:
        search: What is searched.
        folder: Of the log and the runs.
        jobs: Workers.
        hours: After which no trial begins, those of stopped calls counted in; None: all are done.

    Returns:
        In the search's order: methods take turns. Of what was not begun there is none.
    """
    log = folder / "search.jsonl"
    known, source = {row["key"]: row for row in read_jsonl(log)}, program()
    kept = committed() if search.full else []
    earlier = {name: [trial for trial in kept if trial.method == name] for name in search.methods}
    order = {
        name: configurations(name, search.budget, [trial.settings for trial in earlier[name]])
        for name in search.methods
    }
    trials: dict[int, Trial] = {}
    todo: list[_Job] = []
    for place in range(search.budget * len(search.methods)):
        number, turn = divmod(place, len(search.methods))
        method = search.methods[turn]
        settings = order[method][number]
        if number < len(earlier[method]):
            trials[place] = earlier[method][number]
            continue
        command = argv(search, method, settings)
        key = content_key([source, command])
        if (row := known.get(key)) is not None:
            trials[place] = Trial(method, settings, row["average"], row["seconds"])
        else:
            run_folder = folder / f"{method}-{key[:8]}"
            todo.append(_Job(place, key, method, settings, tuple(command), run_folder))
    print("\n".join(_line(trial) for trial in trials.values()), end="\n" if trials else "", flush=True)
    end = None
    if hours is not None:
        so_far = sum(trial.seconds for trial in trials.values() if trial not in kept)
        end = time.time() + 3600 * hours - so_far / jobs
    for job, average, seconds in _done([(job, end) for job in todo], jobs):
        trials[job.place] = Trial(job.method, job.settings, average, round(seconds, 1))
        if average is not None:
            row = {"key": job.key, **asdict(trials[job.place])}
            append_jsonl(log, [row])
        print(_line(trials[job.place]), flush=True)
    return [trials[place] for place in sorted(trials)]


def _done(todo: Sequence[tuple[_Job, float | None]], jobs: int) -> Iterator[tuple[_Job, float | None, float]]:
    """What was run, as it comes."""
    if jobs == 1:
        yield from (found for found in map(_try, todo) if found)
        return
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))  # workers read it
    with get_context("spawn").Pool(jobs) as pool:
        yield from (found for found in pool.imap_unordered(_try, todo) if found)


def _try(what: tuple[_Job, float | None]) -> tuple[_Job, float | None, float] | None:
    """Runs a configuration, unless it is too late; its average and seconds."""
    job, end = what
    start = time.time()
    if end is not None and start > end:
        return None
    return job, _average(job.command, job.method, job.folder), time.time() - start


def compared(trials: Sequence[Trial], methods: Sequence[str]) -> list[Trial]:
    """The trials that count: as many of each method as the one with the fewest has."""
    own = {name: [trial for trial in trials if trial.method == name] for name in methods}
    fewest = min(len(each) for each in own.values())
    return [trial for each in own.values() for trial in each[:fewest]]


def best(trials: Sequence[Trial], method: str) -> Trial | None:
    """The method's trial with the highest average, the first of several; None if all failed."""
    done = [trial for trial in trials if trial.method == method and trial.average is not None]
    return max(done, key=lambda trial: trial.average or 0.0, default=None)


def table(trials: Sequence[Trial]) -> list[str]:
    """What is chosen, beside the preset."""
    lines = ["| method | tried | preset | chosen | by |", "| --- | ---: | ---: | ---: | --- |"]
    for method in dict.fromkeys(trial.method for trial in trials):
        own = [trial for trial in trials if trial.method == method]
        found = best(own, method)
        chosen = (_percent(found.average), _written(found.settings)) if found else ("failed", "–")
        lines.append(f"| `{method}` | {len(own)} | {_percent(own[0].average)} | {chosen[0]} | {chosen[1]} |")
    return lines


def _average(command: Sequence[str], method: str, folder: Path) -> float | None:
    """Runs a configuration; its average on validation rows.

    Raises:
        UserError: The run did not begin.
        RunError: It has read other rows than it should.
    """
    from stic_eval.cli.app import invoke

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = invoke([*command, "--output", str(folder)])
    if code == 2:
        raise UserError(f"the run did not begin: stic-eval {' '.join(command)}")
    read = config_layers.read_file(folder / "config.yaml").get("rows")
    if read != {"all": ROWS}:
        raise RunError(f"{folder}: was run on the rows {read}, not on {ROWS}")
    return _mean(runs.load(folder), method) if code == 0 else None


def _mean(scores: runs.Scores, method: str) -> float | None:
    """Mean over benchmarks and seeds, answering as the method answers; None if anything has no score."""
    made = registry.methods().get(method)
    solver = made.plan(made.config(), Data((), (), "", "", load_prompts())).solver
    own = [entry for entry in scores.entries if entry.method == method and entry.solver.name == solver]
    found = [
        entry.summaries[column.name].score if column.name in entry.summaries else None
        for entry in own
        for column in scores.columns
    ]
    values = [score for score in found if score is not None]
    return sum(values) / len(values) if values and len(values) == len(found) else None


def _percent(average: float | None) -> str:
    return "failed" if average is None else f"{average:.1f}"


def _written(settings: Settings) -> str:
    return ", ".join(f"`{path}={value:g}`" for path, value in settings.items())


def _line(trial: Trial) -> str:
    return f"{trial.method}: {_percent(trial.average)} with {_written(trial.settings)}"


def main(arguments: Sequence[str]) -> int:
    """Searches, prints the table, and writes it down if it is the full search."""
    parser = argparse.ArgumentParser(prog="python -m bench.search", description=__doc__.splitlines()[0])
    parser.add_argument("--methods", help="names with commas; default: all")
    parser.add_argument("--budget", type=int, default=BUDGET, help="configurations of each method")
    parser.add_argument("--seed", type=int, action="append", help="training seed; repeat it for more")
    parser.add_argument("--benchmarks", default="all", help="of which the average is taken")
    parser.add_argument("--limit", type=int, default=LIMIT, help="validation rows of each benchmark")
    parser.add_argument("--hours", type=float, default=HOURS, help="after which none is begun")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="workers, of a core each")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "search", help="folder of the runs")
    parser.add_argument("-o", "--option", action="append", default=[], help="PATH=VALUE for all runs")
    given = parser.parse_args(list(arguments))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        search = Search(
            tuple(given.methods.split(",")) if given.methods else tuple(SPACES), given.budget,
            tuple(given.seed) if given.seed else SEEDS, given.benchmarks, given.limit, tuple(given.option),
        )  # fmt: skip
        trials = run(search, given.output, given.jobs, given.hours)
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    counted = compared(trials, search.methods)
    if not counted:
        print("no configuration of every method yet: the same command with more --hours goes on")
        return 0
    print("\n".join(["", *table(counted)]))
    if search.full:
        found = {
            "rows": ROWS, "limit": search.limit, "seeds": search.seeds, "budget": search.budget,
            "compared": len(counted) // len(search.methods),
            "model": file_sha256(MODEL_DIR / "model.safetensors"),
            "core_hours": round(sum(trial.seconds for trial in trials) / 3600, 2),
            "trials": [asdict(trial) for trial in trials],
        }  # fmt: skip
        atomic_write(OUT, json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
