"""What training costs: counted from stages, by seed and method, and told below a table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stic_eval.contracts.method import Stage
from stic_eval.experiment.folder import complete, list_stages
from stic_eval.report.runs import Entry, Scores, TrainedStage
from stic_eval.report.table_layouts import lay_out
from stic_eval.report.table_rows import Column
from stic_eval.report.training_costs import Cost, costs, notes
from stic_eval.selftrain.stage_costs import came_from, costs_of
from stic_eval.stage_store import StageStore
from stic_eval.store import append_jsonl
from stic_eval.types import DESCRIBED, DIRECT, Summary

PAIRS = TrainedStage("pairs", "a" * 64, 10.0, 200, 0, 60)
DPO = TrainedStage("preference", "b" * 64, 5.5, 0, 12)


def entry(name: str, *stages: TrainedStage, seed: int | None = 0, dar: bool = False, **more: Any) -> Entry:
    folder = f"{name}{'+dar' if dar else ''}@{seed}"
    summary = Summary(50.0, 2, 0, {"1": (1.0, 1.0), "2": (0.0, 1.0)}, {})
    return Entry(
        folder,
        name,
        name.upper(),
        DESCRIBED if dar else DIRECT,
        seed,
        {"one": "k"},
        {"one": summary},
        stages=list(stages),
        **more,
    )


def scores(*entries: Entry, run: str = "run") -> Scores:
    return Scores(run, [Column("one", "One", "a question", "rules")], list(entries), model="m")


# ---------------------------------------------------------------- from the cache


def finished(store: StageStore, stage: Stage, key: str, asked: Any = None, **more: Any) -> None:
    folder = store.work_dir(stage.name, key)
    if steps := more.pop("steps", None):
        append_jsonl(folder / "log.jsonl", [{"step": step, "loss": 0.5} for step in range(1, steps + 1)])
    store.finish(stage.name, key, {"seconds": 2.5, **({} if asked is None else {"asked": asked})})


def test_what_a_stage_cost_is_what_it_has_done_and_not_what_was_planned(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    stages = [
        Stage("pairs", 1, lambda ctx: None, {}, generations=100, rows=50),
        Stage("preference", 1, lambda ctx: None, {}, steps=50),
        Stage("descriptions", 1, lambda ctx: None, {}, generations=7),  # by an earlier version of this
        Stage("sft", 1, lambda ctx: None, {}, steps=9),  # whose log is gone
        Stage("infused_sft", 1, lambda ctx: None, {}, steps=4),  # not done
    ]
    keyed = [(stage, letter * 64) for stage, letter in zip(stages, "abcde", strict=True)]
    finished(store, *keyed[0], {"generations": 90, "scored": 30})
    finished(store, *keyed[1], {}, steps=20)  # pairs that a filter has dropped are not trained on
    finished(store, *keyed[2])
    finished(store, *keyed[3])
    found = list_stages(keyed, store)
    assert [(one.name, one.generations, one.scored, one.steps) for one in found] == [
        ("pairs", 90, 30, 0), ("preference", 0, 0, 20), ("descriptions", 7, 0, 0), ("sft", 0, 0, 9),
    ]  # fmt: skip
    assert {one.seconds for one in found} == {2.5}


def test_a_stage_that_is_lost_costs_what_those_that_came_from_it_say(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    pairs = Stage("pairs", 1, lambda ctx: None, {}, generations=100)
    first = Stage("preference", 1, lambda ctx: None, {}, needs=(pairs,))
    told = Stage("descriptions", 1, lambda ctx: None, {}, needs=(first,), generations=7)
    last = Stage("infused_sft", 1, lambda ctx: None, {}, needs=(told, first))
    keyed = [(stage, letter * 64) for stage, letter in zip((pairs, first, told, last), "abcd", strict=True)]
    finished(store, *keyed[0], {"generations": 90, "scored": 30})
    finished(store, *keyed[1], {}, steps=20)
    finished(store, *keyed[2], {"generations": 7})
    whole = came_from(keyed[:3], store)
    folder = store.work_dir(last.name, keyed[3][1])
    append_jsonl(folder / "log.jsonl", [{"step": 9}])
    store.finish(last.name, keyed[3][1], {"seconds": 2.5, "asked": {}, "came_from": whole})
    before = list_stages(keyed, store)
    assert (sum(one.generations for one in before), sum(one.steps for one in before)) == (97, 29)
    for stage, key in keyed[:3]:
        store.discard(stage.name, key)
        assert list_stages(keyed, store) == before
    # What was lost before the last one was made is known to nobody.
    store.discard(last.name, keyed[3][1])
    store.work_dir(last.name, keyed[3][1])
    store.finish(last.name, keyed[3][1], {"asked": {}, "came_from": came_from(keyed[:3], store)})
    after = list_stages(keyed, store)
    assert [one.known for one in after] == [False, False, False, True]
    assert costs([scores(entry("stic", *after))])[0].unknown == ("pairs", "preference", "descriptions")
    # A run that has written it down before still says it.
    assert complete(after, before)[:3] == before[:3]
    assert complete(after[:1], before) == before


def test_costs_come_back_from_a_runs_file(tmp_path: Path) -> None:
    from stic_eval.report import runs

    saved = scores(entry("csr", PAIRS, DPO))
    runs.save(saved, tmp_path)
    assert costs([runs.load(tmp_path)]) == costs([saved])
    text = (tmp_path / "scores.json").read_text()
    old = json.loads(text)
    for one in old["variants"]:
        for stage in one["stages"]:
            del stage["scored"]  # as a run of an earlier version has it
    (tmp_path / "scores.json").write_text(json.dumps(old))
    (cost,) = costs([runs.load(tmp_path)])
    assert (cost.generations, cost.scored) == (200, 0)


# ---------------------------------------------------------------- by method


def test_a_seed_costs_the_mean_of_all_seeds_and_describing_costs_no_training() -> None:
    more = TrainedStage("pairs", "c" * 64, 30.0, 400, 0, 100)
    first = [entry("csr", PAIRS, DPO, dar=dar) for dar in (False, True)]
    second = entry("csr", more, DPO, seed=1)
    found = costs([scores(entry("baseline", seed=None), *first, second, entry("sft", DPO))])
    assert found == [Cost("CSR", 300, 80, 12, 25.5), Cost("SFT", 0, 0, 12, 5.5)]


def test_stages_that_methods_share_count_for_each() -> None:
    found = costs([scores(entry("stic", PAIRS, DPO), entry("stic_stage1", PAIRS, DPO))])
    assert [(cost.generations, cost.steps) for cost in found] == [(200, 12)] * 2


def test_two_runs_of_a_method_are_told_apart_where_they_differ() -> None:
    first = scores(entry("csr", PAIRS, DPO), run="first")
    same = scores(entry("csr", PAIRS, DPO), run="same")  # with other benchmarks, say
    other = scores(entry("csr", DPO), entry("sft", DPO), run="other")
    assert [cost.title for cost in costs([first, same])] == ["CSR"]
    assert [(cost.title, cost.generations) for cost in costs([first, other])] == [
        ("CSR (first)", 200), ("CSR (other)", 0), ("SFT", 0),
    ]  # fmt: skip


def test_nothing_trained_is_no_note_and_cells_of_an_ablation_have_none() -> None:
    cell = entry("csr", PAIRS, settings={"csr.pairs.weight": 0.5})
    assert notes([scores(entry("baseline", seed=None))]) == notes([scores(cell)]) == notes([]) == []


# ---------------------------------------------------------------- as it is told


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ((PAIRS, DPO), "CSR 200 generations, 60 scored, 12 steps, 16 s"),
        ((DPO,), "CSR 0 generations, 12 steps, 6 s"),
        (
            (TrainedStage("pairs", "a" * 64, 12345.6, 1234567, 0), DPO),
            "CSR 1,234,567 generations, 12 steps, 12,351 s",
        ),
    ],
)
def test_the_note(stages: tuple[TrainedStage, ...], said: str) -> None:
    found = notes([scores(entry("csr", *stages), entry("sft", DPO))])
    assert found == [f"Training cost of a seed: {said}; SFT 0 generations, 12 steps, 6 s."]


def test_the_note_of_a_cost_that_is_not_known() -> None:
    lost = TrainedStage("pairs", "a" * 64, 0.0, 0, 0, known=False)
    found = notes([scores(entry("csr", lost, DPO), entry("csr", PAIRS, DPO, seed=1), entry("sft", DPO))])
    assert found == [
        "Training cost of a seed: CSR unknown (the cache has lost pairs); SFT 0 generations, 12 steps, 6 s."
    ]


def test_a_table_of_methods_has_the_note_once() -> None:
    table = lay_out([scores(entry("baseline", seed=None), entry("csr", PAIRS, DPO))])
    assert [note for note in table.notes if "Training cost" in note] == notes(
        [scores(entry("csr", PAIRS, DPO))]
    )


def test_a_grid_says_which_of_its_trainings_saw_single_tiles() -> None:
    from stic_eval.report.training_costs import training

    tile = replace(DPO, key="c" * 64, images="single_tile")
    assert training([entry("stic", PAIRS, DPO)]) == []
    (all_of_them,) = training([entry("stic", PAIRS, tile)])
    assert all_of_them.startswith("Trained on images padded to a square")
    (some,) = training([entry("stic", PAIRS, tile), entry("sft", DPO)])
    assert some.startswith("Rows with training.images=single_tile were trained on images padded to a square")


def test_a_stage_that_goes_while_its_cost_is_read_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, stage = StageStore(tmp_path), Stage("sft", 1, lambda ctx: None, {})
    finished(store, stage, "a" * 64)
    done = store.done

    def gone(name: str, key: str) -> Path | None:
        found = done(name, key)
        store.discard(name, key)
        return found

    monkeypatch.setattr(store, "done", gone)
    assert [one.known for one in costs_of([(stage, "a" * 64)], store)] == [False]
