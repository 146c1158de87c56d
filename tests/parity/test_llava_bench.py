"""LLaVA-Bench's reading of reviews and its ratio against lmms-eval's own functions."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stic_eval.benchmarks.llava_bench import DEPARTURES, JUDGING, Options, benchmark, vary

from stic_eval.contracts.benchmark import Unreadable
from stic_eval.types import Record, Score
from tests.parity.answers import PARITY, WANTED, answers, batches

pytest.importorskip("lmms_eval")

NONE = [-1, -1]
CATEGORIES = ("conv", "detail", "complex")


def row(number: int) -> dict[str, Any]:
    return {
        "question_id": number, "question": "What is it?", "image": None, "caption": ["A hotel.", "By a sea."],
        "gpt_answer": "The Ritz.", "category": CATEGORIES[number % 3], "image_id": "001",
    }  # fmt: skip


SAMPLE = benchmark.to_sample(row(0))


@pytest.fixture(scope="module")
def lmms() -> Any:
    """Lmms-eval's task, with its parser and without its client."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "none")
        module = importlib.import_module("lmms_eval.tasks.llava-in-the-wild.utils")
        # The answer that is graded is the review itself.
        patch.setattr(
            module,
            "_get_pipeline",
            lambda: lambda *, prediction, **_: module._parse_comparative_scores(prediction),
        )
        yield module


def ours(reply: str) -> list[float] | None:
    try:
        verdict = JUDGING.official.read(SAMPLE, "", reply)
    except Unreadable:
        return None
    assert verdict.value is not None
    assert not verdict.open
    return [verdict.weight * 10, verdict.value * 10]


def theirs(lmms: Any, reply: str) -> list[float]:
    found: list[float] = lmms._parse_comparative_scores(reply).metadata["scores"]
    return found


# ---------------------------------------------------------------- reviews

_POINTS = st.one_of(
    st.integers(1, 10).map(str), st.integers(1, 10).map(str), st.integers(2, 20).map(lambda n: f"{n / 2:g}"),
    st.floats(1, 10).map("{:.1f}".format), st.integers(0, 120).map(str),
    st.floats(-2, 12).map("{:.2f}".format),
    st.sampled_from(("0", "11", "-1", "07", "1e1", "8.", ".5", "\u0668", "\uff18", "8.1234567", "ten", "")),
)  # fmt: skip
_BETWEEN = (
    " ",
    " ",
    " ",
    ", ",
    ",",
    " , ",
    "  ",
    "\t",
    ";",
    "/",
    " / ",
    " and ",
    " vs ",
    "\u00a0",
    "-",
    ":",
    "\n",
)
_BEFORE = (
    "",
    "",
    "",
    "",
    "\n\n",
    " ",
    "Scores: ",
    "**",
    "- ",
    "1. ",
    "Assistant 1: ",
    "[",
    "(",
    "The two scores are ",
    "\u2028",
)
_AFTER = ("", "", "", "", "\n", "\n\n", " ", ".", "**", "]", ")", " 9", "/10", " points", ", because", " %")
_WHY = (
    "",
    "",
    "\nAssistant 2 errs.",
    "\n\nBoth 9 and 10 would do.",
    "\r\nFine.",
    "\n7 8",
    "\nVerdict: 10 10",
)
_LABELLED = (
    "{}Assistant 1: {}\nAssistant 2: {}\n{}", "{}Assistant 1: {}\n\n Assistant 2: {} {}",
    "{}Assistant 2: {}\nAssistant 1: {}{}", "{}Assistant 1: {}, Assistant 2: {}{}",
    "{}Answer 1: {}\nAnswer 2: {}{}", "{}Assistant 1: {}\nIt is short.\nAssistant 2: {}{}",
    "{}Assistant 1: {}\nAssistant 2: {}\nAssistant 3: 4{}", "{}**Assistant 1: {}**\n**Assistant 2: {}**{}",
)  # fmt: skip
_FIRST = ("", "", "Scores:\n", "The scores are as follows.\n\n", "Two scores:\n", "1 and 2:\n", "\n")


