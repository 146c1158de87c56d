"""Preference pairs that were made elsewhere: told apart by content, checked row by row.

Known are the STIC authors' preference data (JSON or JSONL), LLaMA-Factory's (ShareGPT and Alpaca), TRL's
(conversational, standard, implicit prompt; JSON, JSONL, parquet, a saved data set), our own, and those
of `published_pairs`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.errors import UserError, headline, shorten
from stic_eval.images import MAX_ASPECT, Decoding, ImageError, bytes_ref, image_ref
from stic_eval.training.foreign_pair_files import Unread, listed_file, raw_rows
from stic_eval.training.pair_formats import COLUMNS
from stic_eval.training.preference_pairs import AnsweredPair
from stic_eval.training.published_pairs import as_known
from stic_eval.types import ImageRef

if TYPE_CHECKING:
    from PIL.Image import Image

_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system",
}  # fmt: skip
_Turns = tuple[tuple[str, str], ...]
_IMAGE = "<image>"

OURS = "this program's own"
STIC = "the STIC authors' preference data"
SHAREGPT = "LLaMA-Factory's, ShareGPT"
ALPACA = "LLaMA-Factory's, Alpaca"
CONVERSATIONS = "TRL's, conversational"
STANDARD = "TRL's, standard"


@dataclass(frozen=True)
class PairProblem:
    """A row that is left out: its number, from 1 on, and why."""

    row: int
    reason: str


@dataclass
class OpenedPairs:
    """A file of pairs that is read as its pairs are asked for.

    Attributes:
        pairs: The usable ones, once.
        formats: Format -> how many rows were of it, so far.
        problems: What was left out, so far.
    """

    pairs: Iterable[AnsweredPair] = ()
    formats: dict[str, int] = field(default_factory=dict)
    problems: list[PairProblem] = field(default_factory=list)
    images: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Texts:
    """What a format's row comes to, but for its image."""

    format: str
    prompt: str
    chosen: str
    rejected: str
    negative: str = "unknown"
    history: _Turns = ()


def open_pairs(path: Path, root: Path | None = None) -> OpenedPairs:
    """Opens a file or folder of preference pairs.

    Args:
        path: JSON, JSONL or parquet; a data set that `save_to_disk` wrote; a folder of parquet files; or
            a folder with LLaMA-Factory's `dataset_info.json`.
        root: Folder that relative paths of images start at, and that images must lie in; None: that of
            the file.

    Raises:
        UserError: It is missing or of no known kind.
    """
    if not os.path.exists(path):
        raise UserError(f"{path}: no such file or folder")
    if root is not None and not root.is_dir():
        raise UserError(f"--image-root {root}: no such folder")
    if path.is_dir() and (path / "dataset_info.json").is_file() and not (path / "state.json").is_file():
        path = listed_file(path)
    opened = OpenedPairs()
    opened.pairs = _convert(raw_rows(path), root or (path if path.is_dir() else path.parent), opened)
    return opened


def _convert(raw: Iterable[Any], root: Path, opened: OpenedPairs) -> Iterator[AnsweredPair]:
    decoding = Decoding(_shape_fault)
    named: dict[str, str] = {}  # hash that a row gives its image -> the hash of its bytes
    for number, row in enumerate(raw, 1):
        try:
            if isinstance(row, Unread):
                raise row
            name, known = as_known(row) if isinstance(row, Mapping) else ("", row)
            texts = _texts(known)
            texts = replace(texts, format=name or texts.format)
            image = _image(known, root, f"row {number}")
            if reason := decoding.fault(image):
                raise ImageError(image.source, reason)
        except (Unread, ImageError) as error:
            opened.problems.append(PairProblem(number, shorten(str(error), 500)))
            continue
        except Exception as error:  # a row may hold anything, and one never stops the others
            opened.problems.append(PairProblem(number, f"does not fit: {headline(error)}"))
            continue
        opened.formats[texts.format] = opened.formats.get(texts.format, 0) + 1
        opened.images.add(image.sha256)
        sha256 = row.get("image_sha256")
        # A name by which pictures are drawn again: of two images with one name, the first has it.
        own = isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256) is not None
        if own and named.setdefault(sha256, image.sha256) == image.sha256 != sha256:
            image = _with_hash(image, sha256)
        source, seed = row.get("source"), row.get("seed")
        if isinstance(source, str) and _is_text(source):
            image = replace(image, source=source)
        whole = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63
        yield AnsweredPair(
            image, texts.prompt, texts.chosen, texts.rejected, texts.negative, seed if whole else 0,
            texts.history,
        )  # fmt: skip


