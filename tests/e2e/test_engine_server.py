"""Models behind OpenAI-compatible servers: a real one (`transformers serve`), and one that misbehaves."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stic_eval.engines import openai
from stic_eval.images import load_image
from stic_eval.models import connection
from tests.e2e.conftest import Done, Lab, records
from tests.support.judge_server import CUT, CUT_IN_THE_MIDDLE, Answer, Server, fails, says, serving
from tests.support.real_server import serving as really_serving

ROOT = Path(__file__).parents[2]
SECRET = "sk-not-to-be-written-0123456789"
ROWS = 16  # of the three benchmarks together


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waits between attempts, of which nothing here depends."""
    endpoint = openai._endpoint
    monkeypatch.setattr(openai, "_endpoint", lambda *how: replace(endpoint(*how), backoff=0.0))


def argv(lab: Lab, command: str, url: str, *extra: str | Path, model: str = "base") -> list[str]:
    """A command that asks a server. Nothing is trained, so images and instruction data are not named."""
    found = [command, "--engine", "openai", "--base-url", url, "--model", model, "-o", "server.attempts=2"]
    found += ["--benchmarks", "textvqa,chartqa,mmbench"]
    described = "--dar" in extra or ("stic" in extra and "--no-dar" not in extra)
    found += ["-o", "dar.max_new_tokens=8"] if described else []
    for name, path in lab.rows.items():
        found += ["-o", f"rows.{name}={path}"]
    return [*found, "--output", "out", "-q", *map(str, extra)]


def ask(lab: Lab, *how: Any, **more: Any) -> Done:
    return lab.invoke(*argv(lab, *how, **more))


def folder(lab: Lab) -> Path:
    return lab.folder / "out"


def everything(lab: Lab, variant: str = "baseline") -> dict[str, dict[str, Any]]:
    """Records by id, of all benchmarks."""
    found: dict[str, dict[str, Any]] = {}
    for name in lab.rows:
        found |= {f"{name}/{row['id']}": row for row in records(folder(lab), variant, name)}
    return found


def text_of(body: dict[str, Any]) -> str:
    """The question of a request that has one image."""
    return str(body["messages"][0]["content"][1]["text"])


# ---------------------------------------------------------------- a real server


