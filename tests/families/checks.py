"""What has to hold for every family: the tests' assertions, which docs/models.md is written from as well.

Each check raises an AssertionError, or whatever else went wrong.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.contracts.method import SFTItem
from stic_eval.images import diffuse
from stic_eval.models.conversation import encode
from stic_eval.models.hf_model import HFModel
from stic_eval.store import request_key
from stic_eval.training.hyperparameters import PairSettings, PreferenceLoss, Training
from stic_eval.training.lora import LoraSettings
from stic_eval.training.preference_pairs import pair_requests, write_pairs
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import Generation, ImageRef, Message, Request
from tests.support.zoo import FAMILIES, Family
from tests.support.zoo_parts import random_adapter

if TYPE_CHECKING:
    import torch

QUESTIONS = ("What is it?", "Which colours do you see, and where?", "Count the corners.")
TALK = (
    ("user", "What is it?"),
    ("assistant", "a red box"),
    ("user", "And there?"),
    ("assistant", "two dots, grey"),
)
LORA = LoraSettings(r=2, alpha=4, dropout=0.0)
ONE_STEP = Training(learning_rate=1e-2, batch_size=3, epochs=1, warmup_ratio=0.0)

Answers = dict[Request, tuple[str, int, str]]  # text, number of tokens, why it ended


@dataclass(frozen=True)
class Member:
    """One family's checkpoint.

    Attributes:
        name: In `FAMILIES`.
        family: What is known of it.
        folder: Its files; read only.
        hf: It, in memory.
    """

    name: str
    family: Family
    folder: Path
    hf: HFModel


def open_member(name: str, folder: Path) -> Member:
    """Builds a family's checkpoint into a folder and loads it."""
    family = FAMILIES[name]
    return Member(name, family, family.build(folder), HFModel.load(str(folder), device="cpu"))


def ask(text: str, *images: ImageRef, new: int = 8) -> Request:
    """One question, answered greedily."""
    return Request((Message("user", text),), images, Generation(max_new_tokens=new))


def questions(pictures: Sequence[ImageRef]) -> list[Request]:
    """Several about each picture."""
    return [ask(text, image) for image in pictures for text in QUESTIONS]


def answers(hf: HFModel, requests: Iterable[Request]) -> Answers:
    """All that is said to requests."""
    return {request: (r.text, r.n_tokens, r.finish_reason) for request, r in hf.generate(requests)}


# ---------------------------------------------------------------- generation


def prompt_inputs(hf: HFModel, text: str, *images: ImageRef) -> dict[str, Any]:
    """Model input in transformers' own way, without anything of ours."""
    content: list[dict[str, Any]] = [{"type": "image", "image": image.load()} for image in images]
    content.append({"type": "text", "text": text})
    inputs: dict[str, Any] = hf.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    return {name: value for name, value in inputs.items() if name != "labels"}  # PaliGemma's, for training


def plainly(hf: HFModel, request: Request) -> str:
    """What transformers' own generation says to one request."""
    import torch

    inputs = prompt_inputs(hf, request.messages[0].text, *request.images)
    with torch.inference_mode():
        output = hf.model.generate(
            **inputs, max_new_tokens=request.generation.max_new_tokens, do_sample=False
        )
    new = output[0, inputs["input_ids"].shape[1] :]
    return str(hf.processor.tokenizer.decode(new, skip_special_tokens=True)).strip()


def generates(member: Member, requests: Sequence[Request]) -> None:
    """Answers go by image and by question, and are those of transformers' own generation."""
    found = answers(member.hf, requests)
    assert set(found) == set(requests)
    texts = [found[request][0] for request in requests]
    by_image = [set(texts[start :: len(QUESTIONS)]) for start in range(len(QUESTIONS))]
    by_question = [set(texts[i : i + len(QUESTIONS)]) for i in range(0, len(texts), len(QUESTIONS))]
    assert max(map(len, by_image)) > 2
    assert max(map(len, by_question)) > 1
    some = requests[1::7]
    assert [found[request][0] for request in some] == [plainly(member.hf, request) for request in some]


def generates_without_images(member: Member, requests: Sequence[Request]) -> None:
    """Questions without an image are answered beside others, and as by themselves."""
    bare = [ask("Say something."), ask("What is the colour of an apple?")]
    mixed = answers(member.hf, [bare[0], *requests[:3], bare[1]])
    assert mixed == answers(member.hf, bare) | answers(member.hf, requests[:3])
    assert [mixed[request][0] for request in bare] == [plainly(member.hf, request) for request in bare]


def generates_from_several(member: Member, pictures: Sequence[ImageRef]) -> None:
    """Questions about two images are answered beside one about a single image, as by themselves."""
    two, others = (ask("What differs?", *pictures[start : start + 2]) for start in (0, 2))
    asked = [two, ask("What differs?", pictures[0]), others]
    found = answers(member.hf, asked)
    assert [found[request][0] for request in asked] == [plainly(member.hf, request) for request in asked]


