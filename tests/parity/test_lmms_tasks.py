"""`lmms:<task>` against lmms-eval's own evaluator: prompts, images, verdicts, aggregates of the same answers.

Rows are made by hand in the data sets' own columns and read by both from one parquet file. Answers are those
of a stand-in for a model; everything else of either side is the real thing.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image, ImageFile

from stic_eval.benchmark_protocols import with_options
from stic_eval.contracts.benchmark import Benchmark
from stic_eval.evals import sources
from stic_eval.evals.lmms import task_index, task_objects
from stic_eval.evals.lmms.benchmark import benchmark
from stic_eval.evals.lmms.request_settings import stops, without_places
from stic_eval.models.detokenize import cut
from stic_eval.types import Record, Sample
from tests.parity.lmms_rows import CASES, ROWS, WORDS, Case

pytest.importorskip("lmms_eval")

# ---------------------------------------------------------------- both sides


def write_rows(case: Case, path: Path) -> None:
    from datasets import Dataset, List
    from datasets import Image as ImageFeature

    rows = [case.row(i) for i in range(ROWS)]
    kinds = {
        **{name: ImageFeature() for name in case.images},
        **{name: List(ImageFeature()) for name in case.lists},
    }
    others = [{name: cell for name, cell in row.items() if name not in kinds} for row in rows]
    features = Dataset.from_list(others).features.copy()
    features.update(kinds)
    Dataset.from_list(rows, features=features).to_parquet(path)


@dataclass
class Theirs:
    """What lmms-eval's evaluator made of the answers.

    Attributes:
        prompts: By row.
        shown: Images of each row.
        logged: Its log of each row.
        aggregates: Metric -> value.
    """

    prompts: dict[int, str]
    shown: dict[int, list[Image.Image]]
    logged: list[dict[str, Any]]
    aggregates: dict[str, float]


def theirs(name: str, path: Path, answers: Sequence[str], work: Path, patch: pytest.MonkeyPatch) -> Theirs:
    """Runs lmms-eval's `simple_evaluate` on the rows, with a stand-in for a model."""
    truncated = ImageFile.LOAD_TRUNCATED_IMAGES
    from lmms_eval import evaluator
    from lmms_eval.api import task as api
    from lmms_eval.api.model import lmms
    from lmms_eval.tasks import TaskManager

    ImageFile.LOAD_TRUNCATED_IMAGES = truncated
    patch.setattr(api, "_resolve_hf_datasets_cache_dir", lambda: str(work))
    config = dict(task_index._config(name)[1])
    split = str(config.get("test_split") or config["validation_split"]).strip()
    config |= {
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(path)}},
    }
    config.pop("process_docs", None)
    prompts: dict[int, str] = {}
    shown: dict[int, list[Image.Image]] = {}

    class Stub(lmms):
        def generate_until(self, requests: Any) -> list[str]:
            said = []
            for request in requests:
                context, kwargs, to_visual, doc, task, part = request.args
                prompts[doc] = context
                shown[doc] = list(to_visual(self.task_dict[task][part][doc]) or [])
                said.append(cut(answers[doc], stops(kwargs)))
            return said

        def loglikelihood(self, requests: Any) -> Any:
            raise NotImplementedError

        generate_until_multi_round = loglikelihood

    made = api.ConfigurableTask(config=config)
    args = SimpleNamespace(output_path=str(work), reasoning_tags=None, process_with_media=False)
    made.args = args
    found = evaluator.simple_evaluate(
        Stub(), tasks=[made], bootstrap_iters=0, log_samples=True, verbosity="ERROR", cli_args=args,
        task_manager=TaskManager("ERROR", include_defaults=False),  # an index takes seconds
    )  # fmt: skip
    aggregates = {
        key.partition(",")[0]: value
        for key, value in found["results"][name].items()
        if "," in key and "_stderr" not in key and isinstance(value, (int, float))
    }
    return Theirs(prompts, shown, found["samples"][name], aggregates)


def record(ours: Benchmark, sample: Sample, response: str) -> Record:
    verdict = ours.score(sample, response)
    return Record(
        sample.id,
        sample.question,
        (),
        sample.target,
        sample.group,
        None,
        response,
        verdict.answer,
        verdict.value,
        verdict.weight,
        verdict.why,
        0.0,
        1,
        sample.meta,
    )


def drawn(name: str, case: Case) -> list[str]:
    """An answer a row: the right one, in some dress, or anything."""
    chance = random.Random(name)
    found = []
    for i in range(ROWS):
        target = case.row(i).get("answer", case.row(i).get("answers"))
        while isinstance(target, list):
            target = target[0]
        target = target["answer"] if isinstance(target, dict) else str(target)
        target = (
            string.ascii_uppercase[int(target)] if name in ("ai2d", "scienceqa", "scienceqa_img") else target
        )
        dress = chance.choice(("{}", "{}", "{}.", " {}\n", "The answer is {}."))
        found.append(dress.format(target) if chance.random() < 0.5 else chance.choice(WORDS))
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_task_is_asked_and_scored_as_lmms_eval_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    path = tmp_path / "rows.parquet"
    write_rows(case, path)
    answers = drawn(name, case)
    # MMMU's scoring draws where an answer names no option; here from a seed of the row's own.
    monkeypatch.setattr(random, "choice", lambda options: options[-1])
    ours = with_options(benchmark(name), case.options or {})
    samples = sources.samples(ours, path)
    other = theirs(name, path, answers, tmp_path, monkeypatch)
    assert len(samples) == len(other.logged) == ROWS

    task = task_index.find(name)
    for i, sample in enumerate(samples):
        assert sample.id == str(i)
        assert sample.question == without_places(other.prompts[i])
        seen = [image.load() for image in sample.images]
        assert [(image.size, image.tobytes()) for image in seen] == [
            (image.size, image.convert("RGB").tobytes()) for image in other.shown[i]
        ]
        payloads = task_objects.results(task, sample.meta["doc"], answers[i]).payloads
        assert payloads, name
        assert payloads == {metric: other.logged[i][metric] for metric in payloads}

    records = [record(ours, sample, answer) for sample, answer in zip(samples, answers, strict=True)]
    summary = ours.aggregate(records)
    assert other.aggregates, name
    own = {m: v for m, v in other.aggregates.items() if m in task.metrics}
    expected = {
        f"lmms-eval-points/{metric}" if metric in case.points else f"lmms-eval/{metric}": value
        if metric in case.points
        else 100 * value
        for metric, value in own.items()
    }
    found = {label: value for label, value in summary.breakdown.items() if label.startswith("lmms-eval")}
    assert found == pytest.approx(expected, abs=1e-9)
    again = ours.aggregate(records)  # some tasks' aggregations count on from one call to the next
    assert again == summary
