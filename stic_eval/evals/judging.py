"""A judge model decides what rules leave open, and every reply that could be read is kept.

A reply is stored under (judge model, protocol, prompt, parameters, number of the sample) the moment it
arrives, in a commit of its own: nothing that was paid for is asked again, and no other judge, wording
or temperature ever reuses it. A reply that cannot be read is asked for again; if it stays so, the
sample is unscored, with the reason, and the next start asks anew. Nothing is ever scored 0 for that.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.contracts.benchmark import Benchmark, Grader, Unreadable
from stic_eval.errors import Contained, RunError, UserError, headline
from stic_eval.evals import official_prompts
from stic_eval.evals.judge_replies import is_refusal, quote, suspicious
from stic_eval.models.connection import check_url
from stic_eval.printable import printable
from stic_eval.setting_groups import JudgeConfig
from stic_eval.store import ResponseStore, content_key
from stic_eval.types import Response, Sample, Score

if TYPE_CHECKING:
    from stic_eval.models.connection import Endpoint
    from stic_eval.models.openai_client import Client

OWN = "stic-eval-1"
# Replies that cannot be read are asked for again so many times in a run.
ASKED_AGAIN = 2
_KEPT = 4000  # characters of a reply in a record; the cache has it whole
_VERSION = 1  # of the key


@dataclass(frozen=True)
class _JudgeQuestion:
    """One prompt for one numbered reply, with the case by which it is read."""

    key: str
    prompt: str
    sample: Sample
    response: str


@dataclass(frozen=True)
class _Reply:
    """What came of it: `why` is None for a reply that can be read."""

    text: str | None
    why: str | None = None


class CachedJudge:
    """A judge with its cache. Asks, reads and keeps nothing before `grade`.

    Args:
        cache: The cache's root; replies are kept in `judge/replies.sqlite` below it.
        fresh: Ask for everything anew; new replies take the place of those that are there.
        wait: Sleeps for so many seconds; for tests.

    Raises:
        UserError: The official protocol is demanded and lmms-eval, which has its texts, is not there;
            or the server's address is none.
    """

    def __init__(
        self,
        settings: JudgeConfig,
        cache: Path,
        *,
        fresh: bool = False,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        if settings.model is None:
            raise ValueError("a judge has a model")
        self.settings, self.model, self._fresh = settings, settings.model, fresh
        self.path = Path(cache) / "judge" / "replies.sqlite"
        self.open_store: Callable[[Path], ResponseStore] = ResponseStore
        self._wait = wait
        self._client: Client | None = None
        check_url(self._endpoint(None))  # before hours of work rather than after
        if settings.protocol == "official":
            official_prompts.require()
        use_official = settings.protocol == "official" or (
            settings.protocol == "auto" and official_prompts.available()
        )
        self.protocol = official_prompts.PROTOCOL if use_official else OWN

    @property
    def requests(self) -> int:
        """HTTP requests sent so far, repetitions included."""
        return self._client.sent if self._client else 0

    def grade(
        self,
        benchmark: Benchmark,
        cases: Sequence[tuple[Sample, str]],
        progress: Callable[[int, int | None], None],
    ) -> Iterator[tuple[int, Score, Mapping[str, Any]]]:
        """Yields every case exactly once, as its replies are there: those in the cache first.

        Args:
            cases: (sample, response) that rules left open.
            progress: Called with (cases done, cases in all).

        Yields:
            The case's index; its verdict, `open` False, `value` None with the reason if it has none;
            and what `Record.judge` keeps: `model`, `protocol`, `replies`; with several replies a case
            their `values`, `weights` and `sd` (of the values); `suspect` if the answer speaks to the
            judge.

        Raises:
            UserError: No request can succeed: no key, a wrong address or model.
            RunError: The benchmark's prompt fails, or the cache cannot be written.
        """
        if benchmark.judging is None:
            raise ValueError(f"{benchmark.name} is never judged")
        grader = benchmark.judging.own if self.protocol == OWN else benchmark.judging.official
        done = 0

        def finish(index: int, replies: Sequence[_Reply]) -> tuple[int, Score, Mapping[str, Any]]:
            nonlocal done
            done += 1
            progress(done, len(cases))
            return (index, *self._conclude(benchmark, grader, *cases[index], replies))

        progress(0, len(cases))
        asked: dict[str, _JudgeQuestion] = {}
        keys: dict[int, list[str]] = {}
        for index, (sample, response) in enumerate(cases):
            try:
                prompt = _prompt(benchmark, grader, sample, response)
            except Unreadable as error:
                yield finish(index, [_Reply(None, str(error))])
                continue
            keys[index] = [self._key(grader, prompt, number) for number in range(self.settings.samples)]
            for key in keys[index]:
                asked.setdefault(key, _JudgeQuestion(key, prompt, sample, response))

        store = self.open_store(self.path)
        replies = {
            key: _Reply(found.text)
            for key, found in store.get_many(() if self._fresh else asked).items()
            if _unread(benchmark, grader, asked[key], found.text) is None
        }
        waiting: dict[str, list[int]] = {}
        lacking: dict[int, int] = {}
        for index, wanted in keys.items():
            missing = [key for key in wanted if key not in replies]
            lacking[index] = len(missing)
            for key in missing:
                waiting.setdefault(key, []).append(index)
            if not missing:
                yield finish(index, [replies[key] for key in wanted])
        if waiting:
            client = self._connect()

            def work(item: _JudgeQuestion) -> _Reply:
                return self._ask(client, store, benchmark, grader, item)

            for item, reply in client.stream([asked[key] for key in waiting], work):
                replies[item.key] = reply
                for index in waiting[item.key]:
                    lacking[index] -= 1
                    if not lacking[index]:
                        yield finish(index, [replies[key] for key in keys[index]])
        # Left open if anything above was interrupted: replies that are on their way may still be kept.
        store.close()

    # ------------------------------------------------------------ asking

    def _key(self, grader: Grader, prompt: str, number: int) -> str:
        return content_key(
            {
                "version": _VERSION,
                "model": self.model,
                "protocol": self.protocol,
                "prompt": prompt,
                "max_tokens": grader.max_tokens,
                "temperature": self.settings.temperature,
                "sample": number,
            }
        )

    def _endpoint(self, api_key: str | None) -> Endpoint:
        from stic_eval.models.connection import Endpoint

        names = ("base_url", "model", "timeout", "attempts", "concurrency", "max_requests")
        return Endpoint(api_key=api_key, **{name: getattr(self.settings, name) for name in names})

    def _connect(self) -> Client:
        if self._client is None:
            from stic_eval.models.openai_client import Client

            self._client = Client(self._endpoint(self._api_key()), wait=self._wait)
        return self._client

    def _api_key(self) -> str | None:
        name = self.settings.api_key_env
        if not name or self.settings.max_requests == 0:  # a server without keys; nothing will be sent
            return None
        key = os.environ.get(name, "").strip()
        if not key:
            raise UserError(
                f"--judge-api-key-env {name}: that environment variable is not set "
                '(for a server that asks for no key: --judge-api-key-env "")'
            )
        return key

    def _ask(
        self, client: Client, store: ResponseStore, benchmark: Benchmark, grader: Grader, item: _JudgeQuestion
    ) -> _Reply:
        """Asks until a reply can be read, and keeps that one. Runs in a thread of the client."""
        from stic_eval.models.openai_client import Chat, Failure

        message = {"role": "user", "content": item.prompt}
        chat = Chat((message,), grader.max_tokens, self.settings.temperature)
        last = _Reply(None)
        for _ in range(1 + ASKED_AGAIN):
            try:
                reply = client.ask(chat)
            except Failure as error:
                gone = f"{last.why}; then {error}" if last.text is not None else f"no reply: {error}"
                return _Reply(last.text, gone)
            why = _why_unfinished(reply.finish_reason, reply.text, grader)
            why = why or _unread(benchmark, grader, item, reply.text)
            if why is None:
                stored = Response(reply.text, reply.n_tokens, "stop", reply.seconds)
                # What is there and not wanted, or no longer read, gives way.
                store.put_many({item.key: stored}, replace=True)
                return _Reply(reply.text)
            last = _Reply(reply.text, why)
        return replace(last, why=f"{last.why} (asked {1 + ASKED_AGAIN} times)")

    # ------------------------------------------------------------ concluding

    def _conclude(
        self, benchmark: Benchmark, grader: Grader, sample: Sample, response: str, replies: Sequence[_Reply]
    ) -> tuple[Score, Mapping[str, Any]]:
        info: dict[str, Any] = {
            "model": self.model,
            "protocol": self.protocol,
            "replies": [reply.text[:_KEPT] for reply in replies if reply.text is not None],
        }
        if (suspect := suspicious(response)) is not None:
            info["suspect"] = suspect
        scores: list[Score] = []
        reasons: list[str] = []
        for reply in replies:
            why = reply.why
            if why is None and reply.text is not None:
                try:
                    scores.append(_read_reply(benchmark, grader, sample, response, reply.text))
                    continue
                except Unreadable as error:  # read well for another sample, or by an earlier version
                    why = str(error)
            reasons.append(why or "no reply")
        if reasons:
            some = f"{len(scores)} of {len(replies)} replies could be read; " if len(replies) > 1 else ""
            why = printable(" ".join(f"judge {self.model}: {some}{reasons[0]}".split()))
            return Score(None, why=why), info
        if len(replies) > 1:
            values = [score.value for score in scores]
            info["values"], info["weights"] = values, [score.weight for score in scores]
            known = [value for value in values if value is not None]
            info["sd"] = statistics.stdev(known) if len(known) == len(values) else None
        return _mean(scores), info


def _prompt(benchmark: Benchmark, grader: Grader, sample: Sample, response: str) -> str:
    try:
        with Contained():
            prompt = grader.prompt(sample, response)
    except (Unreadable, UserError):
        raise
    except Exception as error:  # a benchmark is a user's own code
        raise RunError(
            f"benchmark {benchmark.name}, sample {sample.id}: the judge's prompt failed: {headline(error)}"
        ) from error
    return prompt.encode("utf-8", "replace").decode()  # a model may write half a surrogate pair


def _read_reply(benchmark: Benchmark, grader: Grader, sample: Sample, response: str, text: str) -> Score:
    try:
        with Contained():
            score = replace(grader.read(sample, response, text), open=False)
        if not all(math.isfinite(number) for number in (score.weight, score.value or 0.0)):
            raise ValueError(f"scored {score.value} of {score.weight}")
        return score
    except Unreadable:
        raise
    except Exception as error:  # a benchmark is a user's own code, and the reply anything
        raise RunError(
            f"benchmark {benchmark.name}, sample {sample.id}: reading the judge's reply failed: "
            f"{headline(error)}"
        ) from error


def _unread(benchmark: Benchmark, grader: Grader, item: _JudgeQuestion, text: str) -> str | None:
    """Why a reply cannot be read; None: it can."""
    try:
        _read_reply(benchmark, grader, item.sample, item.response, text)
    except Unreadable as error:
        return f"refused: {quote(text)}" if is_refusal(text) else f"unreadable: {error}"
    return None


def _why_unfinished(reason: str, text: str, grader: Grader) -> str | None:
    """Why a reply counts for nothing although it came, by its finish reason."""
    if reason == "length" and grader.verdict_first and "\n" in text.strip():
        return None  # what was cut are remarks below the verdict
    return {
        "length": "unreadable: the reply was cut at its bound on tokens",
        "content_filter": "refused: by the server's content filter",
        "refusal": "refused: by the judge model",
    }.get(reason)


def _mean(scores: Sequence[Score]) -> Score:
    """One verdict of several: means of values and weights; answers and reasons, each named once."""
    if len(scores) == 1:
        return scores[0]
    unscored = next((score for score in scores if score.value is None), None)
    if unscored is not None:
        return unscored
    return Score(
        value=statistics.fmean(score.value for score in scores if score.value is not None),
        answer="; ".join(dict.fromkeys(score.answer for score in scores if score.answer)) or None,
        why="; ".join(dict.fromkeys(score.why for score in scores if score.why)) or None,
        weight=statistics.fmean(score.weight for score in scores),
    )
