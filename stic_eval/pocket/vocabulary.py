"""The pocket model's vocabulary: whole words, and letters for whatever is not one of them.

A place is one token even where it has two words, "top left": what is said of it is then one look-up.

White space is not kept: a word is one token wherever it stands, so that an option's letter is the same
token in the question and in the answer, and copying is one look-up. A word that is not in the vocabulary
(every word on a sign) is a mark and its letters; what is no printable ASCII is bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD, IMAGE = "<s>", "</s>", "<pad>", "<image>"
MARK = "\u2581"  # before a word or a sign of punctuation
_PIECE = r"(?:top|bottom) (?:left|right)\b|\d+(?:\.\d+)?|[^\W\d_]+|\n|[^\w\s]|_"
_CLOSING = ".,?:;!)%"


def words_of(texts: Iterable[str], least: int = 1) -> list[str]:
    """The words, numbers and signs that occur at least so often, sorted."""
    counts: dict[str, int] = {}
    for text in texts:
        for piece in re.findall(_PIECE, text):
            counts[piece] = counts.get(piece, 0) + 1
    return sorted(piece for piece, n in counts.items() if n >= least)


def tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of these words.

    Args:
        words: Words, numbers and signs of punctuation that get a token of their own.
    """
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    pieces = [PAD, BOS, EOS, IMAGE, MARK]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += [chr(code) for code in range(33, 127)]
    pieces += [MARK + word.replace(" ", MARK) for word in words]
    model = BPE(
        {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}, [],
        ignore_merges=True, byte_fallback=True,
    )  # fmt: skip
    plain = Tokenizer(model)
    plain.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECE), "removed", invert=True),
            pre_tokenizers.Metaspace(MARK, prepend_scheme="always", split=False),
        ]
    )
    tidy = [decoders.Replace(f" {sign}", sign) for sign in _CLOSING]
    tidy += [decoders.Replace(a, b) for a, b in (("( ", "("), (" \n ", "\n"), (" \n", "\n"), ("\n ", "\n"))]
    plain.decoder = decoders.Sequence(
        [
            decoders.ByteFallback(), decoders.Fuse(), decoders.Replace(MARK, " "), *tidy,
            decoders.Strip(" ", 1, 0),
        ]
    )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token=BOS, eos_token=EOS, pad_token=PAD, padding_side="left",
        extra_special_tokens={"image_token": IMAGE}, model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
