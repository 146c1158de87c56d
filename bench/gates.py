"""What the pocket model has to hold before it is shipped: `python -m bench.gates --model DIR`.

Validation rows asked directly and on perfect descriptions, descriptions held against what was drawn, and
exercises in words that no training has drawn. Prints the figures and every gate with its verdict as Markdown;
`--out FILE` writes them too. Exit code 1 if a gate is missed that is no mere aim. `--record` writes the
figures to `gates.json` beside the weights, with their digest; a test holds the shipped weights against it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from textwrap import shorten
from typing import Any

from bench import descriptions, reading
from bench.reading import Asked
from stic_eval import registry
from stic_eval.contracts.benchmark import Benchmark
from stic_eval.models.hf_model import HFModel
from stic_eval.pocket import drills
from stic_eval.pocket.drills import Turn
from stic_eval.pocket.questions import held_out
from stic_eval.pocket.rows import MODEL_DIR
from stic_eval.pocket.tasks import MAKERS
from stic_eval.pocket.world import Split
from stic_eval.report import score_guards
from stic_eval.store import atomic_write, file_sha256
from stic_eval.types import Generation, Message, Request

DIRECT, CIRCULAR, AVERAGE = (20.0, 85.0), (25.0, 75.0), (45.0, 80.0)  # of scores, in percent
MARGIN = 10.0  # points above the best constant answer
CONSTANTS = 50  # answers that are tried as such
READS = 90.0  # on a perfect description alone
CAREFUL, PLAIN = 97.0, 60.0  # recall of descriptions: at least, at most
EXERCISES: Mapping[str, tuple[Callable[[random.Random], list[Turn]], float]] = {
    "rotation": (drills.rotations, 95.0),
    "two hops": (drills.facts, 90.0),
}
RECORD = "gates.json"
SPOILT = ("misleading prompts", "plain prompts, low resolution", "plain prompts, colour jitter")


@dataclass(frozen=True)
class Column:
    """A benchmark's figures in percent.

    Attributes:
        title: As printed.
        score: Direct, as the program computes it: MMBench's is circular.
        rows: Direct accuracy of rows.
        constant: What the best constant answer scores, and that answer.
        guard: Why the score tells nothing, if so.
        description: Accuracy of rows on a perfect description without the picture.
        both: The same with the picture.
        shared: Direct accuracy of rows in shared wordings, and their number.
        held_out: The same in wordings that are held out.
    """

    title: str
    score: float
    rows: float
    constant: tuple[float, str]
    guard: str
    description: float
    both: float
    shared: tuple[float, int]
    held_out: tuple[float, int]


@dataclass(frozen=True)
class Gate:
    """A figure, and the bounds that it has to lie within.

    Attributes:
        name: As printed.
        value: What was measured.
        least: Bound, itself allowed.
        most: The same from above.
        aim: Whether weights may be shipped that miss it.
    """

    name: str
    value: float
    least: float = float("-inf")
    most: float = float("inf")
    aim: bool = False

    @property
    def held(self) -> bool:
        """Whether it does."""
        return self.least <= self.value <= self.most

    @property
    def verdict(self) -> str:
        """In words."""
        return "held" if self.held else "falls short of the aim" if self.aim else "**missed**"


# ---------------------------------------------------------------- measuring


def column(model: HFModel, name: str, n: int, split: Split) -> Column:
    """A benchmark's figures on its first n rows; on twice as many of MMBench, as four are one question."""
    asked = reading.ask(model, name, 2 * n if name == "mmbench" else n, split)
    direct, benchmark = asked["picture"], registry.benchmarks().get(name)
    assert direct.summary.score is not None
    return Column(
        benchmark.title,
        direct.summary.score,
        direct.accuracy,
        best_constant(benchmark, direct),
        score_guards.guard([direct.summary]),
        asked["description"].accuracy,
        asked["both"].accuracy,
        _of_wording(direct, held=False),
        _of_wording(direct, held=True),
    )


def _of_wording(asked: Asked, held: bool) -> tuple[float, int]:
    scores = [
        record.score or 0.0
        for row, record in zip(asked.rows, asked.records, strict=True)
        if held_out(row.question) is held
    ]
    return (100 * mean(scores) if scores else float("nan"), len(scores))


