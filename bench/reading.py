"""Whether the pocket model reads: `python -m bench.reading`.

Validation rows of the seven benchmarks asked three ways: with the picture, with a faithful description
instead of it, and with both. Accuracy of rows in percent; MMBench's rotations count one by one.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean

from stic_eval import registry
from stic_eval.evals.runner import Answered, conclude, verdict_of
from stic_eval.evals.sources import samples
from stic_eval.models.hf_model import HFModel
from stic_eval.pocket.language import describe
from stic_eval.pocket.rows import picture
from stic_eval.pocket.tasks import MAKERS
from stic_eval.pocket.world import Split, draw_spec
from stic_eval.types import Generation, Message, Record, Request, Sample, Summary

WAYS = ("picture", "description", "both")
LONGEST = 96  # new tokens: more than a full description has


@dataclass(frozen=True)
class Asked:
    """A benchmark's rows, asked one way.

    Attributes:
        rows: What was asked.
        records: The graded answers, in the rows' order.
        summary: As the program computes it: MMBench's is circular.
    """

    rows: Sequence[Sample]
    records: Sequence[Record]
    summary: Summary

    @property
    def accuracy(self) -> float:
        """Of rows, in percent; what is unscored is wrong."""
        return 100 * mean(record.score or 0.0 for record in self.records)


def description(benchmark: str, sample: Sample, split: Split) -> str:
    """The faithful description of a row's picture.

    Raises:
        RuntimeError: The picture is not what its seed draws now.
    """
    (image,) = sample.images
    seed = int(image.source.rpartition("/")[2])
    kinds = MAKERS[benchmark][1]
    part = (list(MAKERS).index(benchmark), len(MAKERS))
    spec = draw_spec(split, seed, kinds[seed % len(kinds)], part)
    if picture(spec, split, seed).sha256 != image.sha256:
        raise RuntimeError(f"{benchmark}, row {sample.id}: its seed draws another picture than it has")
    return describe(spec)


def ask(model: HFModel, name: str, limit: int, split: Split = "val") -> Mapping[str, Asked]:
    """Asks a benchmark's first rows in each of the ways, all in one go.

    Args:
        model: Who answers.
        name: The benchmark.
        limit: Rows.
        split: Whose rows.
    """
    benchmark = registry.benchmarks().get(name)
    rows = samples(benchmark, f"pocket:{split}", limit=limit)
    how = replace(benchmark.generation, max_new_tokens=LONGEST)
    requests = {way: [_request(way, name, row, split, how) for row in rows] for way in WAYS}
    every = [request for asked in requests.values() for request in asked]
    # Requests are told apart by identity: rows may be equal.
    answers = {id(request): response for request, response in model.generate(every)}
    found = {}
    for way, asked in requests.items():
        answered = [
            Answered(row, answers[id(request)], verdict_of(benchmark, row, answers[id(request)].text))
            for row, request in zip(rows, asked, strict=True)
        ]
        found[way] = Asked(rows, *conclude(benchmark, answered))
    return found


def _request(way: str, name: str, row: Sample, split: Split, how: Generation) -> Request:
    told = "" if way == "picture" else f"Image description:\n{description(name, row, split)}\n"
    images = () if way == "description" else row.images
    return Request((Message("user", told + row.question),), images, how)


def main() -> None:
    """Prints a line for each benchmark, and the average."""
    parser = argparse.ArgumentParser(prog="python -m bench.reading", description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="rows of each (default: %(default)s)")
    parser.add_argument("--model", default="pocket", help="`pocket`, or a folder (default: %(default)s)")
    args = parser.parse_args()
    model = HFModel.load(args.model)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for name in MAKERS:
        asked = ask(model, name, args.n)
        for way in WAYS:
            found[way].append(asked[way].accuracy)
        print(f"{name:12}", *(f"{way} {found[way][-1]:5.1f}" for way in WAYS), flush=True)
    print(f"{'average':12}", *(f"{way} {mean(found[way]):5.1f}" for way in WAYS))


if __name__ == "__main__":
    main()
