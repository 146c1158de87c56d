"""Preference sets as their authors publish them, put into the shapes that `foreign_pairs` reads.

Each function takes a row of one set and gives it in TRL's conversational or standard form; `Unread` says why
it cannot be used. The schemas are those of the data sets' cards and of the authors' loaders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from stic_eval.documents import from_json
from stic_eval.training.foreign_pair_files import Unread

Row = Mapping[str, Any]

_VICUNA = re.compile(r"\A(?:.*?\s)??USER:\s*(.*?)\s*ASSISTANT:\s*\Z", re.DOTALL)


def as_known(row: Row) -> tuple[str, Row]:
    """Which published set a row is of, and the row in a known shape; an empty name: it is as it was."""
    for name, is_of, read in PUBLISHED:
        if is_of(row):
            return name, {**{key: row[key] for key in ("image", "images") if key in row}, **read(row)}
    return "", row


def _rlhf_v(row: Row) -> Row:
    """`text` is JSON with question, chosen and rejected (openbmb/RLHF-V-Dataset)."""
    try:
        texts = from_json(row["text"])
    except ValueError:
        raise Unread("text is not valid JSON") from None
    if not isinstance(texts, Mapping) or not {"question", "chosen", "rejected"} <= texts.keys():
        raise Unread("text lacks question, chosen or rejected")
    return {"prompt": texts["question"], "chosen": texts["chosen"], "rejected": texts["rejected"]}


def _rlaif_v(row: Row) -> Row:
    """`question` beside the answers (openbmb/RLAIF-V-Dataset)."""
    return {"prompt": row["question"], "chosen": row.get("chosen"), "rejected": row.get("rejected")}


def _mdpo(row: Row) -> Row:
    """`img_path`, and a prompt that the Vicuna template is around already."""
    prompt = row["prompt"]
    if isinstance(prompt, str) and (bare := _VICUNA.match(prompt)) is not None:
        prompt = bare[1]
        if "ASSISTANT:" in prompt:
            raise Unread("prompt holds several turns in one text")
    return {**_answers(row), "prompt": prompt, "image": row["img_path"]}


def _povid(row: Row) -> Row:
    """Two conversations in LLaVA's words, the dispreferred one apart."""
    return {"chosen": row["conversations"], "rejected": row["rejected_conversations"]}


def _swift(row: Row) -> Row:
    """ms-swift: `messages` ends with the preferred answer; beside it `rejected_response` or a whole talk."""
    messages, other = row["messages"], row.get("rejected_images")
    if not isinstance(messages, list) or not messages:
        raise Unread("messages is not a list of turns")
    if other and other != (row.get("images") or row.get("image")):
        raise Unread("rejected_images: the dispreferred answer is about another image; pairs have one image")
    if row.get("rejected_messages") is not None:
        return {"chosen": messages, "rejected": row["rejected_messages"]}
    answer = row["rejected_response"]
    if isinstance(answer, list):
        if len(answer) != 1:
            raise Unread(f"rejected_response has {len(answer)} answers; one is expected")
        answer = answer[0]
    return {"chosen": messages, "rejected": [*messages[:-1], {"role": "assistant", "content": answer}]}


def _swift_images(row: Row) -> Row:
    raise Unread(
        "rejected_images without another answer: one answer about two images is not a pair of answers"
    )


def _llava_rlhf(row: Row) -> Row:
    """Two outputs and which of them people preferred, 1 or 2; the talk's last turn stands for either."""
    talk, preferred = row["conversations"], row.get("preference")
    if isinstance(talk, list) and len(talk) == 1 and isinstance(talk[0], list):
        talk = talk[0]
    if not isinstance(talk, list) or not talk:
        raise Unread("conversations is not a list of turns")
    if preferred not in (1, 2) or isinstance(preferred, bool):
        raise Unread("preference is neither 1 nor 2: nobody preferred one of the outputs")
    outputs = [row["output_1"], row["output_2"]]
    texts = [output.get("value") if isinstance(output, Mapping) else output for output in outputs]
    last = talk[-1] if isinstance(talk[-1], Mapping) else {}
    asked = talk[:-1] if last.get("from") in ("gpt", "llava") else talk
    good, bad = texts if preferred == 1 else texts[::-1]
    return {
        "chosen": [*asked, {"from": "gpt", "value": good}],
        "rejected": [*asked, {"from": "gpt", "value": bad}],
    }


def _vlfeedback(row: Row) -> Row:
    """Several models' answers with ratings: the best and the worst by the mean over aspects, as Silkie rates.

    Of answers with the same mean the first counts. Silkie's own training takes every two that differ.
    """
    answers = _completions(row["completions"])
    rated = [(mean, text) for annotations, text in answers if (mean := _mean_rating(annotations)) is not None]
    if len(rated) < 2:
        raise Unread(f"completions: {len(rated)} of {len(answers)} answers are rated; two are needed")
    best, worst = max(rated, key=lambda item: item[0]), min(rated, key=lambda item: item[0])
    if best[0] == worst[0]:
        raise Unread("completions: all answers are rated the same")
    image = {"image": row["img_path"]} if row.get("img_path") and not row.get("image") else {}
    return {"prompt": row["prompt"], "chosen": best[1], "rejected": worst[1], **image}


def _completions(given: Any) -> list[tuple[Any, Any]]:
    """Annotations and answer of each: a list of objects, or as `datasets` stores that, an object of lists."""
    if isinstance(given, Mapping):
        notes, texts = given.get("annotations"), given.get("response")
        if not isinstance(notes, list) or not isinstance(texts, list) or len(notes) != len(texts):
            raise Unread("completions has a different number of annotations and responses")
        return list(zip(notes, texts, strict=True))
    if not isinstance(given, list) or not all(isinstance(item, Mapping) for item in given):
        raise Unread("completions is not a list of answers")
    return [(item.get("annotations"), item.get("response")) for item in given]


def _mean_rating(annotations: Any) -> float | None:
    if not isinstance(annotations, Mapping) or not annotations:
        return None
    try:
        return fmean(float(aspect["Rating"]) for aspect in annotations.values())
    except (TypeError, ValueError, KeyError, OverflowError):  # "N/A"
        return None


def _answers(row: Row) -> Row:
    return {"chosen": row.get("chosen"), "rejected": row.get("rejected")}


def _is_rlhf_v(row: Row) -> bool:
    text = row.get("text")
    return isinstance(text, str) and "chosen" not in row and text.lstrip()[:1] == "{"


def _has(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(row.get(name) is not None for name in names)


# Most particular first: name, how a row is recognised, how it is read.
PUBLISHED: Sequence[tuple[str, Callable[[Row], bool], Callable[[Row], Row]]] = (
    ("RLHF-V's", _is_rlhf_v, _rlhf_v),
    ("POVID's", _has("conversations", "rejected_conversations"), _povid),
    ("LLaVA-RLHF's", _has("conversations", "output_1", "output_2"), _llava_rlhf),
    ("VLFeedback's", _has("prompt", "completions"), _vlfeedback),
    ("ms-swift's", _has("messages", "rejected_response"), _swift),
    ("ms-swift's", _has("messages", "rejected_messages"), _swift),
    ("ms-swift's", _has("messages", "rejected_images"), _swift_images),
    ("mDPO's", _has("img_path", "prompt", "chosen"), _mdpo),
    ("RLAIF-V's", lambda row: isinstance(row.get("question"), str) and "prompt" not in row, _rlaif_v),
)
