"""Image-text similarity by a CLIP model: a tiny random one, saved as any is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from stic_eval.errors import UserError
from stic_eval.image_sources import scan_images
from stic_eval.models import clip
from stic_eval.models.clip import load_clip, similarities
from stic_eval.types import ImageRef

LONG = "a red box " * 50


def build_clip(folder: Path, seed: int = 0, *, limit: int | None = 24) -> Path:
    """Saves a random CLIP of 24 text positions.

    Args:
        folder: Where to.
        seed: Of the weights.
        limit: The length that the tokenizer says it cuts at; None: it does not say.
    """
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {symbol: number for number, symbol in enumerate(symbols)}
    core = Tokenizer(BPE(vocab=vocab, merges=[], end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    start, end = len(vocab) - 2, len(vocab) - 1
    core.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", start), ("<|endoftext|>", end)],
    )
    tokenizer = CLIPTokenizerFast(
        tokenizer_object=core,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        **({} if limit is None else {"model_max_length": limit}),
    )
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    config = CLIPConfig(
        text_config={"vocab_size": len(vocab), "max_position_embeddings": 24, **sizes, **ids},
        vision_config={"image_size": 32, "patch_size": 16, **sizes},
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    CLIPProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), tokenizer
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def images(photos: Path) -> list[ImageRef]:
    return scan_images(photos)[0]


def cosines(folder: Path, shown: list[tuple[ImageRef, str]], kept: Path) -> list[float]:
    return similarities(str(folder), load_clip(str(folder), "cpu"), shown, kept, quiet)


def quiet(done: int, total: int) -> None:
    pass


def plainly(folder: Path, image: ImageRef, text: str) -> float:
    """By transformers' two towers, one pair at a time."""
    from transformers import CLIPModel, CLIPProcessor

    model = CLIPModel.from_pretrained(folder).eval()
    processor = CLIPProcessor.from_pretrained(folder)
    inputs = processor(
        text=[text], images=[image.load()], return_tensors="pt", truncation=True, max_length=24
    )
    with torch.inference_mode():
        output = model(**inputs)
        # Its logits are the cosines times a scale.
        return float(output.logits_per_image[0, 0] / model.logit_scale.exp())


def test_it_is_the_models_own_cosine(folder: Path, images: list[ImageRef], tmp_path: Path) -> None:
    texts = ("a red box", "two discs, grey, on a green ground", "", LONG)
    shown = [(image, text) for image in images[:3] for text in texts]
    found = cosines(folder, shown, tmp_path / "kept.jsonl")
    assert found == pytest.approx([plainly(folder, *one) for one in shown], abs=1e-5)
    assert all(-1 <= value <= 1 for value in found)
    assert len({round(value, 5) for value in found}) == len(found)


def test_company_changes_nothing(
    folder: Path, images: list[ImageRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = [(image, text) for image in images for text in ("a box", "a much longer text of words")]
    found = cosines(folder, shown, tmp_path / "a.jsonl")
    monkeypatch.setattr(clip, "_ROWS", 3)
    turned = cosines(folder, shown[::-1], tmp_path / "b.jsonl")
    assert turned[::-1] == pytest.approx(found, abs=1e-6)


def test_texts_are_cut_where_the_model_ends_whatever_its_tokenizer_says(
    images: list[ImageRef], tmp_path: Path
) -> None:
    mute = build_clip(tmp_path / "mute", limit=None)
    (value,) = cosines(mute, [(images[0], LONG)], tmp_path / "kept.jsonl")
    assert value == pytest.approx(plainly(mute, images[0], LONG), abs=1e-5)


class Watched:
    """Stands in for a model: counts what it is shown, and fails after so many batches.

    Attributes:
        shown: Texts, in order.
    """

    def __init__(self, batches: int = 99, most: int = 99) -> None:
        self.shown: list[str] = []
        self._left, self._most = batches, most

    def __call__(self, part: Sequence[tuple[ImageRef, str]]) -> list[float]:
        if len(part) > self._most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        self.shown += [text for _, text in part]
        return [len(text) / 100 for _, text in part]


def test_what_was_compared_is_kept_and_not_compared_again(
    images: list[ImageRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip, "_ROWS", 2)
    kept = tmp_path / "kept.jsonl"
    shown = [(images[0], "x" * n) for n in (5, 3, 1, 4, 3, 2)]
    first = Watched(batches=1)
    with pytest.raises(KeyboardInterrupt):
        similarities("m", first, shown, kept, quiet)
    assert len(kept.read_text().splitlines()) == 2
    with kept.open("a") as file:
        file.write('{"key": "torn')  # as a kill in the middle of a write leaves it
    second = Watched()
    said: list[tuple[int, int]] = []
    found = similarities("m", second, shown, kept, lambda done, total: said.append((done, total)))
    assert found == [0.05, 0.03, 0.01, 0.04, 0.03, 0.02]
    assert [len(text) for text in first.shown + second.shown] == [5, 3, 1, 4, 2]  # an equal one once
    assert said[-1] == (6, 6)
    third = Watched()
    assert similarities("m", third, shown, kept, quiet) == found
    assert third.shown == []
    assert similarities("other", third, shown[:1], kept, quiet) == [0.05]
    assert len(third.shown) == 1  # of another model nothing is known
    similarities("m", third, [(images[1], "x" * 5)], kept, quiet)
    assert len(third.shown) == 2  # nor of another image


def test_nothing_to_compare_asks_nothing(tmp_path: Path) -> None:
    assert similarities("m", Watched(batches=0), [], tmp_path / "kept.jsonl", quiet) == []


def test_what_does_not_fit_is_compared_in_halves(images: list[ImageRef], tmp_path: Path) -> None:
    shown = [(images[0], "x" * n) for n in range(1, 12)]
    model = Watched(most=3)
    found = similarities("m", model, shown, tmp_path / "kept.jsonl", quiet)
    assert found == [n / 100 for n in range(1, 12)]
    assert [len(text) for text in model.shown] == list(range(1, 12))
    with pytest.raises(torch.OutOfMemoryError):
        similarities("m", Watched(most=0), shown, tmp_path / "more.jsonl", quiet)


@pytest.mark.parametrize("kind", ["missing", "empty", "other"])
def test_what_is_no_clip_model_is_one_line(kind: str, tmp_path: Path, tiny_vlm: Path) -> None:
    where = {"missing": tmp_path / "none", "empty": tmp_path, "other": tiny_vlm}[kind]
    with pytest.raises(UserError, match="clip model") as caught:
        load_clip(str(where), "cpu")
    assert str(where) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_that_cannot_be_decoded_is_named(folder: Path, tmp_path: Path) -> None:
    def gone() -> Image.Image:
        raise UserError("image gone.png: cannot be decoded")

    ref = ImageRef("0" * 64, "gone.png", partial(gone))
    with pytest.raises(UserError, match=r"gone\.png"):
        cosines(folder, [(ref, "x")], tmp_path / "kept.jsonl")
