"""Rows that belong together, from records to differences; and benchmarks with a statistic of their own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stic_eval.cli.app import invoke
from stic_eval.contracts.benchmark import Benchmark, HubData
from stic_eval.errors import RunError, UserError
from stic_eval.evals import runner
from stic_eval.evals.clusters import DRAWS, clusters
from stic_eval.evals.scoring.aggregate import all_right, summarize
from stic_eval.report import runs
from stic_eval.report.paired_comparison import compare
from stic_eval.report.table_rows import Column, EvaluatedVariant
from stic_eval.report.tables import build
from stic_eval.store import atomic_write
from stic_eval.types import DESCRIBED, DIRECT, Generation, ImageRef, Record, Response, Sample, Score, Summary

BENCHMARK = Benchmark(
    name="signs",
    title="Signs",
    version=1,
    source=HubData("nobody/signs", "test"),
    to_sample=lambda row: Sample("", (), "", None),
    generation=Generation(max_new_tokens=6),
    score=lambda sample, text: Score(float(sample.target == text), text),
    aggregate=summarize,
    protocol="what the sign says",
)


def answered(
    id_: str, text: str, target: str = "a", images: Sequence[str] = (), **meta: Any
) -> runner.Answered:
    refs = tuple(ImageRef(digest, digest, lambda: pytest.fail("no pixels are needed")) for digest in images)
    sample = Sample(id_, refs, "?", target, meta=meta)
    return runner.Answered(sample, Response(text, 1, "stop"), Score(float(text == target), text))


def conclude(rows: Sequence[runner.Answered], benchmark: Benchmark = BENCHMARK) -> Summary:
    return runner.conclude(benchmark, rows)[1]


# ---------------------------------------------------------------- which rows belong together


def test_rows_about_one_image_are_a_cluster_and_others_are_not_named() -> None:
    rows = [answered(str(i), "a", images=[image]) for i, image in enumerate(("x" * 64, "x" * 64, "y", "z"))]
    rows += [answered("text", "a"), answered("not read", "a", images=[""])]
    rows += [answered("also not read", "a", images=[""])]
    assert conclude(rows).clusters == {"0": "x" * 12, "1": "x" * 12}


def test_images_and_units_tie_rows_together() -> None:
    pictures = {"1": ["x", "y"], "2": ["y"], "3": ["x"], "4": ["z"]}
    found = conclude([answered(id_, "a", images=images) for id_, images in pictures.items()]).clusters
    assert set(found) == {"1", "2", "3"} and len(set(found.values())) == 1
    rotations = [answered(f"{unit}{turn}", "a", images=[image], unit=unit)
                 for unit, image in (("p", "x"), ("q", "x"), ("r", "y")) for turn in range(4)]  # fmt: skip
    circular = replace(BENCHMARK, aggregate=lambda rows: all_right(rows, lambda r: r.meta["unit"]))
    assert conclude(rotations, circular).clusters == {"p": "x", "q": "x"}


def test_a_benchmark_may_name_what_its_rows_share() -> None:
    rows = [answered(str(i), "a", images=["same"], scene=str(i // 2)) for i in range(5)]
    named = replace(BENCHMARK, cluster=lambda record: record.meta["scene"])
    assert conclude(rows, named).clusters == {"0": "0", "1": "0", "2": "1", "3": "1"}
    with pytest.raises(RunError, match=r"signs: its cluster failed: \S+, line \d+: KeyError: 'scene'"):
        conclude([answered("1", "a")], named)


def test_a_unit_that_no_row_is_called_by_is_an_error() -> None:
    odd = replace(BENCHMARK, aggregate=lambda rows: replace(summarize(rows), units={"q7": (1.0, 1.0)}))
    with pytest.raises(RunError, match=r"benchmark signs: it is unclear which rows its unit 'q7' is made of"):
        conclude([answered("1", "a")], odd)


def test_real_pocket_rows_share_images_by_content() -> None:
    from stic_eval import registry
    from stic_eval.evals.sources import samples

    benchmark = registry.benchmarks().get("mmbench")
    rows = [
        runner.Answered(sample, Response("A", 1, "stop"), Score(0.0))
        for sample in samples(benchmark, "pocket", limit=40)
    ]
    summary = conclude(rows, benchmark)
    images = {str(row.sample.meta["unit"]): row.sample.images[0].sha256 for row in rows}
    expected = {unit for unit, image in images.items() if list(images.values()).count(image) > 1}
    assert set(summary.clusters) == expected and summary.n == len(images)


# ---------------------------------------------------------------- in a run's folder


def test_clusters_are_written_once_and_an_old_file_has_none(tmp_path: Path) -> None:
    rows = [answered(str(i), "a" if i % 3 else "b", images=[f"{i // 2}" * 64]) for i in range(6)]
    shared = conclude(rows)
    other = replace(shared, clusters={})
    entries = [
        runs.Entry("baseline", "baseline", "Baseline", DIRECT, None, {}, {"signs": shared}),
        runs.Entry("baseline+dar", "baseline", "Baseline", DESCRIBED, None, {}, {"signs": shared}),
        runs.Entry("sft", "sft", "SFT", DIRECT, None, {}, {"signs": other}),
    ]
    runs.save(runs.Scores("r", [Column("signs", "Signs")], entries), tmp_path)
    text = (tmp_path / "scores.json").read_text()
    assert text.count("0" * 12) == 2, "two units of one image, once for all rows of the table"
    loaded = runs.load(tmp_path)
    assert [entry.summaries["signs"] for entry in loaded.entries] == [shared, shared, other]
    data = json.loads(text)
    del data["clusters"]
    (tmp_path / "scores.json").write_text(json.dumps(data))
    assert runs.load(tmp_path).entries[0].summaries["signs"].clusters is None


def test_a_score_that_is_no_mean_of_its_rows_is_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [answered(str(i), "a" if i else "b") for i in range(4)]
    wrong = replace(BENCHMARK, aggregate=lambda records: replace(summarize(records), score=53.0))
    with pytest.raises(
        RunError, match=r"benchmark signs: its score \(53.00\) is not what its rows come to \(75.00\)"
    ):
        conclude(rows, wrong)
    old = replace(conclude(rows), score=53.0)
    entry = runs.Entry("baseline", "baseline", "Baseline", DIRECT, None, {}, {"signs": old})
    runs.save(runs.Scores("r", [Column("signs", "Signs")], [entry]), tmp_path)
    (tmp_path / "config.yaml").touch()
    assert invoke(["table", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert "Signs: its score (53.00) is not what its rows come to (75.00)" in shown.err
    assert shown.out == "" and shown.err.count("\n") == 1


# ---------------------------------------------------------------- in a comparison


def test_clusters_are_what_is_compared() -> None:
    """Eight rows on four images, all of which change alike: one in eight by chance, not one in 128."""
    right, wrong = ({str(i): (value, 1.0) for i in range(8)} for value in (1.0, 0.0))
    shared = {str(i): str(i // 2) for i in range(8)}
    base, method = (Summary(None, 8, 0, units, {}, clusters=shared) for units in (wrong, right))
    clustered = compare({"b": base}, {"b": [method]})[0]["b"]
    assert (clustered.n, clustered.clusters, clustered.test) == (8, 4, "permutation")
    assert clustered.p == pytest.approx(2 / 2**4, abs=0.01)
    alone = compare({"b": wrong}, {"b": [right]})[0]["b"]
    assert (alone.clusters, alone.test) == (8, "McNemar") and alone.p == pytest.approx(2 / 2**8)
    assert math.isnan(clustered.detectable), "four clusters cannot make anything sure"


def test_what_either_run_has_in_one_cluster_is_in_one() -> None:
    units = {str(i): (float(i % 2), 1.0) for i in range(6)}
    one = Summary(None, 6, 0, units, {}, clusters={"0": "x", "1": "x"})
    other = Summary(None, 6, 0, units, {}, clusters={"1": "p", "2": "p", "4": "q", "5": "q"})
    assert compare({"b": one}, {"b": [other]})[0]["b"].clusters == 3
    assert compare({"b": one}, {"b": [units]})[0]["b"].clusters == 5


def test_a_single_cluster_has_no_interval_and_no_mark() -> None:
    shared = {str(i): "x" for i in range(30)}
    base, method = (
        Summary(100 * value, 30, 0, {str(i): (value, 1.0) for i in range(30)}, {}, clusters=shared)
        for value in (0.0, 1.0)
    )
    for several in (1, 3):
        found = compare({"b": base}, {"b": [method] * several})[0]["b"]
        assert found.p == 1.0 and math.isnan(found.low) and found.mark == ""
    variants = [
        EvaluatedVariant(name, name, DIRECT, (), {"a": [run]})
        for name, run in (("baseline", base), ("m", method))
    ]
    from stic_eval.report import table_formats

    table = build([Column("a", "A")], variants)
    assert (
        "nan"
        not in (
            table_formats.to_markdown(table) + table_formats.to_csv(table) + table_formats.to_json(table)
        ).casefold()
    )


def test_equal_clusters_are_drawn_as_one_however_many_there_are() -> None:
    """Clusters of other sizes and sums do not undo the grouping of equal ones."""
    rng = np.random.default_rng(2)
    shared = {str(i): str(i % 3166) for i in range(5000)}

    def run() -> Summary:
        units = {str(i): (float(value), 1.0) for i, value in enumerate(rng.integers(0, 2, 5000))}
        return Summary(None, 5000, 0, units, {}, clusters=shared)

    from stic_eval.report import paired_comparison as module

    part = module._part([run()], [run()])
    assert part is not None and part.clusters == 3166
    distinct = np.unique(np.concatenate(part.pairs, axis=1).reshape(3166, -1), axis=0)
    assert len(distinct) <= 8


def test_results_without_clusters_say_that_their_rows_are_taken_for_independent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Written by a version that knew none: nobody can tell whether rows share an image."""
    entries = []
    for name, right in (("baseline", 30), ("stic", 45)):
        rows = [answered(str(i), "a" if i < right else "b", "a", [f"{i // 2}" * 12]) for i in range(60)]
        entries.append(runs.Entry(name, name, name, DIRECT, None, {}, {"signs": conclude(rows)}))
    runs.save(runs.Scores("r", [Column("signs", "Signs")], entries), tmp_path)
    (tmp_path / "config.yaml").touch()

    def said() -> tuple[str, str]:
        assert invoke(["compare", str(tmp_path), "--format", "json"]) == 0
        compared = capsys.readouterr().out
        assert invoke(["table", str(tmp_path), "--format", "json"]) == 0
        return compared, capsys.readouterr().out

    note = "Signs: an earlier version evaluated it"
    assert all(note not in text for text in said())
    path = tmp_path / "scores.json"
    data = json.loads(path.read_text())
    del data["clusters"]
    path.write_text(json.dumps(data))
    assert all(note in text for text in said())
    # It stays known once the file is written anew, and holds for the entries that are as old.
    scores = runs.load(tmp_path)
    runs.save(scores, tmp_path)
    assert all(note in text for text in said())
    scores.entries[1] = entries[1]
    runs.save(scores, tmp_path)
    assert all(note not in text for text in said()), "clusters of the same rows are known of one side"
    # Rows that are known to share nothing are another thing than rows of which nothing is known.
    alone = [
        runs.Entry(e.folder, e.method, e.title, DIRECT, None, {}, {"signs": replace(s, clusters={})})
        for e in entries
        for s in e.summaries.values()
    ]
    runs.save(runs.Scores("r", [Column("signs", "Signs")], alone), tmp_path)
    assert all(note not in text for text in said())


