"""Types of columns that several benchmarks' rows have: text cells, ids, texts that may not be empty."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from stic_eval.evals.scoring.choice import cell_text


def _require_text(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


# A text; empty for what tables make of a missing cell.
Text = Annotated[str, BeforeValidator(cell_text)]
# A text that tables may have made a number of: an id, an annotated answer.
Number = Annotated[str, Field(coerce_numbers_to_str=True), BeforeValidator(cell_text)]
FilledText = Annotated[str, BeforeValidator(cell_text), AfterValidator(_require_text)]
FilledNumber = Annotated[
    str, Field(coerce_numbers_to_str=True), BeforeValidator(cell_text), AfterValidator(_require_text)
]
