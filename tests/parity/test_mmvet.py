"""MM-Vet's reading of a judge's points, its mean and its breakdown against lmms-eval's own functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stic_eval.benchmarks.mmvet import CAPABILITIES, DEPARTURES, JUDGING, Options, benchmark, vary

from stic_eval.contracts.benchmark import Unreadable
from stic_eval.types import Record, Score
from tests.parity.answers import PARITY, WANTED, answers, batches

pytest.importorskip("lmms_eval")
pytest.importorskip("openai")

ROW: dict[str, Any] = {
    "question_id": "v1_0", "question": "What is x in the equation?", "image": None, "image_source": "x",
    "answer": "-1<AND>-5<OR>five", "capability": "ocr,math",
}  # fmt: skip
SAMPLE = benchmark.to_sample(ROW)


class AskedAgain(BaseException):
    """Lmms-eval does not take the reply and asks another time."""


class Judge:
    """What answers lmms-eval's requests.

    Attributes:
        reply: The answer to every request.
        asked: Prompt and temperature of each.
    """

    def __init__(self) -> None:
        self.reply, self.patient = "", False
        self.asked: list[tuple[str, float]] = []

    def evaluate(self, request: Any) -> SimpleNamespace:
        if self.asked and self.reply.strip() and not self.patient:
            raise AskedAgain
        self.asked.append((request.messages[0]["content"], request.config.temperature))
        return SimpleNamespace(content=self.reply, model_used="judge")


@pytest.fixture(scope="module")
def judge() -> Iterator[Any]:
    """A judge, and lmms-eval's task that asks it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "none")  # its module makes a client when it is imported
        from lmms_eval.tasks.mmvet import utils

        made = Judge()
        patch.setattr(utils, "server", made)
        patch.setattr(utils, "time", SimpleNamespace(sleep=lambda seconds: None))
        utils.eval_logger.disable("lmms_eval")
        yield SimpleNamespace(judge=made, utils=utils)
        utils.eval_logger.enable("lmms_eval")


def theirs(judge: Any, reply: str, row: dict[str, Any] = ROW, answer: str = "x = -1") -> float | None:
    """Lmms-eval's points; None: it asks again."""
    judge.judge.reply, judge.judge.asked = reply, []
    try:
        found: float = judge.utils.mmvet_process_results(row, [answer])["gpt_eval_score"]["score"]
    except AskedAgain:
        return None
    return found


def ours(reply: str) -> float | None:
    try:
        verdict = JUDGING.official.read(SAMPLE, "", reply)
    except Unreadable:
        return None
    assert (verdict.weight, verdict.open) == (1, False)
    return verdict.value


# ---------------------------------------------------------------- replies

_POINTS = st.one_of(
    st.integers(0, 10).map(lambda n: f"{n / 10:.1f}"), st.integers(0, 10).map(lambda n: f"{n / 10:g}"),
    st.integers(0, 100).map(lambda n: f"{n / 100:.2f}"), st.floats(-0.5, 1.5).map("{:.3f}".format),
    st.integers(0, 120).map(str), st.floats(0, 1).map(str),
    st.sampled_from((".5", "1.", "1e-1", "0_1", "+0.5", "-0", "-0.0", "nan", "inf", "\u0661",
                     "0.\u0665", "1,0")),
)  # fmt: skip
_BEFORE = (
    "",
    "",
    "",
    "",
    "",
    "",
    " ",
    "\n",
    "| ",
    "|",
    "**",
    "Correctness: ",
    "The score is ",
    "~",
    "`",
    "\u00a0",
    "x | ",
)
_AFTER = (
    "", "", "", "", "", " ", "\n", " |", "|", " | x", "%", " %", "/1.0", " / 1", " out of 10", " - 0.7",
    "-0.7", " to 1", " or 0.9", ".", ",", ", because", " (partly)", "**", "\nBecause it is.",
    "\n\nIt names 2 of 3.", "\t1", " 0.5", "\r\nwhy", " because of -5", "\n0.7", "\u00a0x",
)  # fmt: skip


def replies() -> st.SearchStrategy[str]:
    some = st.builds("{}{}{}".format, st.sampled_from(_BEFORE), _POINTS, st.sampled_from(_AFTER))
    tenths = st.integers(0, 1000).map(lambda n: f"{n / 1000:g}")
    reasoned = st.builds(
        "{}{}{}".format, st.one_of(_POINTS, tenths), st.sampled_from((" ", " ", "\n", " | ")), answers()
    )
    plain = st.builds("{} {}".format, tenths, st.sampled_from(("", "so", "it is right.", "|", "\nwhy")))
    return st.one_of(some, some, some, reasoned, reasoned, plain, answers())


@dataclass(frozen=True)
class Known:
    """A departure as a test: the replies that it is about, the documented one, both verdicts."""

    about: Callable[[str], bool]
    reply: str
    ours: float | None
    lmms: float | None


_NOTATION = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,6})?")


def first(reply: str) -> str:
    """As far as lmms-eval reads."""
    return reply.strip().split(" ")[0].strip()


_MORE = re.compile(r"\s*(?:[/%~,-]|to |or |out of |of )?\s*[0-9%]")


def _goes_on(reply: str) -> bool:
    """What follows the number, in its line or in the next, begins with another one or a per cent sign."""
    line, _, rest = reply.replace("|", " ").strip().partition("\n")
    return bool(_MORE.match(line[len(line.split()[0]) :]) or _MORE.match(rest))