# ---------------------------------------------------------------- a statistic of its own


def macro_f1(records: Sequence[Record]) -> float:
    labels = sorted({record.target for record in records})
    scores = []
    for label in labels:
        hits = sum(r.response == label == r.target for r in records)
        said, true = (sum(getattr(r, side) == label for r in records) for side in ("response", "target"))
        scores.append(2 * hits / (said + true) if said + true else 0.0)
    return 100 * sum(scores) / len(scores)


F1 = replace(
    BENCHMARK,
    statistic=macro_f1,
    aggregate=lambda records: replace(summarize(records), score=macro_f1(records)),
)


def classified(
    rng: np.random.Generator, right: Callable[[str], float], n: int = 300
) -> list[runner.Answered]:
    rows = []
    for i in range(n):
        target = "a" if i % 10 else "b"
        text = target if rng.random() < right(target) else ("b" if target == "a" else "a")
        rows.append(answered(str(i), text, target))
    return rows


def test_score_and_difference_come_from_one_statistic() -> None:
    rng = np.random.default_rng(1)
    base = conclude(classified(rng, lambda label: 0.7), F1)
    method = conclude(classified(rng, lambda label: 0.9 if label == "a" else 0.3), F1)
    assert base.score is not None and method.score is not None
    rows = [
        EvaluatedVariant("baseline", "B", DIRECT, (), {"signs": [base]}),
        EvaluatedVariant("m", "M", DIRECT, (), {"signs": [method]}),
    ]
    table = build([Column("signs", "Signs")], rows)
    cell = table.rows[1].cells["signs"]
    assert cell.difference is not None and cell.score is not None
    assert cell.difference.delta == pytest.approx(method.score - base.score)
    accuracy = [100 * np.mean([v for v, _ in s.units.values()]) for s in (base, method)]
    assert abs((accuracy[1] - accuracy[0]) - cell.difference.delta) > 3, "of rows it would be another number"
    assert cell.difference.low < cell.difference.delta < cell.difference.high
    assert cell.difference.test == "jackknife permutation"
    assert cell.difference.clusters == cell.difference.n == 300, "groups of the jackknife are no clusters"
    assert any(f"differences by {DRAWS:,} resamples of its own statistic" in note for note in table.notes)