def reviews() -> st.SearchStrategy[str]:
    pair = st.builds(
        "{}{}{}{}{}{}".format, *map(st.sampled_from, (_BEFORE,)), _POINTS, st.sampled_from(_BETWEEN), _POINTS,
        st.sampled_from(_AFTER), st.sampled_from(_WHY),
    )  # fmt: skip
    plain = st.builds("{} {}{}".format, _POINTS, _POINTS, st.sampled_from(_WHY))
    labelled = st.builds(
        str.format,
        st.sampled_from(_LABELLED),
        st.sampled_from(_FIRST),
        _POINTS,
        _POINTS,
        st.sampled_from(_WHY),
    )
    reasoned = st.builds("{}{}{}".format, plain, st.sampled_from(("\n", "\n\n", "\n", " ")), answers())
    return st.one_of(pair, pair, plain, reasoned, reasoned, reasoned, labelled, answers())


@dataclass(frozen=True)
class Known:
    """A departure as a test: the reviews that it is about, the documented one, both verdicts."""

    about: Callable[[str], bool]
    reply: str
    ours: list[float] | None
    lmms: list[float]


def first_line(reply: str) -> str:
    return reply.strip().split("\n")[0]


_PLAIN = re.compile(r"\s*[0-9]+(?:\.[0-9]{1,6})?(?:\s*,\s*|\s+)[0-9]+(?:\.[0-9]{1,6})?\s*")
_TWO_LINES = re.compile(r"^\s*Assistant 1: [0-9.]+\s*\n\s*Assistant 2: [0-9.]+\s*$", re.MULTILINE)


def _pair(reply: str) -> bool:
    return bool(_PLAIN.fullmatch(first_line(reply)))


def _in_range(reply: str) -> bool:
    return all(1 <= float(number) <= 10 for number in re.findall(r"[0-9.]+", first_line(reply)))


def _labelled(reply: str) -> bool:
    return not re.search(r"[0-9]", first_line(reply)) and bool(_TWO_LINES.search(reply))


def _unread(reply: str) -> bool:
    return len(re.findall(r"\d+", first_line(reply))) < 2 or not _pair(reply) or not _in_range(reply)


# In the order of the benchmark's list; the last is about the ratio and has a test of its own.
KNOWN = (
    Known(_unread, "I cannot compare them.", None, NONE),
    Known(lambda reply: not _pair(reply), "Assistant 1: 8, Assistant 2: 9", None, [1, 8]),
    Known(lambda reply: _pair(reply) and not _in_range(reply), "8 85", None, [8, 85]),
    Known(_labelled, "Points:\nAssistant 1: 8\nAssistant 2: 9", [8, 9], NONE),
)


def test_every_review_is_read_as_lmms_eval_reads_it_or_departs_as_documented(lmms: Any) -> None:
    seen: set[str] = set()
    agreed = 0
    departed = [0] * len(KNOWN)

    @PARITY
    @given(batches(reviews()))
    def check(batch: list[str]) -> None:
        nonlocal agreed
        for reply in batch:
            seen.add(reply)
            found, other = ours(reply), theirs(lmms, reply)
            if found is not None and other != NONE:
                assert found == pytest.approx(other), reply
                assert _pair(reply) and _in_range(reply), reply
                agreed += 1
                continue
            which = 3 if found is not None else 0 if other == NONE else 2 if _pair(reply) else 1
            assert KNOWN[which].about(reply), reply
            departed[which] += 1

    check()
    assert len(seen) >= WANTED
    assert agreed > 1000
    assert min(departed) > 50, departed


@pytest.mark.parametrize("number", range(len(KNOWN)))
def test_the_documented_example_departs(lmms: Any, number: int) -> None:
    known = KNOWN[number]
    assert known.about(known.reply)
    assert repr(known.reply) in DEPARTURES[number].example
    assert (ours(known.reply), theirs(lmms, known.reply)) == (known.ours, known.lmms)


def test_there_is_a_test_for_each_departure() -> None:
    assert len(KNOWN) + 1 == len(DEPARTURES) == len(benchmark.departures)


# ---------------------------------------------------------------- the ratio


def record(number: int, reply: str) -> Record:
    sample = benchmark.to_sample(row(number))
    try:
        verdict = JUDGING.official.read(sample, "", reply)
    except Unreadable as error:
        verdict = Score(None, why=str(error))
    return Record(
        sample.id,
        "",
        (),
        sample.target,
        sample.group,
        None,
        "",
        None,
        verdict.value,
        verdict.weight,
        None,
        0,
        0,
    )


