"""Writes docs/models.md from what tiny checkpoints of every family really do: `python -m bench.models_md`.

The checkpoints and the checks are those of `tests/families`. Takes some minutes.
"""

from __future__ import annotations

import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from tests.conftest import draw_photos
from tests.support.zoo import FAMILIES

PAGE = Path(__file__).parent.parent / "docs" / "models.md"

CHECKS = (
    "generate",
    "any batch",
    "vision reuse",
    "prefix reuse",
    "LoRA switch",
    "preference step",
    "SFT step",
)
VISION, PREFIX = CHECKS.index("vision reuse"), CHECKS.index("prefix reuse")
YES, NO, UNKNOWN = "yes", "–", "not measured"

HEAD = """\
# Models

Written by `python -m bench.models_md`, which makes a tiny random checkpoint of every family's real classes,
opens it as any model is opened, and does on a CPU in float32 what the table's columns say. Change
`tests/support/zoo.py` or the code, not this page.

Any model works that `AutoModelForImageTextToText` and `AutoProcessor` load, that has a chat template and
weights in safetensors. What transformers offers beyond this table is likely to work, and has not been tried.
The columns are explained below it.
"""

MEANING = """\
- *generate*: answers go by image and by question, and are to the letter those of transformers' own
  `generate`, asked one at a time.
- *any batch*: answers are the same to the token in batches of 1, 7 and 64, in any order, with and without
  reuse.
- *vision reuse*: an image that several questions are about is encoded once. *prefix reuse*: so is the prompt
  up to and with the image, whose keys and values its questions share. Which of both a model allows is found
  out when it is first asked, by comparing logits; one that allows neither is answered by transformers' own
  `generate`: slower, and no less right.
- *LoRA switch*: an adapter is attached, changed for another and taken off; the base then says what it said.
- *preference step*, *SFT step*: one optimiser step of stage 1 and of stage 2. The adapter lies on the decoder
  alone, and what training sees is, logit by logit, what generation sees.
- A dash: it does not hold, and a note says why.
"""

MACHINE = """\
## Without torchvision

transformers reads videos with torchvision alone, and its processors of LLaVA-OneVision, Qwen2-VL and later,
SmolVLM2, InternVL and GLM-4.1V refuse to load without their video part. Here they load without it: no
benchmark has videos. Where transformers reads *images* with torchvision alone, it has to be installed, in the
build that fits the installed torch: so it is with Pixtral and Mistral 3, Llama 4, Command A Vision, LFM2-VL,
Perception LM, Kimi K2.5 and Molmo 2, among others.

Where torchvision is installed, transformers resizes images with it rather than with Pillow. That moves
pixels a little, and now and then an answer: compare runs that were made with one of the two.

## Models that think

What stands between `<think>` and `</think>` is no part of an answer: records keep it under `thinking`, and
nothing is scored, judged, described or trained by it. The same is true of `◁think▷` (Kimi-VL), `[THINK]`
(Magistral) and `<|channel>thought` (Gemma 4). What GLM puts between `<answer>` or `<|begin_of_box|>` tags is
its answer. Tags that are special tokens are kept where others are dropped. Where the chat template has
written the opening tag (Qwen3-VL-Thinking), only the closing one comes, and that will do; a server's
`reasoning_content`, or `reasoning`, is taken as it is. `stic-eval score` reads answers in the same way.

A text that ends before the thinking does is no answer: it is unscored, counted under the table, and the
command ends with exit code 3. In self-training it makes no pair and no description.

- `thinking.max_new_tokens` (default 0) is added to the bound of every answer. There is one bound for both, in
  this process as at a server: what is not thought is left for the answer.
- `thinking.tags`: pairs of tags, e.g. `[["<think>", "</think>"]]`; `[]` takes all text for the answer, as
  tasks want it that score the tags.
- `thinking.answer_tags`: pairs around the answer. Where one pair stands there, what is in it is the answer.
- `thinking.opened` (default false): every prompt opens the thinking. A model in this process shows that
  itself. Of a server, and in a file of answers, it is concluded: where some answers only close a tag, those
  without any (at a server: those that ran into their bound) are cut thinking. Where none closes one, say it.
"""


def page(measured: Mapping[str, Sequence[str]]) -> str:
    """The whole page.

    Args:
        measured: Family -> a cell for each of `CHECKS`.
    """
    head = ("family", "transformers class", "for example", *CHECKS)
    rows = [
        (
            family.title,
            f"`{family.architecture}ForConditionalGeneration`",
            ", ".join(f"`{hub}`" for hub in family.hub),
            *measured[name],
        )
        for name, family in FAMILIES.items()
    ]
    lines = [head, ["---"] * len(head), *rows]
    table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    versions = f"transformers {version('transformers')}, torch {version('torch').partition('+')[0]}"
    notes = []
    for name, family in FAMILIES.items():
        unshared = NO in measured[name][VISION : PREFIX + 1]
        said = [family.notes, family.unshared or "Why it shares nothing is not known." if unshared else ""]
        if any(said):
            note = f"- {family.title}: {' '.join(filter(None, said))}"
            notes.append(textwrap.fill(note, 105, subsequent_indent="  ") + "\n")
    return "\n".join(
        [HEAD, table, f"Measured with {versions}.\n", MEANING, "## Notes\n", "".join(notes), MACHINE]
    )


def measure(name: str, scratch: Path) -> tuple[str, ...]:
    """Opens a family's checkpoint and does all of `CHECKS`; what fails is told on stderr.

    Args:
        name: In the zoo.
        scratch: An empty folder.
    """
    from stic_eval.image_sources import scan_images
    from tests.families import checks

    family = FAMILIES[name]
    if family.needs and find_spec(family.needs) is None:
        print(f"{name}: needs the package {family.needs}", file=sys.stderr)
        return (UNKNOWN,) * len(CHECKS)
    pictures = scan_images(draw_photos(scratch / "photos"))[0]
    pairs = checks.write_three(pictures, scratch / "pairs.parquet")
    member = checks.open_member(name, scratch / "model")
    requests = checks.questions(pictures)

    def generates() -> None:
        checks.generates(member, requests)
        checks.generates_from_several(member, pictures)
        if family.text_only:
            checks.generates_without_images(member, requests)

    def any_batch() -> None:
        for reuse in (True, False, "always"):
            checks.independent_of_batch(member, requests, reuse=reuse)

    def learns() -> None:
        checks.trains_on_what_it_generates_from(member, pictures)
        checks.learns_preferences(member, pairs, requests, scratch / "stage1")

    ways = member.hf.ways
    return (
        _holds(name, generates),
        _holds(name, any_batch),
        YES if "loop" in ways else NO,
        YES if "prefix" in ways else NO,
        _holds(name, lambda: checks.switches_adapters(member, requests, scratch)),
        _holds(name, learns),
        _holds(name, lambda: checks.is_fine_tuned(member, pictures, requests, scratch / "stage2")),
    )


def _holds(name: str, check: Callable[[], None]) -> str:
    try:
        check()
    except Exception:
        print(f"{name}:", file=sys.stderr)
        traceback.print_exc()
        return NO
    return YES


def main() -> None:
    """Measures and writes the page. What cannot be measured here stands on it as such."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    measured = {}
    for name in FAMILIES:
        with tempfile.TemporaryDirectory() as scratch:
            measured[name] = measure(name, Path(scratch))
        print(f"{name}: {', '.join(measured[name])}", file=sys.stderr)
    PAGE.write_text(page(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