def test_compare_and_table_show_the_statistic_without_the_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a run's folder alone: no plug-in is there."""
    rng = np.random.default_rng(1)
    entries = []
    for name, share in (("baseline", 0.3), ("stic", 0.6)):
        records, summary = runner.conclude(
            F1, classified(rng, lambda label, b=share: 0.8 if label == "a" else b)
        )
        atomic_write(tmp_path / "records" / name / "signs.jsonl", runner.encode(records))
        entries.append(runs.Entry(name, name, name, DIRECT, None, {}, {"signs": summary}))
    runs.save(runs.Scores("r", [Column("signs", "Signs")], entries), tmp_path)
    (tmp_path / "config.yaml").touch()
    scores = [entry.summaries["signs"].score for entry in entries]
    assert invoke(["compare", str(tmp_path), "--format", "json"]) == 0
    [line] = json.loads(capsys.readouterr().out)["benchmarks"]
    assert [line["a"], line["b"]] == pytest.approx(scores)
    assert line["delta"] == pytest.approx(line["b"] - line["a"])
    assert invoke(["table", str(tmp_path), "--format", "json"]) == 0
    cell = json.loads(capsys.readouterr().out)["rows"][1]["cells"]["signs"]
    assert cell["score"] == pytest.approx(scores[1])
    assert cell["difference"]["delta"] == pytest.approx(line["delta"])
    assert (cell["difference"]["low"], cell["difference"]["high"]) == (line["low"], line["high"])


