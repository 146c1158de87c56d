"""`lmms:<task>`: which tasks can be asked, how rows go through their code, what is kept from it."""

from __future__ import annotations

import dataclasses
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

pytest.importorskip("lmms_eval")

from stic_eval.benchmark_protocols import with_options
from stic_eval.contracts.benchmark import Benchmark
from stic_eval.errors import UserError
from stic_eval.evals import official_prompts, sources
from stic_eval.evals.lmms import docs, guard, task_index
from stic_eval.evals.lmms.benchmark import benchmark
from stic_eval.evals.lmms.request_settings import generation, stops, without_places
from stic_eval.evals.rows import ListRows
from stic_eval.images import ref_from_pil
from stic_eval.models.detokenize import cut
from stic_eval.types import Generation, ImageRef, Record, Sample

Doc = Mapping[str, Any]
PICTURE = ref_from_pil(Image.new("RGB", (8, 6), (9, 99, 199)), "made")


def pope(index: int, **columns: Any) -> dict[str, Any]:
    row = {
        "question_id": str(index),
        "question": f"Is there a cat {index}?",
        "answer": ["yes", "no"][index % 2],
    }
    return {**row, "image": PICTURE, "category": "random", **columns}


def mme(index: int) -> dict[str, Any]:
    kind = ["existence", "code_reasoning"][index // 2 % 2]
    return {
        "question_id": f"{kind}/{index // 2}", "image": PICTURE, "question": f"Is it {index}?",
        "answer": ["Yes", "No"][index % 2], "category": kind,
    }  # fmt: skip


def asked(of: Benchmark, *rows: Doc) -> list[Sample]:
    return sources.samples(of, ListRows("rows", list(rows)))


def records(of: Benchmark, samples: list[Sample], answers: list[str]) -> list[Record]:
    found = []
    for sample, answer in zip(samples, answers, strict=True):
        verdict = of.score(sample, answer)
        found.append(
            Record(
                sample.id, sample.question, (), sample.target, sample.group, None, answer, verdict.answer,
                verdict.value, verdict.weight, verdict.why, 0.0, 1, sample.meta,
            )
        )  # fmt: skip
    return found


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Benchmark]:
    """Makes a benchmark of a task whose configuration is given, as if lmms-eval had it."""

    def make(name: str = "made_up", **config: Any) -> Benchmark:
        whole = {
            "task": name, "dataset_path": "somebody/rows", "test_split": "test",
            "output_type": "generate_until",
            "doc_to_visual": lambda doc: [doc["image"]], "doc_to_text": "question", "doc_to_target": "answer",
            "process_results": lambda doc, results: {"right": float(results[0] == doc["answer"])},
            "metric_list": [{"metric": "right", "aggregation": "mean", "higher_is_better": True}],
            **config,
        }  # fmt: skip
        monkeypatch.setattr(task_index, "_config", lambda name: (Path(__file__), whole))
        for cached in (task_index.find, *CACHES):
            cached.cache_clear()
        return benchmark(name)

    from stic_eval.evals.lmms import benchmark as module
    from stic_eval.evals.lmms import task_objects

    CACHES = (task_objects._aggregations, module._processing_obstacle)
    yield make
    monkeypatch.undo()
    for cached in (task_index.find, *CACHES):
        cached.cache_clear()