def best_constant(benchmark: Benchmark, asked: Asked) -> tuple[float, str]:
    """What the best answer would score if every row got it: of letters, and of what is right most often."""
    counts = Counter(
        text for row in asked.rows for text in (*_answers(row.target), *"ABCD"[: len(row.choices)])
    )
    found = (0.0, "")
    for text, _ in counts.most_common(CONSTANTS):
        verdicts = [benchmark.score(row, text) for row in asked.rows]
        records = [
            replace(record, response=text, answer=v.answer, score=v.value, weight=v.weight)
            for record, v in zip(asked.records, verdicts, strict=True)
        ]
        found = max(found, (benchmark.aggregate(records).score or 0.0, text))
    return found


def _answers(target: object) -> Iterator[str]:
    """Texts that are right for a target: itself, each of several, or key facts one by one."""
    if isinstance(target, str):
        yield from (fact.partition("<OF>")[0] for fact in target.split("<AND>"))
    elif isinstance(target, Sequence):
        yield from (text for text in target if isinstance(text, str))


def exercise(model: HFModel, skill: str, n: int) -> float:
    """Right answers to a kind of exercise in words, in percent: one turn of each of n conversations."""
    make = EXERCISES[skill][0]
    requests: list[Request] = []
    right: list[str] = []
    for seed in range(20 * n):
        rng = random.Random(f"gates/{skill}/{seed}")
        talk = make(rng)
        last = rng.randrange(len(talk))
        if talk[last].skill != skill or len(requests) == n:
            continue
        said = [
            message
            for turn in talk[:last]
            for message in (Message("user", turn.question), Message("assistant", turn.answer))
        ]
        messages = (*said, Message("user", talk[last].question))
        requests.append(Request(messages, (), Generation(max_new_tokens=8)))
        right.append(talk[last].answer)
    answers = {id(request): response.text.strip() for request, response in model.generate(requests)}
    hits = [answers[id(request)] == answer for request, answer in zip(requests, right, strict=True)]
    return 100 * mean(hits)


# ---------------------------------------------------------------- judging


def gates(
    columns: Mapping[str, Column], said: Mapping[str, Mapping[str, float]], exercises: Mapping[str, float]
) -> list[Gate]:
    """All that has to hold, and all that is aimed at.

    Args:
        columns: Benchmark -> its figures.
        said: Condition -> precision and recall of descriptions, as `bench.descriptions` has them.
        exercises: Skill -> share of right answers in percent.
    """
    found = []
    for name, one in columns.items():
        circular = name == "mmbench"
        least, most = CIRCULAR if circular else DIRECT
        found.append(Gate(f"{one.title}, direct{' (circular)' if circular else ''}", one.score, least, most))
        found.append(Gate(f"{one.title}, above a constant answer", one.score - one.constant[0], MARGIN))
        found.append(Gate(f"{one.title}, marked columns", float(bool(one.guard)), most=0))
        found.append(Gate(f"{one.title}, description alone", one.description, READS, aim=True))
    every = columns.values()
    found.append(Gate("average, direct", mean(one.score for one in every), *AVERAGE, aim=True))
    found.append(Gate("average, description alone", mean(o.description for o in every), READS, aim=True))
    found.append(
        Gate("recall, step-by-step prompt", said["step-by-step prompt"]["recall"], CAREFUL, aim=True)
    )
    plain = said["plain prompts"]
    found.append(Gate("recall, plain prompts", plain["recall"], most=PLAIN, aim=True))
    for name in SPOILT:
        less = plain["precision"] - said[name]["precision"]
        found.append(Gate(f"precision below plain prompts', {name}", less, 0.1, aim=True))
    for skill, value in exercises.items():
        found.append(Gate(f"exercise, {skill}", value, EXERCISES[skill][1], aim=True))
    return found


