"""Thinking on its way from a model to whoever uses the answer."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stic_eval import config
from stic_eval.contracts.benchmark import Benchmark, HubData
from stic_eval.contracts.method import Data, SFTItem, items_key
from stic_eval.errors import UserError
from stic_eval.evals import runner
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.images import ref_from_pil
from stic_eval.models.response_cache import CachedVLM
from stic_eval.models.thinking import ThinkingVLM
from stic_eval.selftrain import stages
from stic_eval.selftrain.pair_making import Making, made_pairs
from stic_eval.selftrain.stage_runner import run_stage, stage_key
from stic_eval.setting_groups import ThinkingConfig
from stic_eval.settings import RunConfig
from stic_eval.stage_store import StageStore
from stic_eval.store import ResponseStore, content_key, read_jsonl
from stic_eval.training.hyperparameters import Describing, FineTuning, PairFilter, PairSettings
from stic_eval.training.preference_pairs import AnsweredPair, question
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import Generation, Message, Request, Response, Sample, Score
from tests.support.fake import FakeVLM
from tests.support.scripted import Scripted, rows_of, solving

DEFAULT = ThinkingConfig()


def ask(text: str, tokens: int = 8, *begun: str) -> Request:
    turns = (Message("user", text), *(Message("assistant", part) for part in begun))
    return Request(turns, (), Generation(tokens))


def answered(said: str | Response, how: ThinkingConfig = DEFAULT) -> Response:
    model = Scripted(lambda request: said)
    ((_, response),) = ThinkingVLM(model.generate, "m", how).generate([ask("?")])
    return response


# ---------------------------------------------------------------- in front of a model


def test_a_response_holds_both_apart() -> None:
    found = answered("<think>so</think>\nB")
    assert (found.text, found.thinking, found.unclosed) == ("B", "so", False)
    assert answered("B\n") == answered("B\n", ThinkingConfig(tags=()))
    assert answered("B").thinking == ""


def test_a_failure_stays_one() -> None:
    failed = Response("", 0, "failed", why="HTTP 413")
    assert answered(failed) == failed


def test_thinking_that_a_server_has_told_apart() -> None:
    both = answered(Response("B", 9, "stop", thinking="so"))
    assert (both.text, both.thinking, both.unclosed) == ("B", "so", False)
    cut = answered(Response("", 9, "length", thinking="so"))
    assert (cut.text, cut.thinking, cut.unclosed) == ("", "so", True)
    assert not answered(Response("", 9, "length")).unclosed, "nobody says that it was thinking"
    how = ThinkingConfig(opened=True)
    assert answered(Response("B", 9, "stop", thinking="so"), how).text == "B", "it is closed already"
    assert answered("so B", how).unclosed


def test_the_room_is_added_to_every_bound_but_that_of_an_answer_that_has_begun() -> None:
    model = FakeVLM(lambda request: "x")
    requests = [ask("a", 8), ask("b", 16), ask("a", 8), ask("c", 8, "It is")]
    found = [
        request
        for request, _ in ThinkingVLM(model.generate, "m", ThinkingConfig(max_new_tokens=100)).generate(
            requests
        )
    ]
    assert found == requests
    assert [request.generation.max_new_tokens for request in model.asked] == [108, 116, 108, 8]


def test_texts_that_end_all_answers_are_put_beside_those_of_a_request() -> None:
    model = FakeVLM(lambda request: "x")
    requests = [ask("a"), replace(ask("b"), generation=Generation(8, stop=("own",)))]
    found = [request for request, _ in ThinkingVLM(model.generate, "m", DEFAULT, ("all",)).generate(requests)]
    assert found == requests
    assert [request.generation.stop for request in model.asked] == [("all",), ("own", "all")]


@pytest.mark.parametrize(
    ("how", "answer", "thinking"), [(DEFAULT, "B", "one\n\ntwo"), (ThinkingConfig(tags=()), "<think>one", "")]
)
def test_texts_that_end_an_answer_are_looked_for_in_what_is_the_answer(
    how: ThinkingConfig, answer: str, thinking: str
) -> None:
    model = Scripted(lambda request: "<think>one\n\ntwo</think>\n\nB")
    ((_, found),) = ThinkingVLM(model.generate, "m", how, ("\n\n",)).generate([ask("?")])
    assert (found.text, found.thinking, found.unclosed) == (answer, thinking, False)


# ---------------------------------------------------------------- what the cache keeps


def test_a_cache_keeps_what_was_written_for_other_tags(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "r.sqlite")
    said = {"a": "<seed:think>so</seed:think>B", "b": Response("C", 3, "stop", 1.0, thinking="apart")}
    model = Scripted(lambda request: said[request.messages[0].text])
    cached = CachedVLM(lambda: model, "m", store)
    requests = [ask("a"), ask("b")]

    def found(how: ThinkingConfig) -> list[tuple[str, str]]:
        got = dict(ThinkingVLM(cached.generate, "m", how).generate(requests))
        return [(got[request].text, got[request].thinking) for request in requests]

    assert found(DEFAULT) == [("<seed:think>so</seed:think>B", ""), ("C", "apart")]
    assert found(ThinkingConfig(tags=(("<seed:think>", "</seed:think>"),))) == [("B", "so"), ("C", "apart")]
    assert len(model.asked) == 2
    assert dict(ResponseStore(store.path).get_many(["x"])) == {}


def test_a_cache_of_an_earlier_version_is_read_and_one_of_this_version_is_written_by_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "r.sqlite"
    db = sqlite3.connect(path)
    db.execute(
        "CREATE TABLE responses (key TEXT PRIMARY KEY, text TEXT NOT NULL, n_tokens INTEGER NOT NULL,"
        " finish_reason TEXT NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID"
    )
    db.execute("INSERT INTO responses VALUES ('old', 'B', 2, 'stop', 0.5)")
    db.commit()
    store = ResponseStore(path)
    assert store.get_many(["old"]) == {"old": Response("B", 2, "stop", 0.5)}
    new = Response("C", 3, "stop", 1.0, thinking="so")
    store.put_many({"new": new, "old": replace(new, text="another")})
    assert store.get_many(["new", "old"]) == {"new": new, "old": Response("B", 2, "stop", 0.5)}
    db.execute("INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?, ?)", ("later", "D", 1, "stop", 0.0))
    db.commit()
    assert store.get_many(["later"])["later"].text == "D"
    store.put_many({"new": Response("E", 1, "stop")}, replace=True)
    assert store.get_many(["new"]) == {"new": Response("E", 1, "stop")}


# ---------------------------------------------------------------- records and verdicts

BENCHMARK = Benchmark(
    name="letters", title="Letters", version=1, source=HubData("nobody/letters", "test"),
    to_sample=lambda row: Sample("", (), "", None), generation=Generation(6),
    score=lambda sample, text: Score(float(text == "B"), text), aggregate=summarize, protocol="a letter",
)  # fmt: skip
PICTURE = ref_from_pil(Image.new("RGB", (8, 8), "red"), "red")


def evaluated(
    tmp_path: Path, says: Callable[[Request], str | Response], solver: Any = "direct", **how: Any
) -> Any:
    samples = [Sample(str(n), (PICTURE,), f"question {n}", "B") for n in range(4)]
    model = Scripted(says)
    return runner.evaluate(
        BENCHMARK, samples, ThinkingVLM(model.generate, "m", ThinkingConfig(**how)),
        **solving(solver, **({} if solver == "direct" else {"prompt": "Describe.", "max_new_tokens": 4})),
        progress=lambda done, total: None,
    )  # fmt: skip


def by_number(*texts: str | Response) -> Callable[[Request], str | Response]:
    return lambda request: texts[int(request.messages[0].text[-1])]


def test_thinking_is_kept_in_records_and_one_that_never_closes_is_unscored(tmp_path: Path) -> None:
    records, summary = evaluated(tmp_path, by_number("<think>so</think>B", "C", "<think>B or", "B"))
    assert [(r.response, r.thinking, r.unclosed, r.score) for r in records] == [
        ("B", "so", False, 1.0), ("C", "", False, 0.0), ("", "B or", True, None), ("B", "", False, 1.0),
    ]  # fmt: skip
    assert records[2].why == "cut while the model was thinking"
    assert (summary.unscored, summary.unclosed, summary.thoughtful, summary.answers) == (1, 1, 2, 4)
    (tmp_path / "r.jsonl").write_bytes(runner.encode(records))
    assert [row["thinking"] for row in read_jsonl(tmp_path / "r.jsonl")] == ["so", "", "B or", ""]


def test_where_answers_only_close_a_tag_those_without_any_are_cut_if_they_ran_into_their_bound(
    tmp_path: Path,
) -> None:
    cut = Response("B perhaps", 6, "length")
    records, summary = evaluated(
        tmp_path, by_number("so</think>B", cut, "B", Response("B", 6, "length", thinking="x"))
    )
    assert [(r.response, r.thinking, r.score) for r in records] == [
        ("B", "so", 1.0), ("", "B perhaps", None), ("B", "", 1.0), ("B", "x", 1.0),
    ]  # fmt: skip
    assert summary.unclosed == 1
    records, summary = evaluated(tmp_path, by_number("C", cut, "B", "B"))
    assert (records[1].response, records[1].score, summary.unclosed) == ("B perhaps", 0.0, 0)
    records, summary = evaluated(tmp_path, by_number("C", cut, "B", "so</think>B"), opened=True)
    assert summary.unclosed == 3, "whoever says that prompts open the tag is taken at their word"


def in_a_file(*texts: str) -> list[runner.Answered]:
    """Answers to rows, as they are read from a file: where one was cut, nobody knows."""
    found = []
    for number, text in enumerate(texts):
        sample = Sample(str(number), (PICTURE,), f"question {number}", "B")
        response = answered(text)
        found.append(runner.Answered(sample, response, BENCHMARK.score(sample, response.text)))
    return runner.cut_thinking(found, finished=True)


def test_one_answer_that_speaks_of_a_closing_tag_does_not_unscore_the_others() -> None:
    found = in_a_file("It ends with </think> as it should. B", *["B"] * 999)
    assert [item.verdict.value for item in found[1:]] == [1.0] * 999
    assert not any(item.response.unclosed for item in found)
    assert runner.closing([item.response for item in found], finished=True) == (1, 1000)


@pytest.mark.parametrize(("closers", "others", "cut"), [(1, 1, 1), (4, 5, 0), (5, 4, 4), (1, 0, 0)])
def test_answers_without_tags_are_cut_where_at_least_half_close_one(
    closers: int, others: int, cut: int
) -> None:
    # Empty answers, and thinking that has both of its tags, say nothing about how prompts end.
    found = in_a_file(*["so</think>B"] * closers, *["B"] * others, "", "<think>so</think>B", "<think>so")
    assert sum(item.response.unclosed for item in found) == cut + 1


def test_at_a_server_answers_that_ran_into_their_bound_do_not_count_among_the_others(tmp_path: Path) -> None:
    cut = Response("B perhaps", 6, "length")
    records, _ = evaluated(tmp_path, by_number("so</think>B", cut, cut, cut))
    assert [record.score for record in records] == [1.0, None, None, None]
    records, _ = evaluated(tmp_path, by_number("so</think>B", cut, "C", "C"))
    assert [record.score for record in records] == [1.0, 0.0, 0.0, 0.0]


def test_a_description_is_the_answer_without_the_thinking(tmp_path: Path) -> None:
    asked: list[str] = []

    def says(request: Request) -> str:
        asked.append(request.messages[0].text)
        return "<think>hm</think>a circle" if asked[-1] == "Describe." else "<think>so</think>B"

    records, summary = evaluated(tmp_path, says, "describe_and_respond")
    assert {record.description for record in records} == {"a circle"}
    assert sorted(text for text in asked if text != "Describe.") == [
        f"Image description:\na circle\nquestion {n}" for n in range(4)
    ]
    assert summary.thoughtful == 4


def test_a_description_that_is_cut_while_the_model_thinks_leaves_its_questions_unscored(
    tmp_path: Path,
) -> None:
    records, summary = evaluated(tmp_path, lambda request: "<think>hm", "describe_and_respond")
    assert (summary.unclosed, summary.unscored, summary.score) == (4, 4, None)
    assert {(record.response, record.thinking, record.description) for record in records} == {
        ("", "hm", None)
    }


# ---------------------------------------------------------------- self-training


class Quiet:
    """A report that remembers its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def log(self, text: str) -> None:
        self.lines.append(text)

    def step(self, name: str, total: int | None) -> Any:
        from contextlib import nullcontext
        from types import SimpleNamespace

        return nullcontext(SimpleNamespace(update=lambda done, total=None: None))