def independent_of_batch(member: Member, requests: Sequence[Request], **how: Any) -> None:
    """Answers are the same to the token for batches of 1, 7 and 64 in any order, loaded in whatever way."""
    expected = answers(member.hf, requests)
    for size in (1, 7, 64):
        hf = HFModel.load(str(member.folder), device="cpu", batch_size=size, **how)
        shuffled = random.Random(size).sample(requests, len(requests))
        assert answers(hf, shuffled) == expected, f"batches of {size}"


def switches_adapters(member: Member, requests: Sequence[Request], scratch: Path) -> None:
    """Answers change with the adapter, and come back."""
    some = requests[::3]
    folders = [random_adapter(scratch / name, member.folder, seed) for seed, name in enumerate(("a", "b"))]
    base = answers(member.hf, some)
    a, b = (answers(member.hf.with_adapter(folder), some) for folder in folders)
    assert base != a != b != base
    assert answers(member.hf.with_adapter(folders[0]), some) == a
    assert answers(member.hf, some) == base


# ---------------------------------------------------------------- answers that are given

BEGUN = "a red box,"


def goes_on_from_what_has_begun(member: Member, pictures: Sequence[ImageRef]) -> None:
    """An answer that has begun is gone on with as transformers' generation does that is made to begin so."""
    asked = [
        Request((Message("user", text), Message("assistant", BEGUN)), (image,), Generation(8))
        for image in pictures[:4]
        for text in QUESTIONS
    ]
    found = answers(member.hf, asked)
    assert set(found) == set(asked)
    assert len({text for text, *_ in found.values()}) > 2
    for request in asked[::5]:
        assert found[request][0] == _forced_on(member.hf, request), request.messages[0].text
    alone = {request: response.text for request, response in member.hf.one_by_one(asked)}
    assert {request: text for request, (text, *_) in found.items()} == alone


def scores_as_it_generates(member: Member, pictures: Sequence[ImageRef]) -> None:
    """Log-probabilities are those of transformers' generation that is made to give the answers.

    Answers that differ in their last character share a row.
    """
    import torch

    hf = member.hf
    pictured = [pictures[0], pictures[5]]
    texts = ("a red box", "a red bow", "two dots, grey, and much beside them", "x")
    asked = [(ask(QUESTIONS[0], image), text) for image in pictured for text in texts]
    found = dict(hf.likelihoods(asked))
    assert set(found) == set(asked)
    for (request, text), likelihood in found.items():
        tail = _tail(hf, request, text)
        logps = _forced(hf, request.images[0], tail).float().log_softmax(-1)
        wanted = float(logps.gather(1, torch.tensor(tail)[:, None]).sum())
        assert likelihood.n_tokens == len(tail)
        assert math.isclose(likelihood.logp, wanted, abs_tol=2e-4 * len(tail)), (text, wanted)
    assert len({value.logp for value in found.values()}) == len(found)


def scores_parts_as_the_whole(member: Member, pictures: Sequence[ImageRef]) -> None:
    """An answer in two parts is as likely as the first part times the second one behind it."""
    first, rest = "two dots", ", grey"
    bare = ask(QUESTIONS[0], pictures[0])
    going_on = Request((*bare.messages, Message("assistant", first)), bare.images, bare.generation)
    parts = dict(member.hf.likelihoods([(bare, first + rest), (bare, first), (going_on, rest)]))
    whole, *both = (parts[one] for one in [(bare, first + rest), (bare, first), (going_on, rest)])
    assert math.isclose(whole.logp, sum(part.logp for part in both), abs_tol=5e-3)
    assert whole.n_tokens == sum(part.n_tokens for part in both)


def sees_noise(member: Member, pictures: Sequence[ImageRef]) -> None:
    """Noise on the processor's output is the same to every way of asking, and is not the clean image."""
    hf = member.hf
    noisy = [diffuse(image, 500, 7) for image in pictures[:2]]
    clean = [ask(QUESTIONS[0], image) for image in pictures[:2]]
    asked = [ask(QUESTIONS[0], image) for image in noisy]
    found = answers(hf, [*clean, *asked])
    alone = {request: response.text for request, response in hf.one_by_one(asked)}
    assert {request: found[request][0] for request in asked} == alone
    given = "a red box"
    scored = dict(hf.likelihoods([(request, given) for request in (*clean, *asked)]))
    assert all(
        scored[before, given].logp != scored[after, given].logp
        for before, after in zip(clean, asked, strict=True)
    )


def _tail(hf: HFModel, request: Request, answer: str) -> list[int]:
    """Token ids of an answer, and of the white space that the template writes in front of it."""
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": request.messages[0].text}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    before = hf.processor.apply_chat_template(turns[:1], add_generation_prompt=True, tokenize=False)
    whole = hf.processor.apply_chat_template(turns, tokenize=False)
    assert whole.startswith(before)
    text = whole[len(before) : whole.index(answer, len(before)) + len(answer)]
    ids: list[int] = hf.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _forced_on(hf: HFModel, request: Request) -> str:
    """What transformers' generation says after it was made to say what the request's last turn has."""
    text, image = request.messages[0].text, request.images[0]
    tail = _tail(hf, request, request.messages[-1].text)
    output = _generated(hf, text, image, tail, request.generation.max_new_tokens)
    start = prompt_inputs(hf, text, image)["input_ids"].shape[1] + len(tail)
    new = output.sequences[0, start:]
    return str(hf.processor.tokenizer.decode(new, skip_special_tokens=True)).strip()


