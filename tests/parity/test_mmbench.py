"""MMBench's reading and circular evaluation against lmms-eval's own evaluator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stic_eval.benchmarks.mmbench import DEPARTURES, ROTATION, Options, benchmark, vary

from stic_eval.evals.scoring.choice import mmbench_letter
from stic_eval.types import Record, Score
from tests.parity.answers import PARITY, WANTED, answers, batches

evals = pytest.importorskip("lmms_eval.tasks.mmbench.mmbench_evals")

FAILED = "Failed to obtain answer via API"
OPTIONS = (
    ("apple", "banana", "nan", "nan"),
    ("a red cube", "Red", "12 cm", "nan"),
    ("left", "right", "Both of them", "U.S.A."),
)
LEVEL2 = ("logic_reasoning", "attribute_reasoning", "coarse_perception")
TEXTS = sorted({text for texts in OPTIONS for text in texts})


def row(number: int, turn: int = 0) -> dict[str, Any]:
    """One rotation of a question in the hub's schema; the right option is the second at first."""
    texts = [text for text in OPTIONS[number % len(OPTIONS)] if text != "nan"]
    turned = texts[turn % len(texts) :] + texts[: turn % len(texts)]
    cells = dict(zip("ABCD", [*turned, "nan", "nan"], strict=False))
    return {
        "index": number + turn * ROTATION, "question": "What is it?", "hint": "nan", **cells, "image": None,
        "answer": "ABCD"[turned.index(texts[1])], "category": f"c{number}", "source": "x", "split": "dev",
        "L2-category": LEVEL2[number % len(LEVEL2)],
    }  # fmt: skip


@pytest.fixture
def evaluator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lmms-eval's evaluator, whose judge always fails and which says nothing."""
    made = evals.MMBench_Evaluator()
    monkeypatch.setattr(made, "get_chat_response", lambda *_, **__: FAILED)
    evals.eval_logger.disable("lmms_eval")
    yield made
    evals.eval_logger.enable("lmms_eval")


@dataclass(frozen=True)
class Known:
    """A departure as a test: which answers to which row it is about, and the documented example."""

    about: Callable[[dict[str, Any], str], bool]
    answer: str


# In the order of the benchmark's list.
KNOWN = (
    Known(lambda row, answer: "nan" in row.values() and "nan" in answer.lower(), "a banana"),
    Known(lambda row, answer: ours(row, answer)[0] is None, "I cannot tell."),
    Known(lambda row, answer: FAILED in answer, f"B. {FAILED}"),
)


def ours(row: dict[str, Any], answer: str) -> tuple[str | None, float | None]:
    verdict = benchmark.score(benchmark.to_sample(row), answer)
    return verdict.answer, verdict.value


def lmms_letter(evaluator: Any, row: dict[str, Any], answer: str) -> str | None:
    return evaluator.can_infer(answer.strip(), evaluator.build_choices(row)) or None


def drawn() -> st.SearchStrategy[str]:
    return st.one_of(
        answers("ABCDE", TEXTS), answers("ABCD", TEXTS), st.builds("{} {}".format, answers(), FAILS)
    )


FAILS = st.sampled_from((FAILED, "nan", "Nancy", "Finance", ""))


def test_every_answer_is_read_as_lmms_eval_reads_it_or_departs_as_documented(evaluator: Any) -> None:
    rows = [row(number) for number in range(len(OPTIONS))]
    samples = [benchmark.to_sample(each) for each in rows]
    seen: set[str] = set()
    departed = [0, 0, 0]
    read = 0

    @PARITY
    @given(batches(drawn()))
    def check(batch: list[str]) -> None:
        nonlocal read
        for answer in batch:
            seen.add(answer)
            for each, sample in zip(rows, samples, strict=True):
                letter = benchmark.score(sample, answer).answer
                read += letter is not None
                if letter != lmms_letter(evaluator, each, answer):
                    about = [KNOWN[0].about(each, answer), False, KNOWN[2].about(each, answer)]
                    assert any(about), (each, answer)
                    departed[about.index(True)] += 1

    check()
    assert len(seen) >= WANTED
    assert read > 2500
    assert departed[0]
    assert departed[2]


# A unit's answers: any, or the right one in a dress that both read.
_RIGHT = ("{}", "{}.", "({})", "Answer: {}", "{}) it is")