def test_a_statistic_that_is_the_mean_has_the_means_error() -> None:
    rng = np.random.default_rng(3)
    mean = replace(BENCHMARK, statistic=lambda rows: 100 * sum(r.score or 0 for r in rows) / len(rows))
    answers = [classified(rng, lambda label, share=share: share) for share in (0.6, 0.7)]
    plain, own = (
        compare({"b": conclude(answers[0], kind)}, {"b": [conclude(answers[1], kind)]})[0]["b"]
        for kind in (BENCHMARK, mean)
    )
    assert own.delta == pytest.approx(plain.delta)
    assert own.high - own.low == pytest.approx(plain.high - plain.low, rel=0.1)
    assert own.detectable == pytest.approx(plain.detectable, rel=0.15)
    assert own.p == pytest.approx(plain.p, abs=0.03)


@pytest.mark.parametrize("part", ["aggregate", "statistic"])
def test_a_rounded_score_gives_the_p_of_the_exact_one(part: str) -> None:
    """A tenth of a point is nothing beside the error, and may not be multiplied by the jackknife's groups."""
    exact = replace(BENCHMARK, statistic=macro_f1, aggregate=F1.aggregate)
    rounded = {
        "aggregate": replace(
            F1, aggregate=lambda records: replace(summarize(records), score=round(macro_f1(records), 1))
        ),
        "statistic": replace(F1, statistic=lambda records: round(macro_f1(records), 1)),
    }[part]
    rng = np.random.default_rng(7)
    base = classified(rng, lambda label: 0.7, 700)
    method = [*base]
    right = [at for at, one in enumerate(base) if one.verdict.value]
    wrong = [at for at, one in enumerate(base) if not one.verdict.value]
    for at in [*rng.choice(right, 40, replace=False), *rng.choice(wrong, 40, replace=False)]:
        one = base[at]
        text = "b" if one.response.text == "a" else "a"
        method[at] = answered(str(at), text, one.sample.target)
    found = {}
    for name, kind in (("exact", exact), ("rounded", rounded)):
        sides = conclude(base, kind), conclude(method, kind)
        if part == "aggregate":
            assert [side.score for side in sides] == [
                macro_f1(runner.conclude(kind, r)[0]) for r in (base, method)
            ]
        found[name] = compare({"b": sides[0]}, {"b": [sides[1]]})[0]["b"]
    assert found["exact"].p > 0.1
    assert found["rounded"].p == pytest.approx(found["exact"].p, abs=0.1)
    assert found["rounded"].delta == pytest.approx(found["exact"].delta, abs=0.1)


