"""Whether the pocket model reads: `python -m bench.reading`.

Validation rows of the seven benchmarks asked three ways: with the picture, with a faithful description
instead of it, and with both. Accuracy of rows in percent; MMBench's rotations count one by one.
"""

from __future__ import annotations

import argparse

from stic_eval import registry
from stic_eval.evals.sources import samples
from stic_eval.models.hf_model import HFModel
from stic_eval.pocket.language import describe
from stic_eval.pocket.tasks import MAKERS
from stic_eval.pocket.world import draw_spec
from stic_eval.types import Generation, Message, Request, Sample

WAYS = ("picture", "description", "both")


def description(benchmark: str, sample: Sample) -> str:
    """The faithful description of a validation row's picture."""
    seed = int(sample.images[0].source.rpartition("/")[2])
    kinds = MAKERS[benchmark][1]
    part = (list(MAKERS).index(benchmark), len(MAKERS))
    return describe(draw_spec("val", seed, kinds[seed % len(kinds)], part))


def main() -> None:
    """Prints a line for each benchmark, and the average."""
    parser = argparse.ArgumentParser(prog="python -m bench.reading", description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="rows of each (default: %(default)s)")
    limit = parser.parse_args().n
    model = HFModel.load("pocket")
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for name in MAKERS:
        benchmark = registry.benchmarks().get(name)
        rows = samples(benchmark, "pocket:val", limit=limit)
        for way in WAYS:
            requests = []
            for row in rows:
                told = "" if way == "picture" else f"Image description:\n{description(name, row)}\n"
                images = () if way == "description" else row.images
                text = (Message("user", told + row.question),)
                requests.append(Request(text, images, Generation(max_new_tokens=64)))
            answers = {id(request): response.text for request, response in model.generate(requests)}
            values = [
                benchmark.score(row, answers[id(request)]).value or 0.0
                for row, request in zip(rows, requests, strict=True)
            ]
            found[way].append(100 * sum(values) / len(values))
        print(f"{name:12}", *(f"{way} {found[way][-1]:5.1f}" for way in WAYS), flush=True)
    print(f"{'average':12}", *(f"{way} {sum(found[way]) / len(MAKERS):5.1f}" for way in WAYS))


if __name__ == "__main__":
    main()
