"""A judge's server that fails, and a process that is killed: nothing is lost, nothing is paid twice."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from stic_eval.evals.judging import CachedJudge
from stic_eval.setting_groups import JudgeConfig
from stic_eval.store import ResponseStore
from tests.support.judge_server import CUT, CUT_IN_THE_MIDDLE, Answer, Server, fails, says, serving
from tests.support.judging_bench import OWN, bench, cases, judge_settings

ROOT = Path(__file__).parents[2]


def settings(url: str) -> JudgeConfig:
    return judge_settings("judge-1", url, timeout=20.0)


def prompts(n: int) -> list[str]:
    return [OWN.prompt(*case) for case in cases(n)]


def drawn(prompt: str, tries: int) -> float:
    """A number in [0, 1) for a prompt and how often it was asked: the same whatever the order."""
    digest = hashlib.sha256(f"{tries} {prompt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def value(prompt: str) -> float:
    return int(100 * drawn(prompt, 0)) / 100


def asked_of(server: Server) -> list[str]:
    return [body["messages"][0]["content"] for body in server.asked]


def test_a_thousand_cases_of_which_a_third_of_the_requests_fail(tmp_path: Path) -> None:
    tries: Counter[str] = Counter()
    succeeded: Counter[str] = Counter()
    failures = [
        fails(429, retry_after="1"), fails(500), fails(503), CUT, CUT_IN_THE_MIDDLE,
        Answer(b'{"choices": [{"message": {"conte'), Answer(b'{"choices": []}'), Answer(b'{"ok": true}'),
        says("I'm sorry, but I can't help with that."), says("10/10"), says("Verdict: 11"),
    ]  # fmt: skip

    def behave(number: int, prompt: str) -> Answer:
        tries[prompt] += 1
        chance = drawn(prompt, tries[prompt])
        # Unreadable replies are asked for three times in all, so the third try is never a failure.
        if tries[prompt] <= 2 and chance < 0.35:
            return failures[int(chance / 0.35 * len(failures))]
        succeeded[prompt] += 1
        return says(f"So it is.\nVerdict: {value(prompt)}")

    asked = cases(1000)
    with serving(behave) as server:
        judge = CachedJudge(settings(server.url), tmp_path, wait=lambda seconds: None)
        found = list(judge.grade(bench(), asked, lambda done, total: None))
        assert 0.25 < 1 - 1000 / len(server.asked) < 0.4  # that share of the requests did fail
        assert judge.requests == len(server.asked)
        assert sorted(index for index, _, _ in found) == list(range(1000))
        assert {index: score.value for index, score, _ in found} == {
            index: value(prompt) for index, prompt in enumerate(prompts(1000))
        }
        assert succeeded == Counter(prompts(1000))  # each got its verdict, and none twice
        sent = len(server.asked)
        again = list(
            CachedJudge(settings(server.url), tmp_path).grade(bench(), asked, lambda done, total: None)
        )
        assert len(server.asked) == sent
    assert {index: score for index, score, _ in again} == {index: score for index, score, _ in found}


# Grades 300 cases, and dies right after so many replies are kept (0: never by itself).
CODE = """
import os, signal, sys
from pathlib import Path
from stic_eval import store
from stic_eval.evals.judging import CachedJudge
from tests.support.judging_bench import bench, cases, judge_settings
url, cache, moment = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
put, kept = store.ResponseStore.put_many, []
def put_many(self, responses, **how):
    put(self, responses, **how)
    kept.append(1)
    if len(kept) == moment:
        os.kill(os.getpid(), signal.SIGKILL)
store.ResponseStore.put_many = put_many
judge = CachedJudge(judge_settings("judge-1", url, timeout=20.0), cache)
found = list(judge.grade(bench(), cases(300), lambda done, total: None))
sys.exit(sorted(index for index, score, _ in found if score.value is not None) != list(range(300)))
"""


@pytest.mark.parametrize("moment", [1, 150, 0], ids=["at once", "in the middle", "from outside"])
def test_kill_loses_no_reply_that_arrived(tmp_path: Path, moment: int) -> None:
    enough = threading.Event()

    def behave(number: int, prompt: str) -> Answer:
        if number >= 150:
            enough.set()
        return says(f"Verdict: {value(prompt)}")

    def start(url: str, moment: int) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", CODE, url, str(tmp_path), str(moment)]
        return subprocess.Popen(argv, cwd=ROOT)

    with serving(behave) as server:
        first = start(server.url, moment)
        if not moment:
            assert enough.wait(60)
            first.kill()
        assert first.wait(60) == -signal.SIGKILL
        asked_before = asked_of(server)

        store = ResponseStore(CachedJudge(settings(server.url), tmp_path).path)
        judge = CachedJudge(settings(server.url), tmp_path)
        keys = {judge._key(OWN, prompt, 0): prompt for prompt in prompts(300)}
        kept = {keys[key] for key in store.get_many(keys)}
        store.close()
        assert len(kept) >= moment
        # What was answered and not kept was on its way: a request for each thread at most.
        assert len(set(asked_before) - kept) <= 8

        assert start(server.url, 0).wait(60) == 0
        asked_after = asked_of(server)[len(asked_before) :]
    assert Counter(asked_after) == Counter(set(prompts(300)) - kept)


# Waits for a server that never answers.
WAITING = """
import signal
import sys
from pathlib import Path
from stic_eval.evals.judging import CachedJudge
from tests.support.judging_bench import bench, cases, judge_settings
judge = CachedJudge(judge_settings("judge-1", sys.argv[1], timeout=3600.0), Path(sys.argv[2]))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit it ignored
try:
    list(judge.grade(bench(), cases(300), lambda done, total: None))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_ends_it_while_requests_hang(tmp_path: Path) -> None:
    everybody, release = threading.Event(), threading.Event()

    def behave(number: int, prompt: str) -> Answer:
        if number == 7:
            everybody.set()
        release.wait(120)
        return says("Verdict: 1")

    with serving(behave) as server:
        process = subprocess.Popen([sys.executable, "-c", WAITING, server.url, str(tmp_path)], cwd=ROOT)
        try:
            assert everybody.wait(60)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            process.kill()
            release.set()
    assert len(server.asked) == 8
