"""Plain batched `generate` in lmms-eval's manner, at any batch size: what its model class does for one row.

`python -m bench.rivals.plain FOLDER OUT direct|dar|bare SIZE [--trial]`. Questions are sorted by length, the
longest first; a batch is padded on the left; the processor is given pictures and texts as lmms-eval gives
them. `dar` has each row's picture described first, again in batches. `bare` pre-processes everything before
the clock starts, and goes from one part to the next as this program does: what is left is `generate`.
`--trial` first tries several batch sizes on a part of the rows, untimed, and takes the fastest.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.rivals.side import WARM_UP, Done, Work, begin, png, warm_up_image, write

SIZES = (1, 4, 8, 16, 32, 64)
TRIED = 8  # questions at least, when a size is tried


@dataclass(frozen=True)
class Ask:
    """A question: its key, its text, its encoded picture, and the bound on the answer."""

    key: str
    prompt: str
    image: bytes
    most: int


@dataclass(frozen=True)
class Model:
    """A model and its processor, as `transformers` loads them."""

    model: Any
    processor: Any


def load(folder: str) -> Model:
    """Loads a model, and answers a question."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"
    loaded = Model(model, processor)
    list(answered(loaded, [Ask("", WARM_UP, png(warm_up_image()), 4)], 1))
    return loaded


def asks(work: Work, folder: Path) -> list[Ask]:
    """The rows of all parts."""
    from pyarrow import parquet

    return [
        Ask(f"{name}/{row['id']}", row["prompt"], row["image"]["bytes"], most)
        for name, most in work.parts.items()
        for row in parquet.read_table(folder / f"{name}.parquet").to_pylist()
    ]


def batches(loaded: Model, questions: Sequence[Ask], size: int) -> Iterator[list[Ask]]:
    """Questions with one bound together, the longest first."""
    tokenizer = loaded.processor.tokenizer
    for most in dict.fromkeys(ask.most for ask in questions):
        group = [ask for ask in questions if ask.most == most]
        group.sort(key=lambda ask: (-len(tokenizer.encode(ask.prompt, add_special_tokens=False)), ask.prompt))
        yield from (group[start : start + size] for start in range(0, len(group), size))


def prepared(loaded: Model, batch: Sequence[Ask]) -> dict[str, Any]:
    """Model inputs of a batch."""
    from PIL import Image

    images = [Image.open(io.BytesIO(ask.image)).convert("RGB") for ask in batch]
    return encoded(loaded, [ask.prompt for ask in batch], images)


def encoded(loaded: Model, prompts: Sequence[str], images: Sequence[Any]) -> dict[str, Any]:
    """Model inputs of questions, each with its picture before it."""
    texts = [
        loaded.processor.tokenizer.apply_chat_template(
            [{"role": "user", "content": f"<image>\n{prompt}"}], tokenize=False, add_generation_prompt=True
        )
        for prompt in prompts
    ]
    return dict(loaded.processor(images=list(images), text=texts, padding=True, return_tensors="pt"))


def generated(loaded: Model, inputs: Mapping[str, Any], most: int) -> Any:
    """What `generate` returns, without the prompt."""
    import torch

    end = loaded.processor.tokenizer.eos_token_id
    with torch.inference_mode():
        out = loaded.model.generate(
            **inputs, do_sample=False, num_beams=1, max_new_tokens=most, use_cache=True, pad_token_id=end,
            eos_token_id=end,
        )  # fmt: skip
    return out[:, inputs["input_ids"].shape[-1] :]


def answered(loaded: Model, questions: Sequence[Ask], size: int) -> Iterator[tuple[Ask, str]]:
    """Answers all questions, in batches of a size."""
    for batch in batches(loaded, questions, size):
        out = generated(loaded, prepared(loaded, batch), batch[0].most)
        texts = loaded.processor.tokenizer.batch_decode(out, skip_special_tokens=True)
        yield from zip(batch, (text.strip() for text in texts), strict=True)


def best(loaded: Model, questions: Sequence[Ask]) -> tuple[int, dict[int, float]]:
    """The fastest batch size on evenly chosen questions, and seconds a question at each that was tried."""
    tried: dict[int, float] = {}
    for size in SIZES:
        if size > max(1, len(questions) // 2):
            break
        count = min(len(questions), max(size, TRIED))
        some = [questions[number * len(questions) // count] for number in range(count)]
        start = time.perf_counter()
        list(answered(loaded, some, size))
        tried[size] = (time.perf_counter() - start) / count
    return min(tried, key=tried.__getitem__), tried


def direct(loaded: Model, questions: Sequence[Ask], size: int, work: Work) -> Done:
    """Answers the questions as they are."""
    clock = begin()
    answers = {ask.key: text for ask, text in answered(loaded, questions, size)}
    return clock.done(answers)


def dar(loaded: Model, questions: Sequence[Ask], size: int, work: Work) -> Done:
    """Has every row's picture described, then answers with the description before the question."""
    clock = begin()
    first = [replace(ask, prompt=work.describe, most=work.describe_tokens) for ask in questions]
    told = {ask.key: text for ask, text in answered(loaded, first, size)}
    then = [replace(ask, prompt=f"Image description:\n{told[ask.key]}\n{ask.prompt}") for ask in questions]
    answers = {ask.key: text for ask, text in answered(loaded, then, size)}
    return clock.done({**answers, **{f"{key}/description": text for key, text in told.items()}})


def bare(loaded: Model, questions: Sequence[Ask], size: int, work: Work) -> Done:
    """Nothing but `generate`, on batches that lie ready, part by part."""
    ready = []
    for name in work.parts:
        rows = [ask for ask in questions if ask.key.startswith(f"{name}/")]
        ready += [(batch, prepared(loaded, batch)) for batch in batches(loaded, rows, size)]
    answers: dict[str, str] = {}
    clock = begin()
    made = [(batch, generated(loaded, inputs, batch[0].most)) for batch, inputs in ready]
    done = clock.done({})
    for batch, out in made:
        texts = loaded.processor.tokenizer.batch_decode(out, skip_special_tokens=True)
        answers.update({ask.key: text.strip() for ask, text in zip(batch, texts, strict=True)})
    return replace(done, answers=answers)


def main(folder: Path, mode: str, size: int, trial: bool) -> Done:
    """Loads, tries, and does the work."""
    work = Work.read(folder)
    loaded, questions = load(work.model), asks(work, folder)
    tried: dict[int, float] = {}
    if trial:
        size, tried = best(loaded, questions)
    done = {"direct": direct, "dar": dar, "bare": bare}[mode](loaded, questions, size, work)
    facts = {"batch_size": size, "seconds_a_question_in_trial": {n: round(s, 4) for n, s in tried.items()}}
    return replace(done, facts=facts)


if __name__ == "__main__":
    where, out, mode, size, *rest = sys.argv[1:]
    write(main(Path(where), mode, int(size), "--trial" in rest), Path(out))