def units() -> st.SearchStrategy[list[str]]:
    some = st.lists(answers("ABCD", TEXTS), min_size=4, max_size=4)
    letters = st.lists(st.sampled_from("ABCD"), min_size=4, max_size=4)
    dressed = st.builds(
        lambda dress, found: [dress.format(x) for x in found], st.sampled_from(_RIGHT), letters
    )
    return st.one_of(some, dressed, st.sampled_from(_RIGHT).map(lambda dress: [dress] * 4))


def test_circular_evaluation_is_lmms_evals_where_every_answer_is_read(evaluator: Any) -> None:
    drawn_units: list[list[str]] = []

    @PARITY
    @given(st.lists(units(), min_size=5, max_size=5))
    def draw(batch: list[list[str]]) -> None:
        drawn_units.extend(batch)

    draw()
    rows: list[dict[str, Any]] = []
    unread: set[str] = set()
    records: list[Record] = []
    # Of these, with one answer that nobody reads, the random draw makes a fifth right.
    nearly = [[*_RIGHT[:3], "hm, no idea"]] * 60
    for number, unit in enumerate([*drawn_units[:1500], *nearly]):
        for turn, given_answer in enumerate(unit):
            each = row(number, turn)
            answer = given_answer.format(each["answer"]) if given_answer in _RIGHT else given_answer
            rows.append({**each, "prediction": answer.strip()})
            sample = benchmark.to_sample(each)
            verdict = benchmark.score(sample, answer)
            records.append(record(sample.id, dict(sample.group), verdict))
            if verdict.answer is None or KNOWN[0].about(each, answer):
                unread.add(str(number))
    assert len(rows) >= WANTED
    summary = benchmark.aggregate(records)
    _, by_unit, _ = evaluator.eval_result(rows, "openai")
    differing = {number for number in summary.units if summary.units[number][0] != by_unit[f"c{number}"]}
    assert differing <= unread
    # The departure that is left: units that the random draw made right.
    assert differing
    assert all(summary.units[number][0] == 0 for number in differing)

    kept = [index for index, each in enumerate(rows) if str(each["index"] % ROTATION) not in unread]
    some = benchmark.aggregate([records[index] for index in kept])
    overall, _, by_ability = evaluator.eval_result([rows[index] for index in kept], "openai")
    assert some.score == pytest.approx(100 * overall)
    assert 10 < some.score < 90
    names = {"LR": "logic_reasoning", "AR": "attribute_reasoning", "CP": "coarse_perception"}
    for short, name in names.items():
        assert some.breakdown[f"ability/{short}"] == pytest.approx(100 * by_ability[name])


def record(name: str, group: dict[str, str], verdict: Score) -> Record:
    return Record(
        name, "", (), None, group, None, "", verdict.answer, verdict.value, 1.0, verdict.why, 0.0, 0
    )


@pytest.mark.parametrize("hint", ["nan", None, "Look at the scale."])
@pytest.mark.parametrize("number", range(len(OPTIONS)))
def test_the_prompt_of_protocol_lmms_is_lmms_evals(number: int, hint: str | None) -> None:
    utils = pytest.importorskip("lmms_eval.tasks.mmbench.en_utils")
    each = {**row(number), "hint": hint}
    wording = {"post_prompt": "\nAnswer with the option's letter from the given choices directly."}
    lmms = vary(Options(protocol="lmms"))
    assert lmms.to_sample(each).question == utils.mmbench_doc_to_text(each, wording)


def test_the_documented_examples_depart(evaluator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    banana, lost, failed = (known.answer for known in KNOWN)
    fruit = row(0)
    assert ours(fruit, banana) == ("B", 1)
    assert lmms_letter(evaluator, fruit, banana) is None
    assert mmbench_letter(banana, {c: fruit[c] for c in "ABCD"}) is None  # what keeping `nan` would do

    assert ours(fruit, lost) == (None, 0)
    draws = []
    for draw in range(5):
        monkeypatch.setattr(evals.rd, "randint", lambda low, high, draw=draw: draw)
        overall, _, _ = evaluator.eval_result([{**fruit, "prediction": lost}], "openai")
        draws.append(overall)
    assert draws == [0, 1, 0, 0, 0]

    assert ours(fruit, failed) == ("B", 1)
    assert lmms_letter(evaluator, fruit, failed) is None

    assert len(KNOWN) == len(DEPARTURES)
    for known, departure in zip(KNOWN, benchmark.departures, strict=True):
        assert known.about(fruit, known.answer)
        assert repr(known.answer) in departure.example