# ---------------------------------------------------------------- what a row says


def _texts(row: Any) -> _Texts:
    """The texts of a row, whatever format it has."""
    if not isinstance(row, Mapping):
        raise Unread(f"is a {type(row).__name__}, not an object")
    asked = row.get("conversations") is not None or row.get("messages") is not None
    if asked and row.get("chosen") is None and row.get("rejected") is None:
        raise Unread("is instruction data, not a pair: give the file with --sft-data")
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            raise Unread(f"has no {name}")
    found = next((read(row) for known, read in _FORMATS if known(row)), None)
    if found is None:
        raise Unread("has neither prompt, conversations, instruction, nor turns in chosen")
    texts = {"prompt": found.prompt, "chosen": found.chosen, "rejected": found.rejected}
    earlier = [(f"turn {number}", text) for number, (_, text) in enumerate(found.history, 1)]
    for name, text in [*texts.items(), *earlier]:
        if not _is_text(text):
            raise Unread(f"{name} holds half of a surrogate pair, which is not text")
    negative = row.get("negative")
    return replace(found, negative=negative) if isinstance(negative, str) and _is_text(negative) else found


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stic(row: Mapping[str, Any]) -> _Texts:
    """`chosen` and `rejected` are whole conversations; beside them how the second one was spoilt."""
    asked, good, bad = _implicit(row)
    negative = "misleading" if row.get("hallu_prompt") else "unknown"
    if row.get("image_corruption") is True:
        negative = "corrupted"  # by what, the data does not say
    return _asked(_Texts(STIC, "", good, bad, negative), asked)


def _sharegpt(row: Mapping[str, Any]) -> _Texts:
    turns = _turns(row.get("conversations") or row.get("messages"), "conversations")
    asked = _question(turns, "conversations")
    return _asked(_Texts(SHAREGPT, "", _answer(row, "chosen"), _answer(row, "rejected")), asked)


def _alpaca(row: Mapping[str, Any]) -> _Texts:
    history: list[tuple[str, str]] = []
    for earlier in row.get("history") or ():
        if not (isinstance(earlier, list) and len(earlier) == 2 and all(isinstance(t, str) for t in earlier)):
            raise Unread("history: not a list of questions with their answers")
        history += [("user", earlier[0]), ("assistant", earlier[1])]
    if row.get("system"):
        raise Unread("system: a system prompt, which pairs have no place for")
    parts = [row.get("instruction"), row.get("input") or ""]
    if not all(isinstance(part, str) for part in parts):
        raise Unread("instruction or input is not text")
    prompt = "\n".join(str(part) for part in parts if part)
    answers = _Texts(ALPACA, "", _answer(row, "chosen"), _answer(row, "rejected"))
    return _asked(answers, [*history, ("user", prompt)])


def _conversational(row: Mapping[str, Any]) -> _Texts:
    own = set(COLUMNS) <= set(row)
    if row.get("prompt") is None:
        asked, good, bad = _implicit(row)
    else:
        asked = _question(_turns(row["prompt"], "prompt"), "prompt")
        good, bad = _answer(row, "chosen"), _answer(row, "rejected")
    # The image's place is the chat template's matter; data of others may mark it in the text all the same.
    texts = _Texts(OURS if own else CONVERSATIONS, asked[-1][1], good, bad, history=tuple(asked[:-1]))
    return texts if "image_sha256" in row else _asked(texts, asked)


def _standard(row: Mapping[str, Any]) -> _Texts:
    if not isinstance(row.get("prompt"), str):
        raise Unread("has no prompt (and answers as plain texts, which do not say where it ends)")
    answers = _Texts(STANDARD, "", _answer(row, "chosen"), _answer(row, "rejected"))
    return _asked(answers, [("user", row["prompt"])])


_Known = Callable[[Mapping[str, Any]], bool]
_FORMATS: Sequence[tuple[_Known, Callable[[Mapping[str, Any]], _Texts]]] = (
    (lambda row: "hallu_prompt" in row or "image_corruption" in row, _stic),
    (lambda row: row.get("conversations") is not None or row.get("messages") is not None, _sharegpt),
    (lambda row: row.get("instruction") is not None, _alpaca),
    (lambda row: isinstance(row["chosen"], list), _conversational),
    (lambda row: isinstance(row["chosen"], str), _standard),
)


