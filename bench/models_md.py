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

Written by `python -m bench.models_md`. It makes a tiny random checkpoint with every family's real classes,
loads it like any model, and tries each column of the table on a CPU in float32. Change `tests/support/zoo.py`
or the code, not this page.

Any model works if `AutoModelForImageTextToText` and `AutoProcessor` can load it and it has a chat template
and weights in safetensors. Other models of transformers probably work, but have not been tried. The columns
are explained below the table.
"""

MEANING = """\
- *generate*: answers depend on image and question, and are exactly those of transformers' own `generate`
  with one question at a time.
- *any batch*: answers are the same to the token in batches of 1, 7 and 64, in any order, with and without
  reuse.
- *vision reuse*: an image is encoded once for several questions. *prefix reuse*: the prompt up to and
  including the image is computed once, and its questions share keys and values. At a model's first question,
  comparing logits shows which of the two it allows. If it allows neither, transformers' own `generate`
  answers, which is slower but just as correct.
- *LoRA switch*: an adapter is attached, exchanged for another and removed; afterwards the base model answers
  as before.
- *preference step*, *SFT step*: one optimizer step of stage 1 and of stage 2. The adapter is only on the
  decoder, and training sees the same logits as generation.
- A dash means that it does not hold; a note says why.
"""

MACHINE = """\
## Without torchvision

transformers reads videos only with torchvision, and its processors for LLaVA-OneVision, Qwen2-VL and later,
SmolVLM2, InternVL and GLM-4.1V refuse to load without their video part. Here they load without it, because no
benchmark has videos. Some processors read even *images* only with torchvision: Pixtral and Mistral 3, Llama
4, Command A Vision, LFM2-VL, Perception LM, Kimi K2.5 and Molmo 2, among others. For these, install the build
that fits your torch.

With torchvision installed, transformers resizes images with it instead of Pillow. That changes pixels
slightly, and sometimes an answer: compare only runs that both had torchvision or both did not.

## Models that think

Text between `<think>` and `</think>` is not part of an answer. Records keep it under `thinking`; it is not
scored, judged, described or trained on. The same holds for `◁think▷` (Kimi-VL), `[THINK]` (Magistral) and
`<|channel>thought` (Gemma 4). Text that GLM puts between `<answer>` or `<|begin_of_box|>` tags is its answer.
Tags that are special tokens are kept, although other special tokens are dropped; answers that an earlier
version stored without them are generated again. If the chat template writes the opening tag
(Qwen3-VL-Thinking), the closing tag alone is enough. From a server, `reasoning_content` or `reasoning` counts
as the thinking. `stic-eval score` reads answers in the same way.

A text that ends before the thinking does is not an answer: it is unscored and counted under the table, and
the exit code is 3. In self-training it makes no pair and no description. If an opening tag in the middle of
an answer is never closed, it is part of the answer.

- `thinking.max_new_tokens` (default 0) is added to the token limit of every answer. Thinking and answer share
  this limit, both in this process and at a server.
- `thinking.tags`: pairs of tags, e.g. `[["<think>", "</think>"]]`. `[]` treats all text as the answer, for
  tasks that score the tags.
- Texts that end an answer (`-o benchmarks.NAME.stop=...`, `conversation.stop`) are looked for after the
  thinking and the white space behind it, both in this process and in a server's replies. If a server looks
  for them in the thinking, it cuts the answer off; such answers are counted as cut.
- `thinking.answer_tags`: pairs of tags around the answer. If one pair is present, its content is the answer.
- `thinking.opened` (default false): every prompt opens the thinking. For a model in this process this is
  detected. For a server, and for a file of answers, it is inferred: if at least half of the complete answers
  only close a tag, those without any tag (at a server: those that reached their limit) count as cut thinking.
  If fewer do, set it yourself; `score` prints how many there are.
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