@pytest.fixture(scope="module")
def real(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a server of the lab's model."""
    with really_serving(lab.model, tmp_path_factory.mktemp("log") / "server.log") as url:
        yield url


def test_a_served_model_answers_as_the_same_model_here_does(lab: Lab, real: str, tmp_path: Path) -> None:
    there, here = lab.at(tmp_path / "there"), lab.at(tmp_path / "here")
    assert ask(there, "eval", real, "--dar", "--concurrency", "3", model=str(lab.model)).code == 0
    options = ("--dar", "-o", "dar.max_new_tokens=8", "--output", "out", "-q")
    assert here.invoke(*here.argv("eval", *options)).code == 0
    for variant in ("baseline", "baseline+dar"):
        served, loaded = everything(there, variant), everything(here, variant)
        assert len(served) == ROWS and served.keys() == loaded.keys()
        for name, row in served.items():
            same = loaded[name]
            assert (row["response"], row["description"]) == (same["response"], same["description"])
            assert row["n_tokens"] > 0 and row["seconds"] > 0


def test_a_model_or_an_address_that_the_server_does_not_have(lab: Lab, real: str, tmp_path: Path) -> None:
    place = lab.at(tmp_path)
    wrong = ask(place, "eval", real, model="someone/else")
    assert wrong.code == 2 and len(wrong.err.splitlines()) == 1
    assert "--model someone/else" in wrong.err and "HTTP 400: Server is pinned" in wrong.err
    wrong = ask(place, "eval", real.removesuffix("/v1"))
    assert wrong.code == 2 and "--base-url" in wrong.err and "HTTP 404" in wrong.err
    assert not folder(place).exists()


# ---------------------------------------------------------------- what is sent


def test_every_image_arrives_with_its_question_and_nothing_else_is_needed(lab: Lab, tmp_path: Path) -> None:
    place = lab.at(tmp_path)
    with serving(lambda number, prompt: says("A")) as server:
        assert ask(place, "run", server.url, "--method", "baseline").code == 0
    assert len(server.asked) == ROWS
    known = {hashlib.sha256(load_image(path).tobytes()).hexdigest() for path in lab.photos.iterdir()
             if path.suffix in (".jpg", ".png")}  # fmt: skip
    for body in server.asked:
        (message,) = body["messages"]
        picture, text = message["content"]
        head, _, data = picture["image_url"]["url"].partition(",")
        assert head in ("data:image/jpeg;base64", "data:image/png;base64")
        with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
            assert hashlib.sha256(opened.convert("RGB").tobytes()).hexdigest() in known
        assert text["type"] == "text" and text["text"]
        assert body["temperature"] == 0 and "seed" not in body and body["model"] == "base"


def test_a_method_is_the_adapter_that_the_server_has_for_it(lab: Lab, tmp_path: Path) -> None:
    place = lab.at(tmp_path)
    with serving(lambda number, prompt: says("A")) as server:
        missing = ask(place, "run", server.url, "--method", "stic")
        assert missing.code == 2 and "--adapter-name stic=NAME" in missing.err and not server.asked
        command = ("run", server.url, "--method", "stic", "--method", "sft", "--no-dar")
        names = ("--adapter-name", "stic=my-lora", "--adapter-name", "sft=other-lora")
        plan = ask(place, *command, *names, "--dry-run")
        assert plan.code == 0 and not server.asked
        assert f"{3 * ROWS}" in plan.out and "my-lora" in plan.out and server.url in plan.out
        assert ask(place, *command, *names).code == 0
        assert Counter(body["model"] for body in server.asked) == {
            "base": ROWS, "my-lora": ROWS, "other-lora": ROWS
        }  # fmt: skip
        asked = len(server.asked)
        again = ask(place, *command, *names)
        assert again.code == 0 and len(server.asked) == asked
        shown = place.invoke("table", "out", "--notes")
        assert "STIC by my-lora" in shown.out.replace("\n", " ")
        # Another adapter is another run: nothing is taken for its answers.
        assert ask(place, *command, *names[:2], "--adapter-name", "sft=third").code == 2  # of another run
        other = ask(place, *command, *names[:2], "--adapter-name", "sft=third", "--output", "other")
        assert other.code == 0 and Counter(b["model"] for b in server.asked[asked:]) == {"third": ROWS}
    manifest = json.loads((folder(place) / "manifest.json").read_text())
    assert manifest["engine"] == ["openai", server.url, {"stic": "my-lora", "sft": "other-lora"}]
    scores = json.loads((folder(place) / "scores.json").read_text())
    assert [entry["seed"] for entry in scores["variants"]] == [None] * 3  # trained with nobody knows which
    assert [entry["has_adapter"] for entry in scores["variants"]] == [False, True, True]


def test_an_adapter_for_each_training_seed(lab: Lab, tmp_path: Path) -> None:
    place = lab.at(tmp_path)
    command = ("--method", "stic", "--no-dar", "--seed", "3", "--seed", "4", "--benchmarks", "chartqa")
    with serving(lambda number, prompt: says("A")) as server:
        one = ask(place, "run", server.url, *command, "--adapter-name", "stic=lora")
        assert one.code == 2 and "stic@seed3=NAME" in one.err
        names = ("--adapter-name", "stic@seed3=lora-3", "--adapter-name", "stic@seed4=lora-4")
        assert ask(place, "run", server.url, *command, *names).code == 0
    assert Counter(body["model"] for body in server.asked) == {"base": 6, "lora-3": 6, "lora-4": 6}
    assert sorted(p.name for p in (folder(place) / "records").iterdir()) == [
        "baseline", "stic@seed3", "stic@seed4"
    ]  # fmt: skip


def test_an_ablation_of_what_is_not_trained(lab: Lab, tmp_path: Path) -> None:
    place = lab.at(tmp_path)
    common = ("--benchmarks", "chartqa", "--adapter-name", "stic=my-lora")
    with serving(lambda number, prompt: says(hashlib.sha256(prompt.encode()).hexdigest()[:6])) as server:
        done = ask(place, "ablate", server.url, "--vary", "dar=false,true", *common)
        assert done.code == 0, done.err
        assert {body["model"] for body in server.asked} == {"base", "my-lora"}
        trained = ask(place, "ablate", server.url, "--vary", "stage1.beta=0.1,0.5", *common, "--output", "o")
        assert trained.code == 2 and "train differently" in trained.err


def test_the_key_is_sent_and_written_nowhere(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = lab.at(tmp_path)
    monkeypatch.setenv("SERVER_KEY", SECRET)
    how = ("--api-key-env", "SERVER_KEY", "--benchmarks", "chartqa")

    def behave(number: int, prompt: str) -> Answer:
        return says("A") if number else fails(401, f"no such key: {SECRET}")

    with serving(behave) as server:
        refused = ask(place, "eval", server.url, *how)
        assert refused.code == 2 and "--api-key-env: the server refuses the key" in refused.err
        assert ask(place, "eval", server.url, *how).code == 0
        assert {body["authorization"] for body in server.asked} == {f"Bearer {SECRET}"}
        monkeypatch.delenv("SERVER_KEY")
        assert ask(place, "eval", server.url, *how, "--fresh").code == 2
        keyless = ask(place, "eval", server.url, "--benchmarks", "textvqa", "--output", "o")
        assert keyless.code == 0 and server.asked[-1]["authorization"] is None
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in refused.err + refused.out


# ---------------------------------------------------------------- a server that fails


def drawn(prompt: str, tries: int) -> float:
    """A number in [0, 1) for a prompt and how often it was asked: the same whatever the order."""
    digest = hashlib.sha256(f"{tries} {prompt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def test_requests_that_fail_are_asked_again_until_they_are_answered(lab: Lab, tmp_path: Path) -> None:
    place, tries, lock = lab.at(tmp_path), Counter[str](), threading.Lock()
    failures = [
        fails(429, retry_after="0"), fails(500), fails(503), CUT, CUT_IN_THE_MIDDLE,
        Answer(b'{"choices": [{"message": {"conte'), Answer(b'{"choices": []}'), Answer(b'{"ok": true}'),
    ]  # fmt: skip

    def behave(number: int, prompt: str) -> Answer:
        with lock:
            tries[prompt] += 1
        if tries[prompt] <= 3:
            return failures[int(drawn(prompt, tries[prompt]) * len(failures))]
        return says(prompt[::-1])

    with serving(behave) as server:
        assert ask(place, "eval", server.url, "-o", "server.attempts=5").code == 0
        assert len(server.asked) == 4 * ROWS
    found = everything(place)
    assert len(found) == ROWS
    assert {row["response"] for row in found.values()} == {prompt[::-1].strip() for prompt in tries}


def test_what_fails_for_good_is_unscored_and_asked_again(lab: Lab, tmp_path: Path) -> None:
    place, broken = lab.at(tmp_path), threading.Event()
    broken.set()

    def behave(number: int, prompt: str) -> Answer:
        return fails(400, "image too\nlarge") if broken.is_set() and "sign 2" in prompt else says("stop")

    with serving(behave) as server:
        first = ask(place, "eval", server.url)
        assert first.code == 3
        (failed,) = (row for row in everything(place).values() if row["score"] is None)
        assert failed["why"] == "no answer: HTTP 400: image too large" and failed["response"] == ""
        cell = json.loads((folder(place) / "table.json").read_text())["rows"][0]["cells"]["textvqa"]
        assert (cell["n"], cell["unscored"], cell["score"]) == (6, 1, 100.0)
        log = (folder(place) / "run.log").read_text()
        assert "1 of 6 rows are unscored, no answer: HTTP 400" in log
        asked = len(server.asked)
        assert asked == ROWS
        assert ask(place, "eval", server.url).code == 3
        assert [body["messages"][0]["content"][1]["text"] for body in server.asked[asked:]] == [
            failed["question"]
        ]
        broken.clear()
        assert ask(place, "eval", server.url).code == 0
        assert len(server.asked) == ROWS + 2
        assert ask(place, "eval", server.url).code == 0
        assert len(server.asked) == ROWS + 2
    assert all(row["score"] is not None for row in everything(place).values())


def test_without_its_description_a_row_is_unscored(lab: Lab, tmp_path: Path) -> None:
    place, there = lab.at(tmp_path), list[Server]()

    def describing(body: dict[str, Any]) -> bool:
        return bool(body["max_tokens"] == 8)

    def behave(number: int, prompt: str) -> Answer:
        mute = describing(there[0].asked[number])
        return fails(400, "no words") if mute else says("A")

    with serving(behave) as server:
        there.append(server)
        done = ask(place, "eval", server.url, "--dar")
    assert done.code == 3
    assert not any("Image description" in str(body["messages"]) for body in server.asked)
    assert all(row["score"] is not None for row in everything(place).values())
    described = everything(place, "baseline+dar")
    assert len(described) == ROWS
    assert {(row["score"], row["why"]) for row in described.values()} == {
        (None, "no answer: HTTP 400: no words")
    }


def test_a_server_of_which_nothing_can_be_had(lab: Lab, tmp_path: Path) -> None:
    place = lab.at(tmp_path)
    with serving(lambda number, prompt: fails(500, "no memory left")) as server:
        broken = ask(place, "eval", server.url)
    assert broken.code == 2 and "answered none of 6 requests: HTTP 500: no memory left" in broken.err
    down = ask(place, "eval", server.url)  # which is closed by now
    assert down.code == 2 and f"--base-url {server.url}: cannot be reached" in down.err
    assert len((broken.err + down.err).splitlines()) == 2
    assert not folder(place).exists()


def posts(patch: pytest.MonkeyPatch, gone: threading.Event) -> list[tuple[str, str]]:
    """Address and model of each request; once the server is gone, none arrives."""
    asked, post = list[tuple[str, str]](), connection.Connection.post

    def posted(line: connection.Connection, url: str, body: bytes) -> Any:
        asked.append((url, json.loads(body)["model"]))
        if gone.is_set():
            raise connection.NoReply("no connection: refused", reached=False)
        return post(line, url, body)

    patch.setattr(connection.Connection, "post", posted)
    return asked


def test_a_server_that_is_not_there_is_waited_for_once(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, gone = lab.at(tmp_path), threading.Event()
    gone.set()
    asked = posts(monkeypatch, gone)
    more = ("--method", "stic", "--adapter-name", "stic=lora", "--dar", "--concurrency", "1")
    address = "http://127.0.0.1:9/v1"
    done = ask(place, "run", address, *more)
    assert done.code == 2 and f"--base-url {address}: cannot be reached" in done.err
    own = [model for url, model in asked if url.startswith(address)]
    assert own == ["base"] * 2, "one request, attempted twice"
    assert len(done.err.splitlines()) == 1


def test_a_server_that_goes_away_takes_along_what_is_left_at_once(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, gone = lab.at(tmp_path), threading.Event()
    asked = posts(monkeypatch, gone)
    more = ("--method", "stic", "--adapter-name", "stic=lora", "--no-dar", "--concurrency", "1")

    def behave(number: int, prompt: str) -> Answer:
        if number == 6:  # within ChartQA, the second benchmark; TextVQA has six rows
            gone.set()
        return says("A")

    with serving(behave) as server:
        done = ask(place, "run", server.url, *more)
        assert done.code == 1 and f"--base-url {server.url}: no longer answers (no connection" in done.err
        assert len(done.err.splitlines()) == 1
        assert "lora" not in [model for _, model in asked], "who would have been asked by the same server"
        table = json.loads((folder(place) / "table.json").read_text())["rows"][0]["cells"]
        assert (table["textvqa"]["unscored"], table["chartqa"]["unscored"]) == (0, 5)
        gone.clear()
        answered = [text_of(body) for body in server.asked]
        assert ask(place, "run", server.url, *more).code == 0
        again = [text_of(body) for body in server.asked[len(answered) :] if body["model"] == "base"]
    assert not set(again) & set(answered)
    assert len(everything(place, "stic")) == len(everything(place)) == ROWS


# ---------------------------------------------------------------- a process that ends


def start(lab: Lab, url: str) -> subprocess.Popen[bytes]:
    code = "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from stic_eval.cli.app import main\nmain(sys.argv[1:])"
    environment = {**os.environ, **lab.environment, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *argv(lab, "eval", url, "--concurrency", "4")]
    return subprocess.Popen(command, cwd=lab.folder, env=environment, stderr=subprocess.PIPE)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_while_requests_hang_goes_on(
    lab: Lab, tmp_path: Path, how: signal.Signals
) -> None:
    place, hang, release = lab.at(tmp_path), threading.Event(), threading.Event()

    def behave(number: int, prompt: str) -> Answer:
        if "bar" in prompt and not release.is_set():  # ChartQA, the second benchmark
            hang.set()
            release.wait(120)
        return says("A")

    with serving(behave) as server:
        process = start(place, server.url)
        try:
            assert hang.wait(120)
            process.send_signal(how)
            _, err = process.communicate(timeout=60)
            assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
            assert how == signal.SIGKILL or b"the same command resumes" in err
        finally:
            process.kill()
            release.set()
        before = {text_of(body) for body in server.asked}
        asked = len(server.asked)
        assert ask(place, "eval", server.url).code == 0
        after = [text_of(body) for body in server.asked[asked:]]
    # TextVQA's answers were kept; ChartQA's hung.
    assert not any("sign" in prompt for prompt in after) and any("sign" in prompt for prompt in before)
    assert len(everything(place)) == ROWS and len(after) == ROWS - 6
    assert all(row["score"] is not None for row in everything(place).values())


# ---------------------------------------------------------------- mistakes


SERVED = ("--engine", "openai", "--model", "m", "--base-url", "http://x/v1")


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--engine", "openai", "--model", "m"], "--base-url"),
        (["--engine", "openai", "--base-url", "http://x/v1"], "--model"),
        (["--base-url", "http://x/v1"], "--engine openai"),
        (["--adapter-name", "stic=a"], "--engine openai"),
        (["--engine", "vlm"], '--engine: no engine is called "vlm"; did you mean "vllm"'),
        (["--engine", "vllm", "--serve-command", "no-such-command serve"], "--serve-command no-such-command"),
        (["--engine", "vllm", "--base-url", "http://x/v1"], "--base-url: is for a server that somebody else"),
        (["--engine", "vllm", "--load-in-4bit"], "--load-in-4bit: vLLM decides that"),
        (["--serve-command", "vllm serve"], "--engine vllm"),
        (["--model-id", "pocket"], "--engine openai"),
        (["--tensor-parallel", "4"], "--tensor-parallel: splits a model that vLLM serves"),
        ([*SERVED, "--tensor-parallel", "4"], "--tensor-parallel: splits a model that vLLM serves"),
        ([*SERVED, "--serve-command", "vllm serve"], "--serve-command: starts vLLM; add --engine vllm"),
        ([*SERVED, "--gpus", "4"], "--gpus: nothing is trained here"),
        ([*SERVED, "--strategy", "zero3"], "--strategy: nothing is trained here"),
        ([*SERVED, "--model-id", "./nowhere"], "--model-id ./nowhere: no such folder"),
        (["--engine", "openai", "--model", "m", "--base-url", "http://a:b@x/v1"], "--base-url: an address"),
        (["--engine", "openai", "--model", "m", "--base-url", "x"], "--base-url x"),
        ([*SERVED, "--dtype", "float16"], "--dtype"),
        ([*SERVED, "--load-in-4bit"], "--load-in-4bit"),
        ([*SERVED, "--api-key-env", SECRET], "the key"),
        ([*SERVED, "--concurrency", "0"], "--concurrency"),
        ([*SERVED, "--adapter-name", "stic"], "stic"),
        ([*SERVED, "--adapter-name", "stik=a"], "stik"),
        (["--load-in-4bit", "--load-in-8bit"], "--load-in-8bit"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_flag(
    lab: Lab, tmp_path: Path, more: list[str], named: str
) -> None:
    done = lab.at(tmp_path).invoke("run", "--method", "stic", *more)
    assert done.code == 2 and named in done.err and len(done.err.splitlines()) == 1
    assert SECRET not in done.err
    assert not list(tmp_path.iterdir())


def test_a_servers_model_is_not_trained(lab: Lab, tmp_path: Path) -> None:
    place = lab.at(tmp_path)
    for how in (["--engine", "openai"], ["-o", "engine=openai", "-o", "server.base_url=http://x/v1"]):
        done = place.invoke("train", "--model", "m", *how)
        assert done.code == 2 and "cannot be trained" in done.err and not rows_of_folder(tmp_path)
    served = place.invoke(
        "eval", "--engine", "openai", "--base-url", "http://x/v1", "--model", "m", "--adapter", tmp_path
    )
    assert served.code == 2 and "--adapter-name" in served.err


def rows_of_folder(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]
