"""One benchmark from samples to records, on a real tiny model where the model matters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from stic_eval.contracts.benchmark import Benchmark, Grader, HubData, Judging
from stic_eval.contracts.engine import VLM
from stic_eval.errors import RunError
from stic_eval.evals import runner
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.image_sources import scan_images
from stic_eval.models.hf_model import HFModel
from stic_eval.store import read_jsonl
from stic_eval.types import Generation, ImageRef, Record, Request, Response, Sample, Score, Summary
from tests.support.fake import FakeVLM
from tests.support.scripted import solving

BENCHMARK = Benchmark(
    name="colours",
    title="Colours",
    version=1,
    source=HubData("nobody/colours", "test"),
    to_sample=lambda row: Sample("", (), "", None),
    generation=Generation(max_new_tokens=6),
    score=lambda sample, text: Score(float(sample.target in text), text[:1] or None, "by looking"),
    aggregate=summarize,
    protocol="whether a letter occurs",
)


@pytest.fixture
def images(photos: Path) -> list[ImageRef]:
    return scan_images(photos)[0]


@pytest.fixture
def samples(images: list[ImageRef]) -> list[Sample]:
    made = [
        Sample(f"{i}", (image,), "Which colour?" + "?" * (i % 3), "A", (), {"kind": f"k{i % 2}"}, {"i": i})
        for i, image in enumerate(images)
    ]
    return [*made, Sample("text", (), "No picture?", "A")]


def evaluate(
    out: Path,
    samples: list[Sample],
    model: VLM,
    solver: str = "direct",
    benchmark: Benchmark = BENCHMARK,
    how: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> tuple[list[Record], Summary]:
    records, summary = runner.evaluate(
        benchmark,
        samples,
        model,
        **solving(
            solver, **({} if solver == "direct" else {"prompt": "Describe.", "max_new_tokens": 4, **how})
        ),
        **{"progress": lambda done, total: None, **options},
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(runner.encode(records))
    return records, summary


@pytest.mark.parametrize("solver", ["direct", "describe_and_respond"])
def test_every_sample_has_its_record_in_order(
    tiny_vlm: Path, samples: list[Sample], tmp_path: Path, solver: Any
) -> None:
    model = HFModel.load(str(tiny_vlm), device="cpu", batch_size=4)
    seen: list[tuple[int, int | None]] = []
    out = tmp_path / "records" / "m" / "colours.jsonl"
    records, summary = evaluate(
        out, samples, model, solver, progress=lambda done, total: seen.append((done, total))
    )
    assert [record.id for record in records] == [sample.id for sample in samples]
    assert seen == [(done, len(samples)) for done in range(len(samples) + 1)]
    described = len({record.description for record in records} - {None})
    said = {"answers": len(samples), "descriptions": described, "cut": len(samples)}
    assert summary == replace(summarize(records), **said)
    rows = list(read_jsonl(out))
    for row, record, sample in zip(rows, records, samples, strict=True):
        assert row == json.loads(json.dumps({name: getattr(record, name) for name in row}))
        assert set(row) == set(Record.__dataclass_fields__)
        assert row["images"] == [image.sha256 for image in sample.images]
        assert (row["question"], row["target"], row["group"], row["meta"]) == (
            sample.question, sample.target, dict(sample.group), dict(sample.meta),
        )  # fmt: skip
        assert (row["description"] is None) == (solver == "direct" or not sample.images)
        assert row["score"] == float("A" in row["response"])
        assert row["n_tokens"] == (6 if row["description"] is None else 10)
        assert row["seconds"] > 0
    assert len({row["response"] for row in rows}) > 3


def test_separator_and_sight_reach_the_solver(samples: list[Sample], tmp_path: Path) -> None:
    model = FakeVLM(lambda request: "a circle")
    evaluate(
        tmp_path / "a", samples, model, "describe_and_respond", how={"separator": "<->", "sees_image": False}
    )
    described = [r for r in model.asked if r.messages[0].text == "Describe."]
    assert [r.images for r in described] == [()]
    assert "Image description:\na circle<->Which colour?" in {r.messages[0].text for r in model.asked}


def test_unscored_is_not_zero(samples: list[Sample], tmp_path: Path) -> None:
    def score(sample: Sample, text: str) -> Score:
        return Score(None, None, "no judge") if sample.id == "3" else Score(1.0, text)

    judged = replace(BENCHMARK, score=score)
    records, summary = evaluate(tmp_path / "a", samples, FakeVLM(lambda r: "A"), benchmark=judged)
    assert (summary.score, summary.n, summary.unscored) == (100.0, len(samples), 1)
    assert (records[3].score, records[3].why) == (None, "no judge")


def _raise(*_: Any) -> Any:
    raise IndexError("no\nsuch letter")


RAISED = rf"\S*test_runner\.py, line {_raise.__code__.co_firstlineno + 1}"


def _parse(sample: Sample, text: str) -> Score:
    return Score(json.loads(text))


@pytest.mark.parametrize(
    ("benchmark", "says"),
    [
        (
            replace(BENCHMARK, score=_raise),
            rf"benchmark colours, sample 0: scoring failed: {RAISED}: IndexError: no$",
        ),
        (  # in a library: the line that has called it
            replace(BENCHMARK, score=_parse),
            r"scoring failed: .*test_runner.py, line \d+: JSONDecodeError: Expecting value",
        ),
        (
            replace(BENCHMARK, score=lambda s, t: 1.0),
            r"sample 0: score has to return a stic_eval Score, not float$",
        ),
        (replace(BENCHMARK, score=lambda s, t: None), r"score has to return a stic_eval Score, not None$"),
        (replace(BENCHMARK, score=lambda s, t: Score(float("nan"))), r"sample 0: scored nan"),
        (
            replace(BENCHMARK, aggregate=_raise),
            rf"benchmark colours: aggregating 9 records failed: {RAISED}: IndexError",
        ),
        (replace(BENCHMARK, cluster=_raise), rf"benchmark colours: its cluster failed: {RAISED}: IndexError"),
        (replace(BENCHMARK, statistic=_raise), rf"its statistic fails on .*: {RAISED}: IndexError"),
    ],
)
def test_a_benchmark_that_fails_is_named_and_old_records_stay(
    samples: list[Sample], tmp_path: Path, benchmark: Benchmark, says: str
) -> None:
    out = tmp_path / "records.jsonl"
    out.write_text("as it was\n")
    with pytest.raises(RunError, match=says):
        evaluate(out, samples, FakeVLM(lambda r: "A"), benchmark=benchmark)
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]
    assert out.read_text() == "as it was\n"


def test_a_model_that_leaves_questions_unanswered_is_an_error(samples: list[Sample], tmp_path: Path) -> None:
    class Lazy(FakeVLM):
        def generate(self, requests: Any) -> Any:
            yield from list(super().generate(requests))[:-2]

    with pytest.raises(RunError, match=r"2 samples got no answer, e\.g\. 7"):
        evaluate(tmp_path / "a", samples, Lazy(lambda r: "A"))


def test_what_data_sets_bring_is_written(samples: list[Sample], tmp_path: Path) -> None:
    odd = replace(
        samples[0],
        target=np.float32(0.5),
        meta={
            "array": np.arange(3),
            "set": {"b", "a"},
            "map": MappingProxyType({"k": np.int64(4)}),
            "\ud800": "\ud800",
        },
    )

    def answer(request: Request) -> str:
        return 'line\u2028separator "quoted"\n'

    scored = replace(BENCHMARK, score=lambda s, t: Score(np.float32(1)))  # type: ignore[arg-type]
    evaluate(tmp_path / "a.jsonl", [odd], FakeVLM(answer), benchmark=scored)
    (row,) = read_jsonl(tmp_path / "a.jsonl")
    assert row["response"] == 'line\u2028separator "quoted"\n'
    assert (row["target"], row["score"]) == (0.5, 1.0)
    assert (row["meta"]["array"], row["meta"]["set"], row["meta"]["map"]) == ([0, 1, 2], ["a", "b"], {"k": 4})


def test_the_score_by_each_of_a_judges_gradings_is_kept() -> None:
    class Graders:
        def grade(self, benchmark: Any, cases: Any, progress: Any) -> Any:
            for index, values in enumerate(([0.2, 0.4], [0.6, 1.0])):
                yield index, Score(sum(values) / 2), {"model": "j", "values": values, "weights": [1.0, 1.0]}

    open_ = replace(BENCHMARK, judging=Judging(*[Grader(lambda s, r: "", lambda s, r, t: Score(1.0))] * 2))
    answered = [
        runner.Answered(Sample(str(i), (), "?", "A"), Response("x", 1, "stop"), Score(None, open=True))
        for i in range(2)
    ]
    records, summary = runner.conclude(open_, answered, Graders())
    assert [record.score for record in records] == pytest.approx([0.3, 0.8])
    assert summary.score == pytest.approx(55)
    assert summary.gradings == pytest.approx((40, 70))
    assert (summary.answers, summary.judged) == (2, 2)
    assert runner.conclude(open_, answered)[1].gradings == ()