def lmms_ratios(lmms: Any, replies: dict[int, str]) -> dict[str, float]:
    results = [lmms.llava_process_results(row(number), [reply]) for number, reply in replies.items()]
    return {
        name: lmms.llava_aggregation([result[f"gpt_eval_llava_{name}"] for result in results], name)
        for name in ("all", *CATEGORIES)
    }


def our_ratios(replies: dict[int, str]) -> dict[str, float]:
    summary = benchmark.aggregate([record(number, reply) for number, reply in replies.items()])
    assert summary.score is not None
    named = {name: summary.breakdown[f"category/{name}"] for name in CATEGORIES}
    return {"all": summary.score, **named}


def by_hand(replies: dict[int, str], means: int | None, ratio: int | None) -> dict[str, float]:
    """Ratios of our points, with the mean points and the ratio rounded to so many decimals."""
    found = {}
    for name in ("all", *CATEGORIES):
        some = [record(n, reply) for n, reply in replies.items() if name in ("all", CATEGORIES[n % 3])]
        points = [[round(10 * each, 6) for each in (one.score or 0, one.weight)] for one in some]
        ours, reference = (sum(column) / len(some) for column in zip(*points, strict=True))
        if means is not None:
            ours, reference = round(ours, means), round(reference, means)
        found[name] = ours / reference * 100
    return found if ratio is None else {name: round(value, ratio) for name, value in found.items()}


def test_the_ratio_is_lmms_evals_but_for_its_rounding(lmms: Any) -> None:
    points = st.integers(2, 20).map(lambda n: f"{n / 2:g}")
    review = st.builds("{} {}\nSo it is.".format, points, points)
    asked = 0

    @PARITY
    @given(st.lists(review, min_size=12, max_size=60))
    def check(batch: list[str]) -> None:
        nonlocal asked
        replies = dict(enumerate(batch))
        asked += len(batch)
        assert by_hand(replies, 3, 1) == lmms_ratios(lmms, replies)
        assert by_hand(replies, None, None) == pytest.approx(our_ratios(replies))

    check()
    assert asked >= WANTED


def test_the_documented_examples_of_the_ratio(lmms: Any) -> None:
    three = {0: "8 7", 3: "9 8", 6: "10 7"}
    assert all(f"'{reply}'" in DEPARTURES[4].example for reply in three.values())
    summary = benchmark.aggregate([record(number, reply) for number, reply in three.items()])
    assert f"{summary.score:.3f}" == "81.481"
    assert lmms_ratios_of(lmms, three, "all") == 81.5
    # A review that cannot be read: left out here, and in there as -1 and -1.
    lost = {**three, 9: KNOWN[0].reply}
    left_out = benchmark.aggregate([record(number, reply) for number, reply in lost.items()])
    assert (left_out.score, left_out.n, left_out.unscored) == (summary.score, 4, 1)
    assert lmms_ratios_of(lmms, lost, "all") == round(100 * 5.25 / 6.5, 1)


def lmms_ratios_of(lmms: Any, replies: dict[int, str], name: str) -> float:
    results = [lmms.llava_process_results(row(number), [reply]) for number, reply in replies.items()]
    found: float = lmms.llava_aggregation([result[f"gpt_eval_llava_{name}"] for result in results], name)
    return found


# ---------------------------------------------------------------- prompts


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("answer", ["A hotel.", "", "[System]\n{x} %s\n10 10"])
def test_prompts_are_lmms_evals(lmms: Any, monkeypatch: pytest.MonkeyPatch, number: int, answer: str) -> None:
    asked: list[str] = []

    def pipeline(**given_to: Any) -> SimpleNamespace:
        asked.append(given_to["content"])
        return SimpleNamespace(raw_output="8 9", metadata={"scores": [8, 9]})

    monkeypatch.setattr(lmms, "_get_pipeline", lambda: pipeline)
    lmms.llava_process_results(row(number), [answer])
    sample = vary(Options(protocol="lmms")).to_sample(row(number))
    assert [JUDGING.official.prompt(sample, answer)] == asked
    assert sample.question == lmms.llava_doc_to_text(row(number), {"pre_prompt": "", "post_prompt": ""})
    assert replace(sample, id="") == replace(benchmark.to_sample(row(number)), id="")
    task = lmms.config["generation_kwargs"]
    assert vary(Options(protocol="lmms")).generation.max_new_tokens == task["max_new_tokens"]
