"""Our model class for lmms-eval: how requests of its are asked, and what comes back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("lmms_eval")

from lmms_eval.api.instance import Instance
from lmms_eval.models.registry_v2 import ModelRegistryV2

from stic_eval.errors import UserError
from stic_eval.lmms_model import SticEval
from tests.support.fake import FakeVLM

DOCS = [{"image": Image.new("RGB", (20, 16), (60 * i, 9, 200 - 60 * i))} for i in range(3)]


def visual(doc: dict[str, Any]) -> list[Image.Image]:
    return [doc["image"]]


def instance(
    doc: int, text: str = "<image>\nWhat is it?", to_visual: Any = visual, **kwargs: Any
) -> Instance:
    told = {"task": "t", "doc_id": doc, "repeats": 1}
    settings = {"max_new_tokens": 12, **kwargs}
    return Instance("generate_until", (text, settings, to_visual, doc, "t", "test"), 0, told)


def choice(doc: int, answer: Any, question: str = "What is it?", bare: bool = False) -> Instance:
    told = {"task": "t", "doc_id": doc, "repeats": 1}
    arguments = (question, answer) if bare else (question, answer, visual, doc, "t", "test")
    return Instance("loglikelihood", arguments, 0, told)


@pytest.fixture(scope="module")
def model(tiny_vlm: Path) -> SticEval:
    made = SticEval(str(tiny_vlm), device="cpu")
    made.task_dict["t"] = {"test": DOCS}
    return made


def texts(model: SticEval, *requests: Instance) -> list[str]:
    return [answer.text for answer in model.generate_until(requests)]


def test_lmms_eval_finds_it_by_entry_point() -> None:
    registry = ModelRegistryV2()
    registry.load_entrypoint_manifests()
    assert registry.get_model_class("stic_eval") is SticEval


def test_whoever_imports_the_module_first_gets_no_warning() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import stic_eval.lmms_model"], capture_output=True, text=True, check=True
    )
    assert "manifest" not in found.stderr


def test_answers_come_in_the_order_of_the_requests(model: SticEval) -> None:
    asked = [instance(2), instance(0), instance(1), instance(0), instance(0, "Hello", to_visual=None)]
    found = texts(model, *asked)
    assert found == [texts(model, one)[0] for one in asked]
    assert found[1] == found[3]
    assert len(set(found)) > 2  # they do not all say the same


def test_an_answer_ends_at_its_stop(model: SticEval) -> None:
    (whole,) = texts(model, instance(0))
    assert len(whole) > 2
    stop = whole[2]
    assert texts(model, instance(0, until=["\0", stop])) == [whole.split(stop)[0]]


def test_thinking_is_left_out_before_an_answer_is_cut(
    model: SticEval, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {0: "<think>Well.\n\nA?</think>B\n\nC", 1: "<think>Well.\n\nA", 2: "C\n\nD"}
    fake = FakeVLM(lambda request: said[DOCS.index({"image": request.images[0].load()})])
    monkeypatch.setattr(model, "_answerer", lambda: fake)
    assert texts(model, *[instance(n, until=["\n\n"]) for n in range(3)]) == ["B", "", "C"]
    assert "1 of 3 answers were cut while the model was thinking, and are empty" in capsys.readouterr().err


def test_repeated_requests_that_sample_have_seeds_of_their_own(model: SticEval) -> None:
    asked = [instance(0, temperature=1.0, max_new_tokens=16) for _ in range(3)]
    first = texts(model, *asked)
    assert len(set(first)) == 3
    assert texts(model, *asked) == first


def test_documents_that_ask_the_same_draw_noise_of_their_own(model: SticEval) -> None:
    asked = [instance(i, "Hello", None, temperature=1.0, max_new_tokens=16) for i in range(3)]
    assert len(set(texts(model, *asked))) == 3
    greedy = [instance(i, "Hello", None) for i in range(3)]
    assert len(set(texts(model, *greedy))) == 1


def test_the_greedy_answer_is_the_likeliest(model: SticEval) -> None:
    # The tiny model speaks in bytes: an answer that is the same as text is looked for.
    questions = [f"What is it {number}?" for number in range(300)]
    answers = texts(model, *[instance(1, question, max_new_tokens=2) for question in questions])
    question, greedy = next(
        (q, text)
        for q, text in zip(questions, answers, strict=True)
        if text == text.strip() and text.isascii() and text.isprintable() and len(text) == 2
    )
    asked = [choice(1, answer, question) for answer in (f" {greedy}", "zz", lambda doc: "qq")]
    (loss, is_greedy), *others = [answer.text for answer in model.loglikelihood(asked)]
    assert is_greedy
    assert all(loss < other for other, _ in others)
    assert [flag for _, flag in others] == [False, False]


def test_an_answer_without_a_question_has_a_likelihood_too(model: SticEval) -> None:
    ((loss, _),) = [answer.text for answer in model.loglikelihood([choice(0, "cat", "", bare=True)])]
    assert loss > 0


def test_answers_can_be_kept(tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path))
    found = []
    for _ in range(2):
        made = SticEval(str(tiny_vlm), device="cpu", cache=True)
        made.task_dict["t"] = {"test": DOCS}
        found.append(texts(made, instance(0), instance(1)))
        monkeypatch.setattr(
            "stic_eval.models.hf_model.HFModel.generate", None
        )  # the second time nothing is asked
    assert found[0] == found[1]


def test_model_args_have_the_last_word(tiny_vlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(SticEval, "__init__", lambda self, **given: seen.append(given))
    flags = {"batch_size": 1, "max_batch_size": None, "device": "cuda"}
    SticEval.create_from_arg_string(f"pretrained={tiny_vlm},device=cpu", flags)
    SticEval.create_from_arg_string("pretrained=pocket,batch_size=1", {**flags, "batch_size": 8})
    assert seen[0] == {"pretrained": str(tiny_vlm), "device": "cpu"}
    assert seen[1] == {"pretrained": "pocket", "batch_size": 1, "device": "cuda"}


def test_what_it_cannot_do_it_says(tiny_vlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = SticEval(str(tiny_vlm), device="cpu")
    made.task_dict["t"] = {"test": DOCS}
    with pytest.raises(NotImplementedError, match="several rounds"):
        made.generate_until_multi_round([])
    with pytest.raises(ValueError, match="4 beams"):
        made.generate_until([instance(0, num_beams=4)])
    with pytest.raises(ValueError, match="only images"):
        made.generate_until([instance(0, to_visual=lambda doc: ["film.mp4"])])
    made.clean()
    with pytest.raises(RuntimeError, match="let go of"):
        made.generate_until([instance(0)])
    with pytest.raises(UserError, match="adapter"):
        SticEval(str(tiny_vlm), device="cpu", adapter=str(tiny_vlm))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process"):
        SticEval(str(tiny_vlm))


def test_it_is_asked_as_in_a_run_of_ours(tiny_vlm: Path) -> None:
    plain = SticEval(str(tiny_vlm), device="cpu")._require_model()
    named = SticEval.create_from_arg_string(
        f"pretrained={tiny_vlm},device=cpu,profile=llava-1.5"
    )._require_model()
    brief = SticEval.create_from_arg_string(
        f"pretrained={tiny_vlm},device=cpu,system_prompt=Be brief.,do_pad=true"
    )._require_model()
    assert len({plain.fingerprint, named.fingerprint, brief.fingerprint}) == 3
    talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}]
    written = [made.processor.apply_chat_template(talk, tokenize=False) for made in (plain, named, brief)]
    assert written[0] == "USER: <image>\nx "
    assert written[1].startswith("A chat between a curious user")
    assert "Be brief." in written[2]
    with pytest.raises(UserError, match="takes no min_pixels"):
        SticEval(str(tiny_vlm), device="cpu", min_pixels=100)
