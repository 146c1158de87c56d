"""The released STIC loop's way through stage 1: one image, one prompt at a time.

`python -m bench.rivals.stage1 FOLDER OUT`. For every image the file is opened, encoded and answered for the
preferred prompt, then again for what makes the dispreferred answer: a misleading prompt, or the plain one on
a spoilt image. Its prompts and draws are this program's, so that both sides ask the same; decoding is greedy
on both, for two samplers draw differently.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from bench.rivals import plain
from bench.rivals.side import Done, Work, begin, write
from stic_eval.image_sources import scan_images
from stic_eval.training.hyperparameters import PairSettings
from stic_eval.training.preference_pairs import pair_requests
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import Request


def asked(work: Work, folder: Path) -> Iterator[tuple[str, Request]]:
    """What stage 1 asks about the images in the work's folder `images`, by `<image>/<chosen|rejected>`."""
    images, _ = scan_images(folder / "images")
    settings = PairSettings(temperature=0.0, max_new_tokens=work.describe_tokens)
    for pair in pair_requests(images, load_prompts("pocket"), settings, 0):
        yield f"{pair.image.source}/chosen", pair.chosen
        yield f"{pair.image.source}/rejected", pair.rejected


def main(folder: Path) -> Done:
    """Answers every request by itself, in order."""
    work = Work.read(folder)
    loaded = plain.load(work.model)
    answers: dict[str, str] = {}
    clock = begin()
    for name, request in asked(work, folder):
        inputs = plain.encoded(loaded, [request.messages[0].text], [request.images[0].load()])
        out = plain.generated(loaded, inputs, request.generation.max_new_tokens)
        text = loaded.processor.tokenizer.batch_decode(out, skip_special_tokens=True)[0]
        answers[name] = text.strip()
    return clock.done(answers, facts={"batch_size": 1})


if __name__ == "__main__":
    write(main(Path(sys.argv[1])), Path(sys.argv[2]))
