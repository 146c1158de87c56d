"""ChartQA's relaxed accuracy."""

from __future__ import annotations


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed_match(prediction: str, target: str, tolerance: float = 0.05) -> bool:
    """Whether a number is within 5 % of the target, or a text equals it ignoring case.

    ChartQA paper (arXiv 2203.10244), section 5.1, as Qwen-VL's `evaluate_vqa.py` and lmms-eval have
    it. Their quirks are part of the published numbers and kept: `45%` is 0.45 while a bare 45 stays
    45, thousands separators are not read, and a target of zero is compared as text.

    Args:
        prediction: The model's answer.
        target: The annotated answer.
        tolerance: Largest relative difference of numbers.
    """
    given, wanted = _number(prediction), _number(target)
    if given is not None and wanted:
        return abs(given - wanted) / abs(wanted) <= tolerance
    return prediction.lower() == target.lower()
