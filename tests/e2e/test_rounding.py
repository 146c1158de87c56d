"""Weights in 16 bits: the report says how many answers depend on what they were computed beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stic_eval.models.hf_model import HFModel

if TYPE_CHECKING:
    from conftest import Lab


def note(folder: Path) -> list[str]:
    table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    return [line for line in table["notes"] if line.startswith("Rounding")]


def test_answers_in_16_bits_are_asked_again_one_at_a_time(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = lab.at(tmp_path)
    argv = here.argv("eval", "--benchmarks", "textvqa,chartqa", "--dtype", "bfloat16", "-q")
    real, asked = HFModel.one_by_one, []

    def one_by_one(self: HFModel, requests):  # type: ignore[no-untyped-def]
        requests = list(requests)
        asked.extend(requests)
        for number, (request, response) in enumerate(real(self, requests)):
            # What rounding does cannot be had at will.
            yield request, type(response)("otherwise", 1, "stop") if number == 0 else response

    monkeypatch.setattr(HFModel, "one_by_one", one_by_one)
    assert here.invoke(*argv).code == 0
    (line,) = note(here.runs()[0])
    assert len(asked) == 12
    found = int(line.split(" of 12 answers")[0].rpartition(" ")[2])
    assert line.startswith("Rounding: in bfloat16, ") and 2 <= found <= 12
    monkeypatch.undo()
    assert here.invoke(*argv).code == 0  # a second start asks nothing, and says the same
    assert note(here.runs()[0]) == [line]


def test_in_float32_nothing_is_asked_again(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_by_one(self: HFModel, requests: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(HFModel, "one_by_one", one_by_one)
    here = lab.at(tmp_path)
    assert here.invoke(*here.argv("eval", "--benchmarks", "chartqa", "-q")).code == 0
    assert note(here.runs()[0]) == []