def test_false_alarms_of_an_own_statistic_are_nominal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stic_eval.evals.clusters.DRAWS", 1)  # intervals, which are not looked at here
    small = replace(F1, name="f1")
    hits = 0
    studies = 300
    for at in range(studies):
        rng = np.random.default_rng([4, at])
        base, method = (conclude(classified(rng, lambda label: 0.7, 60), small) for _ in range(2))
        hits += compare({"b": base}, {"b": [method]}, n_resamples=500)[0]["b"].p < 0.05
    assert hits / studies < 0.05 + 2 * math.sqrt(0.05 * 0.95 / studies)


def test_runs_over_other_rows_have_no_difference_rather_than_a_wrong_one() -> None:
    rows = classified(np.random.default_rng(5), lambda label: 0.7)
    base, fewer = conclude(rows, F1), conclude(rows[:200], F1)
    assert compare({"b": base}, {"b": [fewer]}) == ({}, None)
    assert compare({"b": base}, {"b": [replace(base, resampled=None)]}) == ({}, None)


@pytest.mark.parametrize(
    ("statistic", "why"),
    [
        (lambda rows: 100 / (len({r.target for r in rows}) - 1), r"its statistic fails on .*Zero"),
        (lambda rows: 100.0 if len({r.id for r in rows}) == 300 else math.nan, "its statistic gives nan"),
        (lambda rows: 12.0, r"its aggregate gives 100.00, its statistic 12.00"),
    ],
)  # fmt: skip
def test_a_statistic_has_to_be_a_number_for_any_rows(
    statistic: Callable[[Sequence[Record]], float], why: str
) -> None:
    rows = [answered(str(i), "a" if i else "b", "a" if i else "b") for i in range(300)]
    with pytest.raises(RunError, match=f"benchmark signs: {why}"):
        conclude(rows, replace(BENCHMARK, statistic=statistic))


def test_an_old_table_without_the_statistic_is_refused() -> None:
    summary = replace(conclude(classified(np.random.default_rng(6), lambda label: 0.7), F1), resampled=None)
    with pytest.raises(UserError, match="Signs: its score"):
        build(
            [Column("signs", "Signs")], [EvaluatedVariant("baseline", "B", DIRECT, (), {"signs": [summary]})]
        )


def test_units_of_records_are_named_by_their_meta() -> None:
    records = runner.conclude(
        BENCHMARK, [answered("1", "a", images=["x"]), answered("2", "a", images=["x"])]
    )[0]
    assert clusters(BENCHMARK, records) == {"1": "x", "2": "x"}