def picture(n: int) -> Any:
    return ref_from_pil(Image.new("RGB", (8, 8), (n, 0, 0)), str(n))


IMAGES = tuple(picture(n) for n in range(4))
ITEMS = tuple(SFTItem(str(n), picture(50 + n), (("user", "What?"), ("assistant", "That."))) for n in range(3))
DATA = Data(IMAGES, ITEMS, content_key([image.sha256 for image in IMAGES]), items_key(ITEMS), load_prompts())


def made(tmp_path: Path, stage: Any, says: Callable[[Request], str]) -> tuple[Path, list[str]]:
    report, model = Quiet(), Scripted(says)
    store = ResponseStore(tmp_path / "responses.sqlite")
    folder = run_stage(
        stage, data=DATA, seed=0, fingerprint="base", model=lambda adapter: model,
        answers=lambda adapter: model, scorer=lambda adapter: None, responses=lambda: store,
        store=StageStore(tmp_path / "stages"), report=report, thinking=DEFAULT,
    )  # fmt: skip
    return folder, report.lines


def thoughtful(request: Request) -> str:
    """Thinks first; about the first picture, for ever."""
    first = bool(request.images) and request.images[0].sha256 in (IMAGES[0].sha256, ITEMS[0].image.sha256)
    return "<think>for ever" if first else f"<think>hm</think>It is {request.generation.seed}."


