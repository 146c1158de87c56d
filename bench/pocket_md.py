"""Writes the measured parts of docs/pocket.md: `python -m bench.pocket_md`; `--check` changes nothing.

They come from results/pocket: descriptions.json, scores.json, and the wordings of its questions; gates from
the figures beside the weights.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence

from bench import caveats, gates, wordings
from bench.committed import POCKET, ROOT
from bench.rewriting import rewrite
from stic_eval.pocket.rows import MODEL_DIR
from stic_eval.report import runs
from stic_eval.report.cell_text import interval_text, points
from stic_eval.report.table_layouts import lay_out

PAGE = ROOT / "docs" / "pocket.md"
_DESCRIBED = (
    "step-by-step prompt",
    "plain prompts",
    "misleading prompts",
    "plain prompts, low resolution",
    "plain prompts, colour jitter",
)
_MODELS = {
    "base": "base: precision, recall",
    "stic_stage1": "after stage 1",
    "stic": "after stage 2",
    "positive_only": "positive only, after both",
}


def page(before: str) -> str:
    """The page with its tables as they are now."""
    blocks = {"descriptions": described, "averages": averages, "wordings": split, "gates": held}
    for name, lines in blocks.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        assert block.search(before), name
        parts = block.split(before)
        before = f"{parts[0]}{parts[1]}" + "\n".join(lines()) + f"\n{parts[2]}{parts[3]}"
    return before


def described() -> list[str]:
    """Precision and recall of descriptions, by prompt and training."""
    found = json.loads((POCKET / "descriptions.json").read_text(encoding="utf-8"))
    lines = ["| descriptions under | " + " | ".join(_MODELS.values()) + " |", "|---|---:|---:|---:|"]
    for name in _DESCRIBED:
        cells = [
            f"{found[model][name]['precision']:.1f}, {found[model][name]['recall']:.1f}" for model in _MODELS
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def averages() -> list[str]:
    """The average of every row, and its difference to the baseline."""
    lines = ["| | average | to baseline, 95 % interval |", "|---|---:|---:|"]
    for row in lay_out([runs.load(POCKET)]).rows:
        cell = row.average
        assert cell is not None and cell.score is not None, row.label
        gain = ""
        if (found := cell.difference) is not None:
            gain = f"{points(found.delta, '+')}{found.mark} {interval_text(cell)}".replace("*", r"\*")
        lines.append(f"| {row.label} | {points(cell.score)} | {gain} |")
    return lines


def split() -> list[str]:
    """Gains in wordings that instruction items share and in the others, and columns that say little."""
    about = wordings.asked(POCKET)
    return [
        wordings.counted(about),
        f"Columns that cannot tell rows apart: {caveats.guarded(runs.load(POCKET))}",
        "",
        *wordings.split_table(list(wordings.gains(POCKET))),
    ]


def held() -> list[str]:
    """What the shipped weights hold of their gates and aims."""
    if not (MODEL_DIR / gates.RECORD).is_file():
        return ["Not measured yet."]
    return gates.page(*gates.figures(MODEL_DIR)).rstrip("\n").splitlines()


def main(argv: Sequence[str]) -> int:
    """Writes the page, or says whether it is up to date."""
    return rewrite(PAGE, page, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
