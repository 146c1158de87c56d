"""A served model as the rest of the program sees it: what it is sent, what counts as an answer."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stic_eval.cli import doctor
from stic_eval.cli.app import invoke
from stic_eval.errors import UserError
from stic_eval.images import bytes_ref, image_ref, ref_from_pil
from stic_eval.models.connection import Endpoint
from stic_eval.models.image_encoding import encode_image, media_type
from stic_eval.models.server_model import ServerModel, server_fingerprint
from stic_eval.setting_groups import ServerConfig
from stic_eval.settings import RunConfig
from stic_eval.types import Generation, ImageRef, Message, Request, Response
from tests.support.judge_server import Answer, Server, fails, says, serving


def endpoint(server: Server, **more: Any) -> Endpoint:
    given = {"base_url": server.url, "model": "m", "attempts": 2, "timeout": 20.0, "backoff": 0.0,
             "flag": "--model", "prefix": "--", **more}  # fmt: skip
    return Endpoint(**given)


def request(text: str, images: tuple[ImageRef, ...] = (), **generation: Any) -> Request:
    return Request((Message("user", text),), images, Generation(**{"max_new_tokens": 7, **generation}))


def answers(server: Server, *requests: Request, known: bool = False, **more: Any) -> dict[Request, Response]:
    return dict(ServerModel(endpoint(server, **more), known).generate(requests))


RED = ref_from_pil(Image.new("RGB", (4, 3), "red"), "red")


# ---------------------------------------------------------------- what is sent


def test_turns_images_and_decoding_are_sent_as_they_are() -> None:
    talk = Request(
        (Message("system", "Be brief."), Message("user", "Look."), Message("assistant", "Yes."),
         Message("user", "half \ud83d pair")),
        (RED, RED),
        Generation(max_new_tokens=5, temperature=0.7, top_p=0.9, seed=2**31 - 1),
    )  # fmt: skip
    with serving(lambda number, prompt: says(" a box \n")) as server:
        found = answers(server, talk)[talk]
    assert (found.text, found.n_tokens, found.finish_reason, found.why) == ("a box", 3, "stop", None)
    body = server.asked[0]
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["seed"]) == (5, 0.7, 0.9, 2**31 - 1)
    assert [turn["role"] for turn in body["messages"]] == ["system", "user", "assistant", "user"]
    first, second, text = body["messages"][1]["content"]
    assert first == second and text == {"type": "text", "text": "Look."}
    assert first["image_url"]["url"].startswith("data:image/png;base64,")
    assert [body["messages"][i]["content"] for i in (0, 2, 3)] == ["Be brief.", "Yes.", "half ? pair"]


def test_a_system_prompt_goes_in_front_unless_a_conversation_has_one() -> None:
    own = Request((Message("system", "In French."), Message("user", "b")), (), Generation(max_new_tokens=7))
    with serving(lambda number, prompt: says("x")) as server:
        model = ServerModel(endpoint(server, concurrency=1), system_prompt="Be brief.")
        assert len(dict(model.generate([request("a"), own]))) == 2
    sent = sorted([turn["content"] for turn in body["messages"]] for body in server.asked)
    assert sent == [["Be brief.", "a"], ["In French.", "b"]]
    assert server.asked[0]["messages"][0]["role"] == "system"
    prompts = ("", "Be brief.", "In French.")
    assert len({server_fingerprint("http://a/v1", "m", prompt) for prompt in prompts}) == 3
    assert server_fingerprint("http://a/v1", "m", "") == server_fingerprint("http://a/v1", "m")


def test_greedy_decoding_has_no_seed_and_no_nucleus() -> None:
    with serving(lambda number, prompt: says("x")) as server:
        answers(server, request("a", top_p=0.5))
    assert server.asked[0]["temperature"] == 0
    assert not {"seed", "top_p"} & set(server.asked[0])


@pytest.mark.parametrize(
    ("reply", "text", "finish"),
    [
        (says("cut off", finish="length"), "cut off", "length"),
        (says(None, finish="length"), "", "length"),  # all of it was spent on thinking
        (says("", finish="stop"), "", "stop"),
        (says(None, refusal="I will not."), "I will not.", "stop"),
        (says("half a", finish="content_filter"), "", "failed"),
        (says("x", finish="tool_calls"), "x", "stop"),
        (says("x \nUSER: y"), "x", "stop"),  # a server that leaves in what ended it
        (says("<think>USER: y</think>x USER: y"), "<think>USER: y</think>x", "stop"),
    ],
)
def test_how_a_reply_ended(reply: Answer, text: str, finish: str) -> None:
    asked = request("a", stop=("USER:",))
    with serving(lambda number, prompt: reply) as server:
        found = answers(server, asked)[asked]
    assert (found.text, found.finish_reason) == (text, finish)
    assert (found.why is not None) == (finish == "failed")


def test_texts_that_end_an_answer_are_sent_where_there_are_any() -> None:
    with serving(lambda number, prompt: says("x")) as server:
        answers(server, request("a"))
        answers(server, request("b", stop=("USER:", "\n\n")))
    assert "stop" not in server.asked[0]
    assert server.asked[1]["stop"] == ["USER:", "\n\n"]


@pytest.mark.parametrize(
    ("reply", "text", "thinking", "finish"),
    [
        (says("B", reasoning_content=" so \n"), "B", "so", "stop"),
        (says("\n\nB", reasoning="so"), "B", "so", "stop"),  # as vLLM names it from 0.11 on
        (says("B", reasoning="so", reasoning_content="so"), "B", "so", "stop"),
        (says("B", reasoning=None, reasoning_content=""), "B", "", "stop"),
        (says("B", reasoning={"summary": "so"}), "B", "", "stop"),
        (says(None, "length", reasoning_content="so"), "", "so", "length"),
        (says(None, reasoning="half \ud83d pair"), "", "half ? pair", "stop"),
    ],
)
def test_what_a_server_has_told_apart_as_thinking(
    reply: Answer, text: str, thinking: str, finish: str
) -> None:
    asked = request("a")
    with serving(lambda number, prompt: reply) as server:
        found = answers(server, asked)[asked]
    assert (found.text, found.thinking, found.finish_reason) == (text, thinking, finish)


def test_the_key_is_in_no_thinking_either() -> None:
    asked = request("a")
    with serving(lambda number, prompt: says("B", reasoning_content="my key is sk-1234567")) as server:
        found = answers(server, asked, api_key="sk-1234567")[asked]
    assert found.thinking == "my key is [key]"


def _save(image: Image.Image, suffix: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, suffix, **how)
    return buffer.getvalue()


def _exif(value: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = value
    return made


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
FILES = {
    "jpeg": (_save(NOISE, "JPEG"), True),
    "png": (_save(NOISE, "PNG"), True),
    "turned": (_save(NOISE, "JPEG", exif=_exif(6)), False),
    "turned-png": (_save(NOISE, "PNG", exif=_exif(3)), False),
    "cmyk": (_save(NOISE.convert("CMYK"), "JPEG"), False),
    "grey": (_save(NOISE.convert("L"), "PNG"), False),
    "palette": (_save(NOISE.convert("P"), "PNG"), False),
    "alpha": (_save(NOISE.convert("RGBA"), "PNG"), False),
    "keyed": (_save(NOISE, "PNG", transparency=(0, 0, 0)), False),
    "animated": (_save(NOISE, "PNG", save_all=True, append_images=[NOISE.rotate(180)]), False),
    "sixteen-bit": (_save(Image.fromarray(np.arange(35, dtype=np.uint16).reshape(5, 7) * 900), "PNG"), False),
    "webp": (_save(NOISE, "WEBP", lossless=True), False),
    "gif": (_save(NOISE, "GIF"), False),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("as_file", [True, False])
def test_a_file_goes_as_it_is_only_if_every_reader_sees_the_same(
    name: str, as_file: bool, tmp_path: Path
) -> None:
    data, kept = FILES[name]
    (tmp_path / "file").write_bytes(data)
    ref = image_ref(tmp_path / "file") if as_file else bytes_ref(lambda: data, name)
    sent = encode_image(ref)
    assert (sent == data) == kept
    with Image.open(io.BytesIO(sent)) as opened:
        assert opened.format in ("JPEG", "PNG") and opened.mode == "RGB"
        assert media_type(sent) == f"image/{opened.format.lower()}"
        assert opened.tobytes() == ref.load().tobytes()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_a_drawn_image_arrives_to_the_pixel(width: int, height: int, random: Any) -> None:
    image = Image.frombytes("RGB", (width, height), random.randbytes(3 * width * height))
    for ref in (ref_from_pil(image, "drawn"), ImageRef("0" * 64, "made", partial(image.copy))):
        with Image.open(io.BytesIO(base64.b64decode(base64.b64encode(encode_image(ref))))) as opened:
            assert opened.tobytes() == image.tobytes()


# ---------------------------------------------------------------- many requests


def test_requests_are_taken_as_they_are_needed_and_answered_each_once() -> None:
    taken = 0

    def stream() -> Iterator[Request]:
        nonlocal taken
        for number in range(300):
            taken += 1
            yield request(str(number))

    seen = set()
    with serving(lambda number, prompt: says(prompt)) as server:
        for done, (asked, response) in enumerate(
            ServerModel(endpoint(server, concurrency=4)).generate(stream())
        ):
            assert taken <= done + 2 * 4
            assert response.text == asked.messages[0].text
            seen.add(asked)
        assert server.most_at_once <= 4
    assert len(seen) == 300 == len(server.asked)


def test_two_streams_at_once_share_the_slots() -> None:
    """As describing images and answering about them may."""
    with serving(lambda number, prompt: says(prompt)) as server:
        model = ServerModel(endpoint(server, concurrency=3))
        first = model.generate(request(f"a{n}") for n in range(30))
        second = model.generate(request(answer.text.replace("a", "b")) for _, answer in first)
        assert {answer.text for _, answer in second} == {f"b{n}" for n in range(30)}
        assert server.most_at_once <= 3 and len(server.asked) == 60


def test_a_model_can_be_asked_again_after_a_stream_was_left() -> None:
    with serving(lambda number, prompt: says(prompt)) as server:
        model = ServerModel(endpoint(server, concurrency=2))
        for _ in model.generate(request(str(n)) for n in range(50)):
            break
        found = dict(model.generate([request("again")]))
    assert [response.text for response in found.values()] == ["again"]


# ---------------------------------------------------------------- what fails


def test_a_request_that_fails_says_so_and_the_others_are_answered() -> None:
    with serving(lambda number, prompt: fails(413, "too large") if prompt == "3" else says(prompt)) as server:
        found = answers(server, *(request(str(n)) for n in range(6)))
    assert len(found) == 6
    (failed,) = (r for r in found.values() if r.finish_reason == "failed")
    assert failed == Response("", 0, "failed", why="HTTP 413: too large")


def test_a_server_that_refuses_everything_is_named_once() -> None:
    with serving(lambda number, prompt: fails(400, "no such model")) as server:
        said = rf"--model m: .*{server.url} answered none of .*no such model"
        for count in (1, 1000):
            with pytest.raises(UserError, match=said):
                answers(server, *(request(str(n)) for n in range(count)))
        assert len(server.asked) < 200
        # Of a model that has answered before, it is the request's own trouble.
        assert answers(server, request("x"), known=True)[request("x")].finish_reason == "failed"


def test_without_a_key_the_server_asks_for_one() -> None:
    with serving(lambda number, prompt: fails(401, "who are you")) as server:
        with pytest.raises(UserError, match=r"--api-key-env: the server asks for a key .*who are you"):
            answers(server, request("x"))
        with pytest.raises(UserError, match="--api-key-env: the server refuses the key"):
            answers(server, request("x"), api_key="wrong")


def test_an_unknown_adapter_is_named_by_its_flag() -> None:
    said = r"--base-url .* or --adapter-name m: .*does not exist"
    unknown = fails(404, "That does not exist.")
    with serving(lambda number, prompt: unknown) as server, pytest.raises(UserError, match=said):
        answers(server, request("x"), flag="--adapter-name")


def test_an_image_that_is_gone_ends_it(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    ref = image_ref(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    with serving(lambda number, prompt: says("x")) as server, pytest.raises(UserError, match=r"a\.png"):
        answers(server, request("x", (ref,)))


# ---------------------------------------------------------------- doctor


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (Answer(b'{"data": [{"id": "base"}, {"id": "my\\u001b[31mlora"}]}'), 0, r"base, my\x1b[31mlora"),
        (Answer(b'{"data": []}'), 0, "it names none"),
        (Answer(b"Not Found", 404), 0, "optional: is the address right?"),
        (
            Answer(b"<html>\n <b>no such\x1b[2J page</b>", 404),
            0,
            r"answered HTTP 404: <html> <b>no such\x1b[2J page",
        ),
        (Answer(b"[" * 100_000), 0, "lists no models"),
        (fails(401), 1, "--api-key-env"),
    ],
)
def test_doctor_lists_what_a_server_has(
    answer: Answer, code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_checks", list)
    with serving(lambda number, path: answer if path == "/v1/models" else fails(500)) as server:
        assert invoke(["doctor", "--base-url", server.url]) == code
    out = capsys.readouterr().out
    assert said in out and server.url in out and "\x1b" not in out
    assert invoke(["doctor", "--base-url", server.url]) == 1  # it is closed by now
    assert "cannot be reached" in capsys.readouterr().out


# ---------------------------------------------------------------- keys


def config(**more: Any) -> RunConfig:
    return RunConfig(model="m", **more)


def served(**more: Any) -> RunConfig:
    server = ServerConfig.model_validate({"base_url": "http://a/v1", **more})
    return config(engine="openai", server=server)


def test_what_decides_answers_is_in_the_key_and_nothing_else() -> None:
    assert served().key != config().key
    assert served(base_url="http://b/v1").key != served().key
    assert served(adapters={"stic": "x"}).key != served().key
    assert served(base_url="http://a/v1/").key == served().key
    for aside in ({"concurrency": 3}, {"timeout": 5.0}, {"attempts": 1}, {"api_key_env": "X"}):
        assert served(**aside).key == served().key
    plain = config().key
    assert config(gradient_checkpointing=True).key == plain
    assert config(attn="eager").key != plain  # in 16 bits it moves some answers
    assert len({config(load_in_4bit=True).key, config(load_in_8bit=True).key, plain}) == 3


def test_a_setting_that_is_not_used_leaves_the_keys_of_runs_as_they_were() -> None:
    # Folders of earlier runs are named by such keys, and would not be found again.
    assert config().key.startswith("d85d7f64e50d69d8")


def test_a_served_model_is_its_address_and_name() -> None:
    assert server_fingerprint("http://a/v1/", "m") == server_fingerprint("http://a/v1", "m")
    known = [("http://a/v1", "m"), ("http://a/v1", "n"), ("http://b/v1", "m")]
    apart = {server_fingerprint(*pair) for pair in known}
    assert len(apart) == 3
    with serving(lambda number, prompt: says("x")) as server:
        assert ServerModel(endpoint(server)).fingerprint == server_fingerprint(server.url, "m")


# ---------------------------------------------------------------- replies that have begun


def begun(text: str, so_far: str = "It is") -> Request:
    return Request((Message("user", text), Message("assistant", so_far)), (), Generation(max_new_tokens=7))


def goes_on(server: Server, number: int) -> bool:
    body = server.asked[number]
    return (body.get("add_generation_prompt"), body.get("continue_final_message")) == (False, True)


def test_a_reply_that_has_begun_is_gone_on_with() -> None:
    with serving(lambda n, prompt: says(" red.", before=9 if goes_on(server, n) else 12)) as server:
        found = answers(server, request("a"), begun("b"), begun("c"))
    assert {found[begun(text)].text for text in "bc"} == {"red."}
    sent = [body for body in server.asked if body["messages"][0]["content"] in ("b", "c")]
    assert [body["messages"][-1] for body in sent] == [{"role": "assistant", "content": "It is"}] * 2
    assert all(goes_on(server, n) for n, body in enumerate(server.asked) if body in sent)
    (plain,) = (body for body in server.asked if body["messages"][0]["content"] == "a")
    assert "continue_final_message" not in plain and "add_generation_prompt" not in plain
    assert len(server.asked) == 5, "two more show once whether the server knows such requests"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (says("Red.", before=12), "ignores continue_final_message"),
        (says("Red."), "does not count a prompt's tokens"),
        (
            fails(400, "Unrecognized request argument: continue_final_message"),
            "Unrecognized request argument",
        ),
    ],
)
def test_a_server_that_would_answer_anew_is_refused_in_one_line(answer: Answer, why: str) -> None:
    with serving(lambda n, prompt: answer) as server, pytest.raises(UserError) as refused:
        answers(server, begun("b"))
    line = str(refused.value)
    assert why in line and f"--base-url {server.url}" in line and "--engine hf" in line and "\n" not in line
    assert not any(body["messages"][0]["content"] == "b" for body in server.asked)


def test_nobody_asks_whether_a_server_goes_on_where_nothing_has_begun() -> None:
    with serving(lambda n, prompt: says("Red.")) as server:
        answers(server, request("a"))
    assert len(server.asked) == 1
