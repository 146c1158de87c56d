"""Answers that are nearly all the same, empty or cut: a score of such answers says little about a model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from stic_eval.contracts.benchmark import Benchmark
from stic_eval.errors import Contained
from stic_eval.printable import printable
from stic_eval.types import Record, Sample

SHARE = 0.95  # of the answers that could be read, from which on they are called constant
LEAST = 20  # answers: fewer may be alike by chance
_FEW = 10  # different targets, up to which a constant answer is worth scoring
_SHOWN = 24


class PlainTargets:
    """Samples, as long as all targets are a few plain texts: of others no constant answer is scored.

    Attributes:
        samples: All that were added; none once a target is not plain, or targets are too many.
    """

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._targets: set[str] | None = set()

    def add(self, sample: Sample) -> None:
        """Adds the next sample."""
        if self._targets is None:
            return
        if isinstance(sample.target, str):
            self._targets.add(sample.target)
            self.samples.append(sample)
        if not isinstance(sample.target, str) or len(self._targets) > _FEW:
            self._targets = None
            self.samples.clear()


def constant_answer(records: Sequence[Record]) -> str:
    """The answer that nearly all are, shortened to a line; empty if they differ, or targets are as alike."""
    read = [text for record in records if (text := _answer_text(record))]
    if len(read) < LEAST or _most(read)[1] < SHARE:
        return ""
    if _most([repr(record.target) for record in records])[1] >= SHARE:
        return ""
    return _shorten(_most(read)[0])


def _shorten(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _answer_text(record: Record) -> str:
    answer = record.response if record.answer is None else record.answer
    return answer.strip().removesuffix(".")


def _most(texts: Sequence[str]) -> tuple[str, float]:
    """The commonest text, and its share; capitals do not matter."""
    key, count = Counter(text.casefold() for text in texts).most_common(1)[0]
    return next(text for text in texts if text.casefold() == key), count / len(texts)


def best_constant(
    benchmark: Benchmark, samples: Sequence[Sample], records: Sequence[Record]
) -> tuple[str, float] | None:
    """The one answer that would score most if it were given to every row, and what it would score in percent.

    None where that is no question: targets are many, or no plain texts; or where rules do not decide.
    """
    targets = {sample.target for sample in samples if isinstance(sample.target, str)}
    plain = all(isinstance(sample.target, str) for sample in samples)
    if len(samples) < LEAST or not plain or not 1 < len(targets) <= _FEW:
        return None
    found = []
    for text in sorted(targets):
        try:
            with Contained():
                verdicts = [benchmark.score(sample, text) for sample in samples]
            answers = [
                replace(record, response=text, answer=v.answer, score=v.value, weight=v.weight, judge=None)
                for record, v in zip(records, verdicts, strict=True)
            ]
            with Contained():
                score = benchmark.aggregate(answers).score
        except Exception:  # a benchmark is a user's own code, and this answer none that it was asked about
            return None
        if score is not None and math.isfinite(score):
            found.append((score, text))
    if not found:
        return None
    score, text = max(found, key=lambda pair: pair[0])
    return _shorten(text), score