def _notation(reply: str) -> bool:
    return not _NOTATION.fullmatch(first(reply))


def _further(reply: str) -> bool:
    """The number ends at something else than a blank, or begins behind a bar."""
    bare = reply.replace("|", " ").split()
    return _notation(reply) and bool(bare) and bool(_NOTATION.fullmatch(bare[0])) and float(bare[0]) <= 1


def _unread(reply: str) -> bool:
    try:
        return not 0 <= float(first(reply)) <= 1
    except ValueError:
        return not _further(reply) or _goes_on(reply)


# In the order of the benchmark's list.
KNOWN = (
    Known(_unread, "Correct", None, None),
    Known(_goes_on, "1 / 10", None, 1.0),
    Known(_further, "0.5|", 0.5, None),
    Known(_notation, "+0.5", None, 0.5),
)


def test_every_reply_is_read_as_lmms_eval_reads_it_or_departs_as_documented(judge: Any) -> None:
    seen: set[str] = set()
    agreed = 0
    departed = [0] * len(KNOWN)

    @PARITY
    @given(batches(replies()))
    def check(batch: list[str]) -> None:
        nonlocal agreed
        for reply in batch:
            seen.add(reply)
            found, other = ours(reply), theirs(judge, reply)
            if not reply.strip():
                assert (found, other) == (None, 0)  # a judge that gave nothing
                continue
            if found is not None and other is not None:
                assert found == other, reply
                agreed += 1
                continue
            which = 2 if found is not None else 0 if other is None else 3 if _notation(reply) else 1
            assert KNOWN[which].about(reply), (which, repr(reply), found, other)
            departed[which] += 1

    check()
    assert len(seen) >= WANTED
    assert agreed > 1000
    assert min(departed) > 50, departed


@pytest.mark.parametrize("number", range(len(KNOWN)))
def test_the_documented_example_departs(judge: Any, number: int) -> None:
    known = KNOWN[number]
    assert known.about(known.reply)
    assert f"'{known.reply}'" in DEPARTURES[number].example
    assert (ours(known.reply), theirs(judge, known.reply)) == (known.ours, known.lmms)


def test_lmms_eval_raises_the_temperature_and_gives_0(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge.judge, "patient", True)
    assert theirs(judge, KNOWN[0].reply) == 0
    assert sorted({temperature for _, temperature in judge.judge.asked}) == [0, 0.5, 1, 1.5, 2]


def test_there_is_a_test_for_each_departure() -> None:
    assert len(KNOWN) == len(DEPARTURES) == len(benchmark.departures)


# ---------------------------------------------------------------- the mean


V1 = tuple(name for name in CAPABILITIES if name != "seq")  # lmms-eval knows no others


def test_mean_and_breakdown_are_lmms_evals(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(judge.utils, "eval_logger", SimpleNamespace(info=said.append))
    tags = st.lists(st.sampled_from(V1), min_size=1, max_size=4, unique=True)
    item = st.tuples(tags.map(",".join), st.integers(0, 10).map(lambda n: n / 10))
    asked = combined = 0

    @PARITY
    @given(st.lists(item, min_size=8, max_size=60))
    def check(batch: list[tuple[str, float]]) -> None:
        nonlocal asked, combined
        asked += len(batch)
        results = [{"score": value, "capabilities": tags} for tags, value in batch]
        records = []
        for number, (tags, value) in enumerate(batch):
            sample = benchmark.to_sample({**ROW, "question_id": f"v1_{number}", "capability": tags})
            verdict = Score(value)
            records.append(
                Record(sample.id, "", (), "", sample.group, None, "", None, verdict.value, 1.0, None, 0.0, 0)
            )
        said.clear()
        overall = judge.utils.mmvet_aggregate_results(results)
        summary = benchmark.aggregate(records)
        assert summary.score == pytest.approx(overall)
        known = [f"{100 * sum(value for _, value in batch) / len(batch):.2f}"]
        known += [f"{summary.breakdown.get(f'capability/{name}', 0):.2f}" for name in V1]
        for line in said[1 + len(V1) :]:
            parts = line.removeprefix("Score for ").split(":")[0].split("_")
            whole = "+".join(tag for tag in V1 if tag in parts)
            known.append(f"{summary.breakdown.get(f'combination/{whole}', 0):.2f}")
            combined += len(parts) > 1 and known[-1] != "0.00"
        assert [line.split(": ")[1] for line in said] == known

    check()
    assert asked >= WANTED
    assert combined > 500


# ---------------------------------------------------------------- prompts


@pytest.mark.parametrize("answer", ["x = -1", "", "| 1.0 |\n{x} %s"])
@pytest.mark.parametrize("protocol", ["llava", "lmms"])
def test_prompts_are_lmms_evals(judge: Any, protocol: Any, answer: str) -> None:
    sample = vary(Options(protocol=protocol)).to_sample(ROW)
    theirs(judge, "1.0", answer=answer)
    ((prompt, temperature),) = judge.judge.asked
    assert (JUDGING.official.prompt(sample, answer), 0) == (prompt, temperature)
    wording = judge.utils.config["lmms_eval_specific_kwargs"]["default"] if protocol == "lmms" else None
    assert sample.question == judge.utils.doc_to_text(ROW, wording)