def _asked(texts: _Texts, turns: Sequence[tuple[str, str]]) -> _Texts:
    """Answers with what was asked, without the mark of the image's place, which the first turn may have."""
    marks = [text.count(_IMAGE) for _, text in turns]
    if sum(marks) > 1:
        raise Unread(f"has {sum(marks)} places for images; one is expected")
    if sum(marks[1:]):
        raise Unread("shows its image in a later turn; pairs show it with the first question")
    bare = [(role, _without_place(text)) for role, text in turns]
    return replace(texts, prompt=bare[-1][1], history=tuple(bare[:-1]))


def _implicit(row: Mapping[str, Any]) -> tuple[list[tuple[str, str]], str, str]:
    """What was asked and the answers of two conversations that differ in their last turn alone."""
    good, bad = (_turns(row[name], name) for name in ("chosen", "rejected"))
    for name, turns in (("chosen", good), ("rejected", bad)):
        if not turns or [role for role, _ in turns] != ["user", "assistant"] * (len(turns) // 2):
            raise Unread(f"{name}: {_shape(turns)}; questions and their answers in turn are expected")
    if good[:-1] != bad[:-1]:
        raise Unread("chosen and rejected answer different questions")
    return good[:-1], good[-1][1], bad[-1][1]


def _question(turns: list[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    """Turns that end with a question."""
    if [role for role, _ in turns] != [*["user", "assistant"] * (len(turns) // 2), "user"]:
        raise Unread(f"{name}: {_shape(turns)}; turns that end with a question are expected")
    return turns


def _answer(row: Mapping[str, Any], name: str) -> str:
    """An answer as a text, a turn, or a list of one."""
    given = row[name]
    if isinstance(given, str):
        return given
    turns = _turns(given if isinstance(given, list) else [given], name)
    if [role for role, _ in turns] != ["assistant"]:
        raise Unread(f"{name}: {_shape(turns)}; one answer is expected")
    return turns[0][1]


def _shape(turns: Sequence[tuple[str, str]]) -> str:
    return shorten(f"has the turns {', '.join(role for role, _ in turns) or 'none'}")


def _turns(given: Any, name: str) -> list[tuple[str, str]]:
    if not isinstance(given, list) or not all(isinstance(turn, Mapping) for turn in given):
        raise Unread(f"{name} is not a list of turns")
    found = []
    for turn in given:
        role, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        if isinstance(text, list):
            parts = [part for part in text if isinstance(part, Mapping)]
            text = "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))
        if not isinstance(role, str) or role not in _ROLES or not isinstance(text, str):
            raise Unread(f"{name}: a turn has no text, or its role is neither user nor assistant")
        found.append((_ROLES[role], text))
    return found


def _without_place(prompt: str) -> str:
    """A prompt without the mark of the image's place, and the line break behind it."""
    before, mark, after = prompt.partition(_IMAGE)
    return before + after.removeprefix("\n") if mark else prompt


# ---------------------------------------------------------------- its image


def _image(row: Mapping[str, Any], root: Path, name: str) -> ImageRef:
    given = row.get("images") if row.get("images") is not None else row.get("image")
    several = given if isinstance(given, list) else [given]
    if given is None or len(several) != 1:
        raise Unread(f"has {0 if given is None else len(several)} images; one is expected")
    image = several[0]
    if isinstance(image, Mapping):
        data, path = image.get("bytes"), image.get("path")
        if isinstance(data, bytes):
            source = str(path) if isinstance(path, str) and _is_text(path) else name
            return bytes_ref(lambda: data, source, data)
        image = path
    if not isinstance(image, str):
        raise Unread("its image is neither a path nor an encoded image")
    if re.match(r"https?://|data:", image):
        raise Unread("its image is given by an address, not a path; fetch it first")
    return image_ref(image, root, "--image-root")


def _with_hash(image: ImageRef, sha256: str) -> ImageRef:
    """An image under another hash than its file's."""

    def load() -> Image:
        return image.load()

    # Not `image.load` itself, by which the file would be found to have changed.
    return replace(image, sha256=sha256, load=load)


def _shape_fault(picture: Image) -> str:
    """What is wrong with the sides of a decoded image; empty: nothing."""
    if max(picture.size) <= MAX_ASPECT * min(picture.size):
        return ""
    return f"{picture.width} x {picture.height}: sides differ by more than {MAX_ASPECT} times"
