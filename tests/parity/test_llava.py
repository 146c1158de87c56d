"""What a LLaVA is sent, text and pixels, held against what LLaVA's own scripts would make.

Expectations are written down from the definitions: the conversations `vicuna_v1` and `mistral_instruct`, the
square of `image_aspect_ratio pad`, the tiles of `anyres` (github haotian-liu/LLaVA, conversation.py and
mm_utils.py), and the prompts of its evaluation scripts.
"""

from __future__ import annotations

import ast
import io
import math
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stic_eval import config, registry
from stic_eval.benchmark_protocols import with_options
from stic_eval.images import image_ref
from stic_eval.models import profile_processor
from stic_eval.models.profile_detection import profile_of
from stic_eval.models.prompt_text import control_tokens, render_prompts
from stic_eval.solvers.requests import question
from stic_eval.types import Request, Sample
from tests.support import published

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions."
)
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])
COLOR = (122, 116, 104)  # int(mean * 255)
# Common shapes of photographs and charts, one pixel more on one side among them.
SHAPES = (
    (640, 480), (480, 640), (640, 427), (500, 375), (375, 500), (1024, 683), (350, 501), (640, 640),
    (850, 601), (336, 336),
)  # fmt: skip


def drawn(index: int, size: tuple[int, int]) -> bytes:
    """A picture without two alike rows or columns, so that what is cut off or moved shows."""
    random = np.random.default_rng(index)
    coarse = random.integers(0, 256, (size[1] // 20 + 2, size[0] // 20 + 2, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten photographs: real ones where they are at hand."""
    real = sorted(Path(os.environ.get("STIC_EVAL_REAL_DATA", "nowhere"), "photos").glob("*.jpg"))[:10]
    if len(real) == 10:
        return real
    folder = tmp_path_factory.mktemp("photographs")
    for index, size in enumerate(SHAPES):
        (folder / f"{index}.png").write_bytes(drawn(index, size))
    return sorted(folder.iterdir())


# ---------------------------------------------------------------- LLaVA's side, by hand


def normal(image: Image.Image) -> np.ndarray[Any, Any]:
    """CLIP's normal form of a tile that has its size already, (channels, rows, columns)."""
    return ((np.asarray(image, np.float64) / 255 - MEAN) / STD).transpose(2, 0, 1)


def padded(image: Image.Image) -> np.ndarray[Any, Any]:
    """LLaVA-1.5: a square of the mean colour around the picture, then 336 by 336."""
    side = max(image.size)
    canvas = Image.new("RGB", (side, side), COLOR)
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return normal(canvas.resize((336, 336), Image.Resampling.BICUBIC))


def tiles(image: Image.Image) -> np.ndarray[Any, Any]:
    """LLaVA-1.6: the whole squeezed to 336 by 336, then tiles of it on black, row by row."""

    def fit(target: tuple[int, int]) -> tuple[int, int]:
        scale = min(target[0] / image.width, target[1] / image.height)
        kept = int(image.width * scale) * int(image.height * scale)
        kept = min(kept, image.width * image.height)
        return kept, -(target[0] * target[1] - kept)

    # Pairs of the grid are (height, width).
    width, height = max(((w, h) for h, w in published.GRID), key=fit)
    # In this order: 375 * (672 / 500) is a little more than 504, and is rounded up to 505.
    across, down = width / image.width, height / image.height
    if across < down:
        new = width, min(math.ceil(image.height * across), height)
    else:
        new = min(math.ceil(image.width * down), width), height
    canvas = Image.new("RGB", (width, height), (0, 0, 0))
    resized = image.resize(new, Image.Resampling.BICUBIC)
    canvas.paste(resized, ((width - new[0]) // 2, (height - new[1]) // 2))
    boxes = [(x, y, x + 336, y + 336) for y in range(0, height, 336) for x in range(0, width, 336)]
    base = image.resize((336, 336), Image.Resampling.BICUBIC)
    return np.stack([normal(base), *(normal(canvas.crop(box)) for box in boxes)])


def vicuna(text: str) -> str:
    return f"{SYSTEM} USER: <image>\n{text} ASSISTANT:"


def mistral(text: str) -> str:
    return f"[INST] <image>\n{text} [/INST]"


LETTER = "Answer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."
# A row of each benchmark that LLaVA has a script for, and the text behind `<image>` and a line break there.
ROWS: Mapping[str, tuple[dict[str, Any], str]] = {
    "scienceqa": (
        {
            "question": "Which is the warmest?", "hint": "Look at the dates.", "choices": ["May", "June"],
            "answer": 1, "subject": "natural science", "grade": "grade3",
        },
        f"Context: Look at the dates.\nWhich is the warmest?\nA. May\nB. June\n{LETTER}",
    ),
    "textvqa": (
        {"question": "what is the brand?", "answers": ["nokia"] * 10, "ocr_tokens": ["NOKIA", "3310"]},
        f"What is the brand?\nReference OCR token: NOKIA, 3310\n{SHORT}",
    ),
    "llava_bench": (
        {
            "question_id": 1, "question": "What is this place called?", "category": "conv",
            "caption": "A beach.", "gpt_answer_content": "Lanikai.",
        },
        "What is this place called?",
    ),
    "mmbench": (
        {
            "index": 7, "question": "What colour is it?", "hint": "It is day.", "A": "red", "B": "blue",
            "answer": "A", "category": "attribute", "L2-category": "attribute_reasoning",
        },
        f"It is day.\nWhat colour is it?\nA. red\nB. blue\n{LETTER}",
    ),
    "mmvet": (
        {"question_id": "v1_0", "question": "What is x?", "answer": "-1", "capability": "ocr"},
        "What is x?",
    ),
}  # fmt: skip
SCRIPTS = tuple(ROWS)


# ---------------------------------------------------------------- our side

CHECKPOINTS = {
    "llava-1.5": ("llava", "vicuna-7b", published.VICUNA, vicuna),
    "llava-1.6-vicuna": ("llava_next", "vicuna-7b", published.VICUNA, vicuna),
    "llava-1.6-mistral": ("llava_next", "mistral-7b", published.MISTRAL, mistral),
}


@pytest.fixture(scope="module", params=CHECKPOINTS)
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """A profile's name, and a published processor as a run without further flags has it."""
    kind, decoder, template, _ = CHECKPOINTS[request.param]
    folder = published.configuration(tmp_path_factory.mktemp("published"), kind, decoder, template)
    profile = profile_of(config.load(flags={"model": str(folder)}))
    processor = published.processor(kind, template)
    if profile is not None:
        profile_processor.apply(processor, profile)
    return request.param, processor


def sample(name: str, image: Path, protocol: str = "llava") -> tuple[Sample, Request]:
    benchmark = with_options(registry.benchmarks().get(name), {"protocol": protocol})
    made = benchmark.to_sample({**ROWS[name][0], "image": image_ref(image)})
    return made, question(made, benchmark.generation)


def texts(processor: Any, requests: Sequence[Request]) -> list[str]:
    return render_prompts(processor, requests, control_tokens(processor))


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_text_is_that_of_llavas_scripts(
    name: str, asked: tuple[str, Any], photographs: list[Path]
) -> None:
    profile, processor = asked
    expected = CHECKPOINTS[profile][3](ROWS[name][1])
    requests = [sample(name, image)[1] for image in photographs]
    assert texts(processor, requests) == [expected] * len(photographs)


def test_token_ids_are_those_of_the_text_with_an_images_worth_of_places(
    asked: tuple[str, Any], photographs: list[Path]
) -> None:
    """The start token, the text before the image, 576 places for LLaVA-1.5's one tile, the text behind it."""
    profile, processor = asked
    for name in SCRIPTS:
        made, request = sample(name, photographs[0])
        got = processor(
            text=texts(processor, [request]), images=[[made.images[0].load()]], return_tensors="np"
        )
        before, _, behind = CHECKPOINTS[profile][3](ROWS[name][1]).partition("<image>")
        ids = got["input_ids"][0].tolist()
        letters = [
            processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, behind)
        ]
        places = len(ids) - 1 - len(letters[0]) - len(letters[1])
        assert ids == [1, *letters[0], *[32000] * places, *letters[1]]
        assert places == 576 if profile == "llava-1.5" else places > 576


def test_pixels_are_those_of_llavas_scripts(asked: tuple[str, Any], photographs: list[Path]) -> None:
    profile, processor = asked
    for path in photographs:
        image = Image.open(path).convert("RGB")
        got = processor.image_processor([image_ref(path).load()], return_tensors="np")["pixel_values"][0]
        expected = padded(image) if profile == "llava-1.5" else tiles(image)
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() < 1e-4, path.name


# ---------------------------------------------------------------- lmms-eval's `llava_hf`


def fallback() -> str:
    """The template that `llava_hf` takes where a tokenizer has none; importing it needs readers of videos."""
    found = find_spec("lmms_eval")
    if found is None or found.origin is None:
        pytest.skip("lmms-eval is not installed")
    tree = ast.parse((Path(found.origin).parent / "models/simple/llava_hf.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "VICUNA_CHAT_TEMPLATE":
            return str(ast.literal_eval(node.value))
    raise AssertionError("llava_hf has no VICUNA_CHAT_TEMPLATE any more")


@pytest.mark.parametrize("asked", ["llava-1.5", "llava-1.6-vicuna"], indirect=True)
@pytest.mark.parametrize("name", SCRIPTS)
def test_under_protocol_lmms_the_conversation_is_that_of_llava_hf(
    name: str, asked: tuple[str, Any], photographs: list[Path]
) -> None:
    import jinja2

    _, processor = asked
    made, request = sample(name, photographs[0], "lmms")
    # `llava_hf` puts the image and a line break in front of the task's text, as one user's turn.
    turn = {"role": "user", "content": f"<image>\n{made.question}"}
    expected = jinja2.Template(fallback()).render(
        messages=[turn], add_generation_prompt=True, eos_token="</s>"
    )
    assert texts(processor, [request]) == [expected]