def test_pairs_are_made_of_answers_alone(tmp_path: Path) -> None:
    settings = PairSettings(images=4, p_corrupt=0.0)
    folder, lines = made(tmp_path, stages.pairs(settings, DATA), thoughtful)
    rows = rows_of(folder)
    texts = [row[side][0]["content"] for row in rows for side in ("chosen", "rejected")]
    assert len(rows) == 3
    assert all(text.startswith("It is") for text in texts)
    assert any("1 with an answer cut while thinking" in line for line in lines)
    assert any("2 of 8 answers were cut while the model was thinking" in line for line in lines)


def test_a_methods_own_pairs_are_made_of_answers_alone(tmp_path: Path) -> None:
    def make(making: Making, how: PairFilter) -> Any:
        asked = [question("What?", image, Describing(max_new_tokens=5)) for image in making.images]
        for image, good in zip(making.images, making.answers(asked), strict=True):
            yield AnsweredPair(image, "What?", good.text, "no")

    stage = made_pairs(make, PairFilter, PairFilter(), DATA, version=1, rows=4, generations=4, images=4)
    folder, lines = made(tmp_path, stage, thoughtful)
    assert [row["chosen"][0]["content"][:5] for row in rows_of(folder)] == ["It is"] * 3
    assert any("1 with an answer cut while thinking" in line for line in lines)


