"""Writes the tables of docs/methods.md: `python -m bench.methods_md`; `--check` changes nothing.

What methods are comes from the files in `methods/`, what they come to from `results/pocket/methods`.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap

from bench import search
from bench.committed import METHODS, ROOT
from bench.rewriting import rewrite
from stic_eval import registry
from stic_eval.contracts.method import Data, Method
from stic_eval.report import runs
from stic_eval.report.cell_text import interval_text, points
from stic_eval.report.table_layouts import lay_out
from stic_eval.report.training_costs import costs
from stic_eval.store import content_key
from stic_eval.training.prompt_sets import load_prompts

PAGE = ROOT / "docs" / "methods.md"
ORDER = ("stic", "seva", "sima", "csr", "rlaif_v_lite", "positive_only", "sft", "baseline")
__all__ = ["PAGE", "main", "page"]


def page(before: str) -> str:
    """The page with its tables as they are now."""
    blocks = {
        "methods": compared(), "departures": departures(), "spaces": spaces(), "results": measured(),
        "selfjudge": judged(), "counting": counting(), "search": searched(),
    }  # fmt: skip
    for name, text in blocks.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        assert block.search(before), name
        parts = block.split(before)
        before = f"{parts[0]}{parts[1]}{text}\n{parts[2]}{parts[3]}"
    return before


def compared() -> str:
    """What each method prefers, and what it needs for that."""
    heads = ("method", "preferred", "dispreferred", "training", "reads", "answers", "paper")
    return _table(heads, [_row(registry.methods().get(name)) for name in ORDER])


def _row(method: Method) -> list[str]:
    nothing = Data((), (), content_key([]), content_key([]), load_prompts())
    solver = method.plan(method.config(), nothing).solver
    notes = [method.notes.get(name, "–") for name in ("preferred", "dispreferred", "training", "reads")]
    answers = {"direct": "directly", "describe_and_respond": "describes first"}[solver]
    return [f"`{method.name}`", *notes, answers, method.paper or "–"]


def departures() -> str:
    """In what each method differs from its paper, and where that was read."""
    methods = [registry.methods().get(name) for name in ORDER]
    lines = [
        f"**{method.title}** ({method.notes['source']}): {method.notes['differs']}."
        for method in methods
        if "differs" in method.notes
    ]
    return "\n\n".join(textwrap.fill(line, 110, break_on_hyphens=False) for line in lines)


def spaces() -> str:
    """What `bench.search` tries for each method, with the embedded model's preset."""
    rows = []
    for name, space in search.SPACES.items():
        own = search.preset(name)
        for number, (path, values) in enumerate(space.items()):
            texts = [f"**{value:g}**" if value == own[path] else f"{value:g}" for value in values]
            rows.append([f"`{name}`" if not number else "", f"`{path}`", ", ".join(texts)])
    return _table(("method", "path", "values, the preset's in bold"), rows)


def searched() -> str:
    """What the committed search has tried, and what it chose."""
    if not search.OUT.is_file():
        return (
            "It has not been run for this model: rates and batches of the preset are STIC's for all methods."
        )
    found = json.loads(search.OUT.read_text(encoding="utf-8"))
    trials = search.compared([search.Trial(**trial) for trial in found["trials"]], tuple(search.SPACES))
    said = (
        f"It has compared {found['compared']} configurations of each method, in {found['core_hours']:.1f} "
        f"hours of one core. Averages on {found['limit']} validation rows of each benchmark:"
    )
    return "\n".join([said, "", *search.table(trials)])


def counting() -> str:
    """What SeVa's pairs teach about numbers."""
    found = json.loads((METHODS / "counting.json").read_text(encoding="utf-8"))
    columns = {
        "noise step": "step", "pairs": "pairs", "that count": "counting", "dispreferred larger": "larger",
        "dispreferred 3 or 4": "three_or_four", "rows": "rows", "right before": "before",
        "right after": "after", "too low before": "low_before", "too low after": "low_after",
    }  # fmt: skip
    return _table(tuple(columns), [[str(row[name]) for name in columns.values()] for row in found])


def measured() -> str:
    """Averages with intervals, and costs, of the committed run."""
    scores = runs.load(METHODS)
    table = lay_out([scores])
    spent = {cost.title: cost for cost in costs([scores])}
    rows = []
    for row in table.rows:
        cell, cost = row.average, spent.get(row.variant.title)
        score = "–" if cell is None or cell.score is None else points(cell.score)
        gain = "–"
        if cell is not None and (found := cell.difference) is not None:
            gain = f"{points(found.delta, '+')} {interval_text(cell)}{found.mark}"
        numbers = (cost.generations, cost.scored, cost.steps, cost.seconds) if cost else ()
        rows.append([row.variant.label, score, gain, *([f"{n:,.0f}" for n in numbers] or ["–"] * 4)])
    heads = ("", "average", "over the baseline", "generations", "scored", "steps", "seconds")
    return _table(heads, rows)


def judged() -> str:
    """How well the embedded model does what methods ask of it."""
    found = json.loads((METHODS / "selfjudge.json").read_text(encoding="utf-8"))
    what = f"{found['sentences']} sentences, {found['right']} of them right"
    read = f"{found['sima_read']} of {found['sima_asked']} verdicts read"
    rows = [
        ["CSR", "by its image-text fit, a right sentence above a wrong one", f"{found['csr']:.2f}", what],
        [
            "RLAIF-V lite",
            "by p(yes) and p(no), a right sentence above a wrong one",
            f"{found['rlaif_v_lite']:.2f}",
            what,
        ],
        ["SIMA", "shown the true description, prefers it to a wrong sentence", f"{found['sima']:.2f}", read],
    ]
    return _table(("method", "the model", "share", "of"), rows)


def _table(heads: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main(argv: list[str]) -> int:
    """Writes the page, or says whether it is up to date."""
    return rewrite(PAGE, page, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
