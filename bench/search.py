"""Steps and rates of all methods, chosen on validation rows: `python -m bench.search`.

Each method that trains is given the same number of configurations: the preset of the embedded model as it is,
then draws from the method's own space, without repetition. Each is a run of `stic-eval run` on the embedded
model and the rows `pocket:val`; the one with the highest validation average is chosen, answering as the
method answers, the mean over the training seeds. Test rows are never read: the rows are no option of this
command, and what a run has read is looked at again in its folder.

What is done is kept in `search.jsonl` of the output folder and not run again by the same command, unless the
program has changed; the runs' own cache has the rest. A search of all methods with all defaults writes
`bench/results/search.json`; any other prints its table alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stic_eval import config, registry
from stic_eval.contracts.method import Data
from stic_eval.errors import RunError, UserError
from stic_eval.report import runs
from stic_eval.store import append_jsonl, atomic_write, content_key, file_sha256, read_jsonl
from stic_eval.training.prompt_sets import load_prompts

ROOT = Path(__file__).parent.parent
OUT = Path(__file__).parent / "results" / "search.json"
ROWS, BUDGET, SEEDS = "pocket:val", 8, (0, 1)
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
_TRAINING = {"training.learning_rate": RATES, "training.epochs": (1, 3)}
# Method -> path -> values. Rates and passes for all; what else decides how far a method moves for some.
SPACES: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "stic": {"stage1.learning_rate": RATES, "stage2.learning_rate": RATES},
    "seva": {**_TRAINING, "pairs.step": (200, 300, 500, 800)},
    "sima": _TRAINING,
    "csr": {**_TRAINING, "iterations": (1, 3)},
    "rlaif_v_lite": {**_TRAINING, "iterations": (1, 2)},
    "positive_only": {"stage1.learning_rate": RATES, "stage2.learning_rate": RATES},
    "sft": {"stage2.learning_rate": RATES, "stage2.epochs": (1, 3)},
}
Settings = dict[str, float]


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
    limit: int | None = None
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
    """

    method: str
    settings: Settings
    average: float | None


def points(method: str) -> Iterator[Settings]:
    """All points of a method's space."""
    space = SPACES[method]
    return (dict(zip(space, values, strict=True)) for values in itertools.product(*space.values()))


def preset(method: str) -> Settings:
    """The embedded model's preset at the paths of the method's space."""
    options = config.load(flags={"methods": (method,)}).method_options[method]
    found: Settings = {}
    for path in SPACES[method]:
        value: Any = options
        for part in path.split("."):
            value = value[part]
        found[path] = value
    return found


def configurations(method: str, budget: int) -> list[Settings]:
    """The preset, then other points of the space in an order that the method's name alone decides."""
    first = preset(method)
    others = [point for point in points(method) if point != first]
    return [first, *random.Random(f"search {method}").sample(others, len(others))][:budget]


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


def run(search: Search, folder: Path) -> list[Trial]:
    """All trials, those that are known among them; each is written down as soon as it is done.

    One that failed is not: the same command tries it again.
    """
    log, program = folder / "search.jsonl", _program()
    known = {row["key"]: row for row in read_jsonl(log)}
    trials = []
    for method in search.methods:
        for settings in configurations(method, search.budget):
            command = argv(search, method, settings)
            key = content_key([program, command])
            average = known.get(key, {}).get("average")
            if average is None:
                average = _average(command, method, folder / f"{method}-{key[:8]}")
                if average is not None:
                    row = {"key": key, "method": method, "settings": settings, "average": average}
                    append_jsonl(log, [row])
            trials.append(Trial(method, settings, average))
            print(_line(trials[-1]), flush=True)
    return trials


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
    read = config.read_file(folder / "config.yaml").get("rows")
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


def _program() -> str:
    """Content key of what decides a run's outcome beside its command: all source, and the model."""
    files = [
        path
        for folder in ("stic_eval", "methods", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".yaml", ".safetensors", ".json")
    ]
    return content_key([[path.relative_to(ROOT).as_posix(), file_sha256(path)] for path in files])


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
    parser.add_argument("--limit", type=int, help="validation rows of each benchmark")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "search", help="folder of the runs")
    parser.add_argument("-o", "--option", action="append", default=[], help="PATH=VALUE for all runs")
    given = parser.parse_args(list(arguments))
    try:
        search = Search(
            tuple(given.methods.split(",")) if given.methods else tuple(SPACES), given.budget,
            tuple(given.seed) if given.seed else SEEDS, given.benchmarks, given.limit, tuple(given.option),
        )  # fmt: skip
        trials = run(search, given.output)
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    print("\n".join(["", *table(trials)]))
    if search.full:
        rows = [{"method": t.method, "settings": t.settings, "average": t.average} for t in trials]
        found = {"rows": ROWS, "budget": search.budget, "seeds": search.seeds, "trials": rows}
        atomic_write(OUT, json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