def test_descriptions_are_answers_alone_and_an_item_without_one_is_left_out(tmp_path: Path) -> None:
    stage = stages.descriptions(None, DATA, tuning=FineTuning(items=3), how=Describing())
    folder, lines = made(tmp_path, stage, thoughtful)
    found = [row["description"] for row in read_jsonl(folder / "descriptions.jsonl")]
    assert found[0] is None and all(text.startswith("It is") for text in found[1:])
    assert any("1 of 3 answers were cut" in line for line in lines)


def test_items_without_a_description_are_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stic_eval.training import sft
    from stic_eval.training.lora import LoraSettings

    trained: list[SFTItem] = []

    def train(hf: Any, items: Any, out: Path, **how: Any) -> None:
        trained.extend(items)
        (out / "adapter").mkdir()

    monkeypatch.setattr(sft, "train_sft", train)
    tuning = FineTuning(items=3)
    described = stages.descriptions(None, DATA, tuning=tuning, how=Describing())
    made(
        tmp_path,
        stages.infused_sft(DATA, tuning=tuning, lora=LoraSettings(), described=described),
        thoughtful,
    )
    assert [item.id for item in trained] == ["1", "2"]
    assert all("It is" in item.turns[0][1] and "hm" not in item.turns[0][1] for item in trained)


def test_it_is_in_keys_where_it_is_not_the_default() -> None:
    stage = stages.pairs(PairSettings(images=4), DATA)
    assert stage_key(stage, DATA, "m", 0) == stage_key(stage, DATA, "m", 0, thinking=ThinkingConfig())
    keys = {stage_key(stage, DATA, "m", 0, thinking=how)
            for how in (DEFAULT, ThinkingConfig(max_new_tokens=9), ThinkingConfig(tags=()))}  # fmt: skip
    assert len(keys) == 3
    assert RunConfig().key == RunConfig(thinking=ThinkingConfig()).key
    assert RunConfig().key != RunConfig(thinking=ThinkingConfig(opened=True)).key


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('thinking.tags=[["<a>", "<a>"]]', "a pair is two different tags"),
        ('thinking.answer_tags=[[" ", "<a>"]]', "a pair is two different tags"),
        ("thinking.max_new_tokens=-1", "greater than or equal to 0"),
        ("thinking.tag=[]", 'did you mean "thinking.tags"?'),
    ],
)
def test_what_does_not_fit_is_one_line(setting: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        config.load(overrides=[setting])
    assert str(caught.value).startswith("-o thinking.") and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tags_are_set_by_name() -> None:
    built = config.load(overrides=['thinking.tags=[["<a>", "</a>"]]', "thinking.max_new_tokens=64"])
    assert built.thinking == ThinkingConfig(tags=(("<a>", "</a>"),), max_new_tokens=64)
    assert built.thinking.more_tags == (("<a>", "</a>"),)
    assert config.load().thinking.more_tags == ()
    saved = config.load(file=None, overrides=["thinking.tags=[]"]).thinking
    assert saved.tags == () and saved.changed == {"tags": []}