def page(
    columns: Mapping[str, Column], said: Mapping[str, Mapping[str, float]], exercises: Mapping[str, float]
) -> str:
    """The figures and the gates as Markdown."""
    lines = [
        "| | direct | rows | best constant answer | description | both | shared wordings | held out |",
        "|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    for one in columns.values():
        constant = f"{one.constant[0]:.1f} ({shorten(one.constant[1], 24, placeholder=' ...')})"
        wordings = [f"{value:.1f} ({n})" for value, n in (one.shared, one.held_out)]
        figures = [f"{value:.1f}" for value in (one.score, one.rows)]
        reads = [f"{value:.1f}" for value in (one.description, one.both)]
        lines.append(f"| {' | '.join([one.title, *figures, constant, *reads, *wordings])} |")
    every = list(columns.values())
    averages = [f"{mean(getattr(one, name) for one in every):.1f}" for name in ("score", "rows")]
    averages.append(f"{mean(one.constant[0] for one in every):.1f}")
    averages += [f"{mean(getattr(one, name) for one in every):.1f}" for name in ("description", "both")]
    averages += [f"{mean(getattr(one, name)[0] for one in every):.1f}" for name in ("shared", "held_out")]
    lines += [f"| {' | '.join(['average', *averages])} |", ""]
    lines += ["| descriptions under | precision | recall |", "|---|---:|---:|"]
    lines += [f"| {under} | {f['precision']:.1f} | {f['recall']:.1f} |" for under, f in said.items()]
    lines += ["", "| gate | measured | at least | at most | |", "|---|---:|---:|---:|---|"]
    found = gates(columns, said, exercises)
    for gate in found:
        bounds = [f"{bound:g}" if abs(bound) != float("inf") else "" for bound in (gate.least, gate.most)]
        lines.append(f"| {gate.name} | {gate.value:.1f} | {' | '.join(bounds)} | {gate.verdict} |")
    for what, aim in (("gates are held", False), ("aims are reached", True)):
        those = [gate.held for gate in found if gate.aim is aim]
        lines += ["", f"{sum(those)} of {len(those)} {what}."]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- beside the weights


def record(
    folder: Path, split: Split, n: int,
    columns: Mapping[str, Column], said: Mapping[str, Mapping[str, float]], exercises: Mapping[str, float],
) -> None:  # fmt: skip
    """Writes the figures of weights into their folder.

    Args:
        folder: Of the weights.
        split: Whose rows and pictures.
        n: How many of each.
        columns: As for `gates`.
        said: The same.
        exercises: The same.
    """
    data = {
        "sha256": file_sha256(folder / "model.safetensors"),
        "split": split,
        "n": n,
        "columns": {name: asdict(one) for name, one in columns.items()},
        "descriptions": said,
        "exercises": exercises,
        "gates": {gate.name: gate.verdict for gate in gates(columns, said, exercises)},
    }
    atomic_write(folder / RECORD, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def recorded(folder: Path) -> tuple[str, dict[str, str], list[Gate]]:
    """The digest of the weights that figures were recorded of, verdicts as written, and the gates of now."""
    data = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return data["sha256"], data["gates"], gates(*figures(folder))


Figures = tuple[dict[str, Column], dict[str, dict[str, float]], dict[str, float]]


def figures(folder: Path) -> Figures:
    """What was recorded beside weights: benchmarks, descriptions, exercises."""
    data = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    pairs = ("constant", "shared", "held_out")
    columns = {}
    for name, one in data["columns"].items():
        values: dict[str, Any] = one | {key: tuple(one[key]) for key in pairs}
        columns[name] = Column(**values)
    return columns, data["descriptions"], data["exercises"]


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m bench.gates", description=__doc__)
    parser.add_argument("--model", default="pocket", help="`pocket`, or a folder (default: %(default)s)")
    parser.add_argument("--split", choices=("val", "test"), default="val", help="default: %(default)s")
    parser.add_argument("-n", type=int, default=100, help="rows, pictures, exercises (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="Markdown file for the same")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD} beside the weights")
    args = parser.parse_args()
    model = HFModel.load(args.model)
    columns = {name: column(model, name, args.n, args.split) for name in MAKERS}
    said = descriptions.measure(model, args.n, args.split)
    exercises = {skill: exercise(model, skill, args.n) for skill in EXERCISES}
    text = page(columns, said, exercises)
    print(text, end="")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text, encoding="utf-8")
    if args.record:
        folder = MODEL_DIR if args.model == "pocket" else Path(args.model)
        record(folder, args.split, args.n, columns, said, exercises)
    return int(not all(gate.held or gate.aim for gate in gates(columns, said, exercises)))


if __name__ == "__main__":
    sys.exit(main())