# ---------------------------------------------------------------- training


def write_three(pictures: Sequence[ImageRef], path: Path) -> Path:
    """A file of three pairs about pictures of different shapes."""
    asked = list(pair_requests(pictures[::3], load_prompts(), PairSettings(), 0))
    said = {request_key(pair.chosen): f"a red box, {n}" for n, pair in enumerate(asked)}
    said |= {request_key(pair.rejected): f"no idea, or {n} dots" for n, pair in enumerate(asked)}
    write_pairs(asked, said, path, PairSettings())
    return path


def trains_on_what_it_generates_from(member: Member, pictures: Sequence[ImageRef]) -> None:
    """Masks, positions and images' features of a padded training batch are those of generation."""
    import torch

    hf, some = member.hf, [pictures[0], pictures[5]]
    batch = encode(hf.processor, [image.load() for image in some], [TALK[:2], TALK])
    answer = batch.pop("answer_mask")
    with torch.inference_mode():
        logits = hf.model(**batch).logits
    for row, image in enumerate(some):
        first, last = answer[row].nonzero().flatten()[[0, -1]].tolist()
        tail = batch["input_ids"][row, first : last + 1].tolist()
        wanted = _forced(hf, image, tail)
        assert len(wanted) > 8
        assert torch.allclose(logits[row, first - 1 : last][: len(wanted)], wanted, atol=2e-4), f"row {row}"


def _forced(hf: HFModel, image: ImageRef, tail: list[int]) -> torch.Tensor:
    """Logits of shape (tokens, vocabulary) for each token of an answer that generation is made to give."""
    import torch

    return torch.cat(_generated(hf, TALK[0][1], image, tail).logits)


def _generated(hf: HFModel, text: str, image: ImageRef, tail: list[int], more: int = 0) -> Any:
    """What transformers' generation gives that is made to begin with some tokens, and so many more."""
    import torch

    def choose(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        said = ids.shape[1] - inputs["input_ids"].shape[1]
        if said >= len(tail):
            return scores
        only = torch.full_like(scores, -math.inf)
        only[:, tail[said]] = 0.0
        return only

    inputs = prompt_inputs(hf, text, image)
    with torch.inference_mode():
        return hf.model.generate(
            **inputs, max_new_tokens=len(tail) + more, do_sample=False, logits_processor=[choose],
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip


def learns_preferences(member: Member, pairs: Path, requests: Sequence[Request], out: Path) -> None:
    """One step of preference training."""
    from stic_eval.training.dpo import train_preferences

    before = answers(member.hf, requests)
    pure = PreferenceLoss(alpha=0.0)
    train_preferences(member.hf, pairs, out, loss=pure, training=ONE_STEP, lora=LORA, seed=0)
    log = _checked(member, out, before)
    # A new adapter changes nothing yet: policy and reference agree, so the first loss is -log(1/2). Where
    # experts are mixed, TRL adds how unevenly they are used.
    experts = hasattr(member.hf.model.config.get_text_config(), "router_aux_loss_coef")
    assert math.isclose(log["loss"], math.log(2), abs_tol=0.01 if experts else 1e-4)


def is_fine_tuned(
    member: Member, pictures: Sequence[ImageRef], requests: Sequence[Request], out: Path
) -> None:
    """One step of supervised fine-tuning, on conversations of different lengths; of text there is no more."""
    from stic_eval.training.sft import train_sft

    before = answers(member.hf, requests)
    items = [SFTItem(str(n), image, TALK[: 2 + 2 * (n % 2)]) for n, image in enumerate(pictures[:3])]
    limited = ONE_STEP.model_copy(update={"max_length": 1000})
    train_sft(member.hf, items, out, training=limited, lora=LORA, seed=0)
    _checked(member, out, before)
    assert not (out / "cuts.json").exists()


def _checked(member: Member, out: Path, before: Answers) -> dict[str, float]:
    """The log's one line; the adapter is on the decoder alone, does something, and leaves the base alone."""
    from safetensors.torch import load_file

    log: list[dict[str, float]] = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert len(log) == 1
    assert math.isfinite(log[0]["loss"])
    assert log[0]["grad_norm"] > 0
    weights = load_file(out / "adapter" / "adapter_model.safetensors")
    assert any(bool(value.any()) for name, value in weights.items() if "lora_B" in name)
    assert not [name for name in weights if "vision" in name or "visual" in name or "projector" in name]
    assert answers(member.hf.with_adapter(out / "adapter"), before) != before
    assert answers(member.hf, before) == before
    return log[0]
