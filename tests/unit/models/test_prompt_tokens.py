"""Prompts that share their images have the ids that the processor itself gives them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stic_eval.image_sources import scan_images
from stic_eval.models.hf_model import HFModel
from stic_eval.models.probe import prompter
from stic_eval.models.prompt_text import render_prompts
from stic_eval.types import Generation, ImageRef, Message, Request

ONE = Generation(1)
texts = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
    ["", "<image>", "\n\n\nWhat?", " What? ", "A", "USER: <image>\n", "</s>", "é\u0301", "a\tb\r\nc", "🖼️"]
)


@pytest.fixture(scope="module")
def images(photos: Path) -> list[ImageRef]:
    return scan_images(photos)[0]


@pytest.fixture(scope="module", params=["tiny", "pocket"])
def model(request: pytest.FixtureRequest, tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm) if request.param == "tiny" else "pocket", device="cpu")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(texts, min_size=1, max_size=4), st.sampled_from([(), ("Be brief.",)]))
def test_ids_are_the_processors_own(
    model: HFModel, images: list[ImageRef], questions: list[str], system: tuple[str, ...]
) -> None:
    turns = tuple(Message("system", text) for text in system)
    requests = [Request((*turns, Message("user", q)), (images[0],), ONE) for q in questions]
    maker = prompter(model._loaded)
    asked = maker.render(requests)
    assert len({one.key for one in asked}) == 1
    prompts = maker.cut(asked, None)
    later = maker.cut(asked[::-1], prompts[0].group.beginning)
    processor = model.processor
    for request, prompt, again in zip(requests, prompts, reversed(later), strict=True):
        (text,) = render_prompts(processor, [request], model._loaded.control)
        inputs = processor(
            text=[text],
            images=[[images[0].load()]],
            return_tensors="pt",
            add_special_tokens=not text.startswith(processor.tokenizer.bos_token),
        )
        expected = inputs["input_ids"][0].tolist()
        assert [*prompt.group.beginning.ids.tolist(), *prompt.rest] == expected
        assert again.rest == prompt.rest
        assert len(prompt) == len(expected)
        assert prompt.group.beginning.frame is not None


def test_questions_before_the_image_are_each_on_their_own(
    tiny_vlm: Path, images: list[ImageRef], tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(tiny_vlm, tmp_path / "vlm")
    path = tmp_path / "vlm" / "chat_template.jinja"
    path.write_text(
        "{% for m in messages %}{% for p in m['content'] if p['type'] == 'text' %}{{ p['text'] }}{% endfor %}"
        "{% for p in m['content'] if p['type'] == 'image' %}<image>{% endfor %}\n{% endfor %}>"
    )
    requests = [
        Request((Message("user", q),), (images[0],), Generation(8)) for q in ("What?", "Why?", "How?")
    ]
    found = {}
    for reuse in (False, "always"):
        model = HFModel.load(str(tmp_path / "vlm"), device="cpu", reuse=reuse)
        found[reuse] = {request: answer.text for request, answer in model.generate(requests)}
    assert found[False] == found["always"]
    assert len(set(found[False].values())) == 3
