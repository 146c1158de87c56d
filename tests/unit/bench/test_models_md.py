"""docs/models.md lists every family of the zoo, and what of it works."""

from __future__ import annotations

import re

from bench import models_md
from tests.support.zoo import FAMILIES


def rows() -> dict[str, list[str]]:
    """Family's title -> the row's other cells, as committed."""
    lines = models_md.PAGE.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[1:] for row in cells[2:]}


def test_the_committed_table_lists_every_family() -> None:
    assert list(rows()) == [family.title for family in FAMILIES.values()], "python -m bench.models_md"
    for family in FAMILIES.values():
        cells = rows()[family.title]
        assert cells[0] == f"`{family.architecture}ForConditionalGeneration`"
        assert re.findall("`(.*?)`", cells[1]) == list(family.hub)
        assert len(cells) == 2 + len(models_md.CHECKS)
        assert set(cells[2:]) <= {models_md.YES, models_md.NO}


def test_everything_but_reuse_works_with_every_family() -> None:
    for title, cells in rows().items():
        for check, cell in zip(models_md.CHECKS, cells[2:], strict=True):
            assert cell == models_md.YES or check.endswith("reuse"), f"{title}: {check}"


def test_a_family_whose_reuse_fails_says_why() -> None:
    shown = {name: [models_md.YES] * len(models_md.CHECKS) for name in FAMILIES}
    note = f"- {FAMILIES['mllama'].title}: {FAMILIES['mllama'].unshared}"
    assert note not in " ".join(models_md.page(shown).split())
    shown["mllama"][models_md.PREFIX] = models_md.NO
    assert note in " ".join(models_md.page(shown).split())
