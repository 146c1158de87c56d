"""Answers in the JSON objects that evaluation scripts leave: LLaVA's ScienceQA summary, OpenCompass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def is_llava_summary(data: Any) -> bool:
    """Whether JSON is what LLaVA's `eval_science_qa.py` writes: the options that it read, and the answers."""
    return isinstance(data, Mapping) and {"results", "outputs"} <= data.keys() and "acc" in data


def llava_summary_rows(data: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The answers under `outputs`; the options that LLaVA's script read from them are not taken over."""
    outputs = data["outputs"]
    for name, text in outputs.items() if isinstance(outputs, Mapping) else ():
        yield f"outputs, {name}", {"id": name, "response": text}


def is_opencompass(data: Any) -> bool:
    """Whether JSON is OpenCompass's file of predictions: row number -> prompt and prediction."""
    if not isinstance(data, Mapping) or not data:
        return False
    return all(
        str(key).isdecimal()
        and isinstance(value, Mapping)
        and {"prediction", "origin_prompt"} <= value.keys()
        for key, value in data.items()
    )


def opencompass_rows(data: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The answers as lmms-eval logs them: by the number of the row, with what was asked."""
    for key, value in data.items():
        answer = value["prediction"]
        answer = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
        yield (
            f"entry {key}",
            {"doc_id": int(key), "filtered_resps": answer, "input": _prompt(value["origin_prompt"])},
        )


def _prompt(given: Any) -> str | None:
    """What was asked, of which OpenCompass has a text or turns."""
    if isinstance(given, str):
        return given
    turns = (
        [turn.get("prompt") for turn in given if isinstance(turn, Mapping)] if isinstance(given, list) else []
    )
    return "\n".join(text for text in turns if isinstance(text, str)) or None