# ---------------------------------------------------------------- which tasks


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("popee", 'did you mean "pope"'),
        ("pope_full", "is a group; name its tasks: lmms:pope_adv,lmms:pope_pop,lmms:pope_random"),
        ("mmmu", "lmms:mmmu_val"),
        ("seedbench_ppl", "`lmms-eval --model stic_eval`"),
        ("JumpScore", "videos"),
        ("aime24_figures_agg64", "64 times"),
        ("gsm8k", "5 worked examples"),
        ("llava_in_the_wild", "a judge model"),
        ("docvqa_test", "submission is a file to hand in"),
        ("coco2014_cap_test", "needs the package pycocoevalcap"),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_line(name: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        benchmark(name)
    assert f"lmms:{name}: " in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_without_lmms_eval_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    task_index.find.cache_clear()
    monkeypatch.setattr(official_prompts, "installed_version", lambda: None)
    with pytest.raises(
        UserError, match=f"lmms-eval is not installed: `pip install lmms-eval=={official_prompts.VERSION}`"
    ):
        benchmark("pope")


def test_a_task_brings_its_data_set_decoding_and_metrics() -> None:
    found = benchmark("pope")
    assert (found.name, found.title) == ("lmms:pope", "lmms:pope (mean of rows)")
    assert (found.source.path, found.source.split, found.source.revision) == (
        "lmms-lab-encoder/POPE",
        "test",
        "main",
    )
    assert found.generation == Generation(max_new_tokens=128)
    assert "mean of the rows' pope_accuracy" in found.protocol
    assert f"lmms-eval {official_prompts.VERSION}" in found.protocol
    pinned = with_options(found, {"revision": "abc", "metric": "pope_f1_score"})
    assert pinned.source.revision == "abc"
    assert [(at.path, at.revision) for at in pinned.source.ids] == [
        ("lmms-lab-encoder/POPE", "abc"), ("lmms-lab/POPE", "abc"),
    ]  # fmt: skip
    assert pinned.variant == "pope_f1_score"
    assert "lmms-eval's own pope_aggregate_f1_score" in pinned.protocol
    assert benchmark("mme").version != found.version
    with pytest.raises(UserError, match=r"-o benchmarks\.lmms:pope\.metric"):
        with_options(found, {"metric": "f1"})


def test_importing_lmms_eval_lets_no_damaged_image_pass() -> None:
    code = (
        "from PIL import ImageFile; from stic_eval.evals.lmms.benchmark import benchmark; benchmark('pope');"
        "assert not ImageFile.LOAD_TRUNCATED_IMAGES"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- rows


def test_rows_that_do_not_fit_are_named() -> None:
    found = benchmark("pope")
    for row, said in (
        (pope(1, image=None), 'row 1: column "image" is empty'),
        ({k: v for k, v in pope(1).items() if k != "image"}, 'row 1: column "image" is missing'),
        ({k: v for k, v in pope(1).items() if k != "question"}, 'row 1: column "question" is missing'),
    ):
        with pytest.raises(UserError, match=said):
            asked(found, row)


def test_rows_may_lack_an_image_where_the_task_allows_it() -> None:
    row = {"image": None, "question": "Which?", "hint": "", "choices": ["a", "b"], "answer": 1}
    (sample,) = asked(benchmark("scienceqa"), row)
    assert sample.images == ()
    assert sample.target == "B"


def test_rows_that_are_only_scored_need_no_images() -> None:
    (sample,) = sources.samples(benchmark("pope"), ListRows("rows", [pope(1)]), images=False)
    assert sample.question == "Is there a cat 1?\nAnswer the question using a single word or phrase."
    bare = {name: cell for name, cell in pope(1).items() if name != "image"}
    (sample,) = sources.samples(benchmark("pope"), ListRows("rows", [bare]), images=False)
    assert benchmark("pope").score(sample, "no").value == 1.0


def test_a_row_comes_back_from_json_as_it_was() -> None:
    found = benchmark("pope")
    (sample,) = asked(found, pope(3, when=__import__("datetime").date(2024, 1, 2), pair=(1, 2)))
    assert json.loads(json.dumps(sample.meta)) == sample.meta
    assert "image" not in sample.meta["doc"]


def test_images_are_not_decoded_before_they_are_needed() -> None:
    def never() -> Image.Image:
        raise AssertionError("decoded")

    ref = ImageRef("0" * 64, "somewhere", never)
    (sample,) = asked(benchmark("pope"), pope(0, image=ref))
    assert sample.images == (ref,)


def test_images_that_a_task_changes_are_named_by_their_pixels(task: Callable[..., Benchmark]) -> None:
    def visual(doc: Doc) -> list[Image.Image]:
        drawn = doc["image"].convert("RGB").copy()
        ImageDraw.Draw(drawn).rectangle((0, 0, 2, 2), fill=(0, 0, 0))
        return [doc["image"].convert("RGB"), drawn, doc["image"].crop((0, 0, 4, 4))]

    (sample,) = asked(task(doc_to_visual=visual), pope(0))
    whole, drawn, cropped = sample.images
    assert whole == PICTURE
    assert len({image.sha256 for image in sample.images}) == 3
    assert drawn.load().getpixel((1, 1)) == (0, 0, 0)
    assert drawn.load().getpixel((5, 5)) == (9, 99, 199)
    assert PICTURE.load().getpixel((1, 1)) == (9, 99, 199)  # the row's own is as it was
    assert cropped.load().size == (4, 4)


def test_what_is_no_image_is_told_by_row(task: Callable[..., Benchmark]) -> None:
    made = task(doc_to_visual=lambda doc: ["film.mp4"])
    with pytest.raises(UserError, match=r"row 1: .*video"):
        asked(made, pope(0))

    def gives_up(doc: Doc) -> Any:
        sys.exit(f"video path: {doc['question_id']} does not exist")

    with pytest.raises(UserError, match="its code gives up: video path"):
        asked(task(doc_to_visual=gives_up), pope(0))


def test_process_docs_is_done_row_by_row(task: Callable[..., Benchmark]) -> None:
    def process(rows: Any) -> Any:
        rows = rows.filter(lambda doc: doc["answer"] == "no", num_proc=4)
        return rows.map(lambda doc: {"question": doc["question"].upper()}).rename_column("category", "kind")

    samples = asked(task(process_docs=process), *map(pope, range(4)))
    assert [(sample.id, sample.question) for sample in samples] == [
        ("1", "IS THERE A CAT 1?"), ("3", "IS THERE A CAT 3?"),
    ]  # fmt: skip
    assert samples[0].meta["doc"]["kind"] == "random"


@pytest.mark.parametrize(
    ("process", "why"),
    [
        (lambda rows: rows.select(range(2)), "uses select"),
        (lambda rows: rows.map(lambda doc, i: doc, with_indices=True), "with_indices"),
        (lambda rows: [row["x"] for row in rows], "goes over the rows"),
        (lambda rows: __import__("datasets").load_dataset("x"), "reads more data"),
        (lambda rows: {}, "makes its own data set"),
    ],
)  # fmt: skip
def test_process_docs_of_the_whole_set_asks_for_processed_rows(
    task: Callable[..., Benchmark], process: Any, why: str
) -> None:
    made = task(process_docs=process)
    with pytest.raises(UserError) as error:
        asked(made, pope(0))
    assert why in str(error.value)
    assert "-o benchmarks.lmms:made_up.processed=true" in str(error.value)
    assert len(asked(with_options(made, {"processed": True}), pope(0))) == 1


# ---------------------------------------------------------------- scores


def test_the_cell_is_the_mean_and_lmms_evals_own_stand_beside_it() -> None:
    found = benchmark("pope")
    samples = asked(found, *map(pope, range(4)))
    summary = found.aggregate(records(found, samples, ["yes", "no", "no", "no"]))
    assert summary.score == 75.0
    assert set(summary.units) == {"0", "1", "2", "3"}
    assert summary.breakdown["lmms-eval/pope_accuracy"] == 75.0
    assert summary.breakdown["lmms-eval/pope_recall"] == 50.0
    assert summary.breakdown["category/random"] == 75.0


def test_points_are_not_taken_for_percent() -> None:
    found = benchmark("mme")
    samples = asked(found, *map(mme, range(8)))
    wrong = found.aggregate(records(found, samples, ["no", "yes"] * 4))
    right = found.aggregate(records(found, samples, ["yes", "no"] * 4))
    names = {"lmms-eval-points/mme_perception_score", "lmms-eval-points/mme_cognition_score"}
    assert names <= set(wrong.breakdown)
    assert {name: right.breakdown[name] for name in names} == dict.fromkeys(names, 200.0)
    assert {name: wrong.breakdown[name] for name in names} == dict.fromkeys(names, 0.0)
    assert (right.score, wrong.score) == (100.0, 0.0)


def test_a_chosen_metric_keeps_the_rows_that_have_it() -> None:
    found = with_options(benchmark("mme"), {"metric": "mme_cognition_score"})
    samples = asked(found, *map(mme, range(8)))
    assert [sample.id for sample in samples] == ["2", "3", "6", "7"]


def test_what_is_out_of_range_is_unscored_until_its_most_is_said(task: Callable[..., Benchmark]) -> None:
    made = task(process_results=lambda doc, results: {"right": float(results[0])})
    (sample,) = asked(made, pope(0))
    verdict = made.score(sample, "73")
    assert verdict.value is None
    assert "-o benchmarks.lmms:made_up.highest" in str(verdict.why)
    assert with_options(made, {"highest": 100}).score(sample, "73").value == 0.73
    assert made.score(sample, "1").value == 1.0


def test_a_metric_of_all_rows_together_leaves_rows_unscored(task: Callable[..., Benchmark]) -> None:
    def together(results: list[Any]) -> float:
        if len(results) < 2:
            raise ValueError("two at least")
        return sum(x == y for x, y in results) / len(results)

    made = task(
        process_results=lambda doc, results: {"right": (results[0], doc["answer"])},
        metric_list=[{"metric": "right", "aggregation": together, "higher_is_better": True}],
    )
    samples = asked(made, *map(pope, range(4)))
    summary = made.aggregate(records(made, samples, ["yes", "yes", "yes", "yes"]))
    assert (summary.score, summary.unscored) == (None, 4)
    assert summary.breakdown["lmms-eval/right"] == 50.0


def test_unanswered_rows_are_in_no_aggregate() -> None:
    found = benchmark("pope")
    samples = asked(found, *map(pope, range(2)))
    first, second = records(found, samples, ["yes", ""])
    failed = dataclasses.replace(second, score=None, n_tokens=0, why="no answer: it was cut off")
    summary = found.aggregate([first, failed])
    assert summary.breakdown["lmms-eval/pope_accuracy (1 of 2 rows)"] == 100.0
    assert summary.unscored == 1


def test_rows_whose_thinking_was_cut_are_in_no_aggregate() -> None:
    found = benchmark("pope")
    samples = asked(found, *map(pope, range(2)))
    first, second = records(found, samples, ["yes", ""])
    cut = dataclasses.replace(second, score=None, n_tokens=16, thinking="yes or", unclosed=True)
    assert found.aggregate([first, cut]).breakdown["lmms-eval/pope_accuracy (1 of 2 rows)"] == 100.0


def test_aggregates_say_which_part_of_the_rows_is_in_them() -> None:
    found = benchmark("mme")
    samples = asked(found, *map(mme, range(8)))
    first, *others = records(found, samples, ["yes", "no"] * 4)
    summary = found.aggregate([dataclasses.replace(first, response="", score=None, n_tokens=0), *others])
    own = {name for name in summary.breakdown if name.startswith("lmms-eval-points/")}
    assert own
    assert all(name.endswith(" (7 of 8 rows)") for name in own)


def test_a_row_whose_scoring_fails_takes_no_other_out_of_the_aggregates(
    task: Callable[..., Benchmark],
) -> None:
    def right(doc: Doc, results: list[str]) -> dict[str, float]:
        if doc["question_id"] == "2":
            socket.create_connection(("localhost", 1))
        return {"right": float(results[0] == doc["answer"])}

    made = task(process_results=right)
    summary = made.aggregate(records(made, asked(made, *map(pope, range(4))), ["yes", "no", "yes", "yes"]))
    assert summary.breakdown["lmms-eval/right (3 of 4 rows)"] == pytest.approx(200 / 3)
    assert summary.unscored == 1


def test_a_row_is_scored_alike_whenever_it_is_scored(task: Callable[..., Benchmark]) -> None:
    made = task(process_results=lambda doc, results: {"right": random.random()})
    samples = asked(made, *map(pope, range(6)))
    state = random.getstate()
    first = [made.score(sample, "what?").value for sample in samples]
    assert random.getstate() == state
    assert first == [made.score(sample, "what?").value for sample in samples]
    assert len(set(first)) == len(first)  # not one draw for all of them


# ---------------------------------------------------------------- what is kept from a task's code


def test_tasks_code_in_two_threads_leaves_output_and_random_state_as_they_were() -> None:
    before, state = sys.stdout, random.getstate()
    inside, other = threading.Event(), threading.Event()
    drawn: dict[str, float] = {}

    def main() -> float:
        inside.set()
        other.wait(0.3)  # long enough for the other thread to come in, were it let in
        return random.random()

    def loader() -> None:
        inside.wait()
        drawn["loader"] = guard.call(lambda: (other.set(), time.sleep(0.3), random.random())[-1], seed="b")

    thread = threading.Thread(target=loader)
    thread.start()
    drawn["main"] = guard.call(main, seed="a")
    thread.join()
    assert sys.stdout is before
    assert random.getstate() == state
    assert drawn == {
        "main": guard.call(random.random, seed="a"),
        "loader": guard.call(random.random, seed="b"),
    }


def test_watching_within_watching_keeps_the_log_quiet() -> None:
    from loguru import logger

    said: list[str] = []
    handler = logger.add(said.append, format="{message}")
    try:
        guard.call(lambda: (guard.call(int), logger.error("within")))
        logger.error("after")
    finally:
        logger.remove(handler)
    assert [line.strip() for line in said] == ["after"]


def test_an_answer_that_only_a_judge_could_score_is_unscored(task: Callable[..., Benchmark]) -> None:
    def judged(doc: Doc, results: list[str]) -> dict[str, float]:
        try:
            with socket.create_connection(("127.0.0.1", 9), timeout=1):
                return {"right": 1.0}
        except Exception:
            return {"right": 0.0}  # what tasks do when no judge answers

    made = task(process_results=judged)
    (sample,) = asked(made, pope(0))
    verdict = made.score(sample, "yes")
    assert verdict.value is None
    assert "network" in str(verdict.why)
    with socket.socket() as server:  # outside of a task's code nothing is kept from anybody
        server.bind(("127.0.0.1", 0))
        server.listen()
        socket.create_connection(server.getsockname(), timeout=5).close()


def test_scoring_writes_no_files(
    task: Callable[..., Benchmark], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def writes(results: list[float]) -> float:
        Path("submission.json").write_text("[]")
        return 1.0

    made = task(metric_list=[{"metric": "right", "aggregation": writes, "higher_is_better": True}])
    samples = asked(made, pope(0), pope(1))
    summary = made.aggregate(records(made, samples, ["yes", "yes"]))
    assert summary.score == 50.0
    assert "lmms-eval/right" not in summary.breakdown
    assert list(tmp_path.iterdir()) == []


def test_clients_are_found_through_a_tasks_own_functions() -> None:
    import requests

    def posts(text: str) -> Any:
        return requests.post("http://localhost", json=text)

    def scores(doc: Doc, results: list[str]) -> Any:
        return {"right": [posts(text) for text in results]}

    assert guard.client_of(scores) == "requests"
    assert guard.client_of(lambda doc, results: {"right": len(results)}) is None


# ---------------------------------------------------------------- how it is asked


@given(st.text(), st.lists(st.text(max_size=3), max_size=3))
def test_a_response_ends_at_the_first_stop(response: str, until: list[str]) -> None:
    found = cut(response, stops({"until": until}))
    assert response.startswith(found)
    assert not any(text and text in found for text in until)


def test_decoding_is_read_as_llava_hf_reads_it() -> None:
    assert generation({}) == Generation(max_new_tokens=1024)
    assert generation({"max_new_tokens": 16, "temperature": 0, "top_p": 0.5}, seed=3) == Generation(16)
    assert generation({"temperature": 0.5, "top_p": None}, seed=3) == Generation(1024, 0.5, 1.0, 3)
    with pytest.raises(ValueError, match="4 beams"):
        generation({"num_beams": 4})


@given(st.text(alphabet="<image>\n ab", max_size=60))
def test_placeholders_are_taken_out_and_nothing_else(text: str) -> None:
    assert without_places(text).replace("\n", "") == text.replace("<image>", "").replace("\n", "")


cells = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), cells, max_size=4))
def test_rows_are_the_same_after_json(row: dict[str, Any]) -> None:
    light = docs.jsonable(row)
    assert json.loads(json.dumps(light)) == light == row
