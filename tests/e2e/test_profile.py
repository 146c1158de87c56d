"""How a LLaVA in its published shape is asked, from the command line to the table, and what is told of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import published
from tests.support.judge_server import says, serving

if TYPE_CHECKING:
    from conftest import Lab

LLAVA = (
    'profile llava-1.5 (chat template vicuna_v1; system prompt "A chat between a curious user and an '
    'artificial intelligence ..."; do_pad=true)'
)


@pytest.fixture(scope="module")
def llava(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The data of other runs, and a LLaVA-1.5 whose weights alone are small."""
    folder = published.checkpoint(tmp_path_factory.mktemp("llava") / "model", "llava", published.VICUNA)
    return replace(lab.at(tmp_path_factory.mktemp("profile")), model=folder)


def evaluated(lab: Lab, name: str, *extra: str) -> Path:
    argv = lab.argv("eval", "--benchmarks", "chartqa", "--limit", "3", "--output", name, *extra)
    done = lab.invoke(*argv)
    assert done.code == 0, done.err
    return lab.folder / name


def responses(run: Path) -> list[str]:
    lines = (run / "records" / "baseline" / "chartqa.jsonl").read_text().splitlines()
    return [json.loads(line)["response"] for line in lines]


def notes(run: Path) -> list[str]:
    found: list[str] = json.loads((run / "table.json").read_text())["notes"]
    return found


def keys(run: Path) -> dict[str, str]:
    entries = json.loads((run / "scores.json").read_text())["variants"]
    return {entry["folder"]: entry["keys"]["chartqa"] for entry in entries}


def test_a_llava_is_asked_as_llava_and_everything_says_so(llava: Lab) -> None:
    run = evaluated(llava, "own")
    assert f"Asked as: {LLAVA}." in notes(run)
    assert json.loads((run / "manifest.json").read_text())["asked"]["as"] == LLAVA
    assert f"asked as: {LLAVA}" in (run / "run.log").read_text()
    named = evaluated(llava, "named", "--profile", "llava-1.5")
    assert responses(named) == responses(run)
    assert keys(named) == keys(run)  # as it is one and the same
    other = {
        "none": evaluated(llava, "none", "--profile", "none"),
        "brief": evaluated(llava, "brief", "--system-prompt", "Be brief."),
        "cropped": evaluated(llava, "cropped", "-o", "processor.do_pad=false"),
        "short": evaluated(llava, "short", "-o", f"conversation.stop={json.dumps(responses(run)[0][1])}"),
        "mistral": evaluated(llava, "mistral", "--chat-template", "mistral_instruct"),
    }
    assert not [note for note in notes(other["none"]) if note.startswith("Asked as")]
    assert [note for note in notes(other["brief"]) if note.startswith("Asked as: profile llava-1.5, changed")]
    assert len({tuple(keys(run).values()), *(tuple(keys(found).values()) for found in other.values())}) == 6
    assert responses(other["short"])[0] == responses(run)[0][0]
    for found in other.values():
        assert responses(found) != responses(run)


def test_a_dry_run_says_how_it_would_be_asked(llava: Lab) -> None:
    argv = llava.argv("run", "--method", "stic", "--dry-run")
    assert f"asked as: {LLAVA}" in llava.invoke(*argv).out
    assert "asked as" not in llava.invoke(*argv, "--profile", "none").out
    grid = llava.argv("ablate", "--vary", "stage1.beta=0.1,0.2", "--dry-run")
    assert f"asked as: {LLAVA}" in llava.invoke(*grid).out
    said = llava.invoke(*grid, "--vary", "conversation.profile=none,auto")
    assert said.code == 2 and "conversation is the same for all cells" in said.err


def test_stages_are_filed_apart_by_how_the_model_is_asked(llava: Lab) -> None:
    def plan(*extra: str) -> set[str]:
        lines = llava.invoke(*llava.argv("train", "--method", "stic", "--dry-run"), *extra).out.splitlines()
        return {line.split()[3] for line in lines if line.startswith(("pairs, seed", "preference, seed"))}

    own, without = plan(), plan("--profile", "none")
    assert len(own) == len(without) == 2
    assert not own & without


def test_what_does_not_fit_the_model_ends_in_one_line(llava: Lab) -> None:
    argv = llava.argv("eval", "--benchmarks", "chartqa", "--limit", "1", "--output", "wrong")
    done = llava.invoke(*argv, "-o", "processor.min_pixels=100000")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "-o processor.min_pixels=100000: CLIPImageProcessorPil takes no min_pixels" in done.err
    done = llava.invoke(*argv, "--profile", "llava-1.7")
    assert done.code == 2 and "--profile 'llava-1.7': give one of auto, none, llava-1.5" in done.err
    assert not (llava.folder / "wrong").exists()


def test_a_profile_can_be_shown(lab: Lab) -> None:
    said = lab.invoke("show", "llava-1.5")
    assert said.code == 0
    assert "curious user" in said.out and "do_pad: true" in said.out


def test_a_server_is_sent_the_system_prompt_and_the_table_says_so(lab: Lab, tmp_path: Path) -> None:
    here = lab.at(tmp_path)
    with serving(lambda number, prompt: says("12.5")) as server:
        done = here.invoke(
            "eval", "--engine", "openai", "--base-url", server.url, "--model", "m", "--benchmarks", "chartqa",
            "--limit", "2", "-o", f"rows.chartqa={here.rows['chartqa']}", "--system-prompt", "Be brief.",
            "--output", "served",
        )  # fmt: skip
    assert done.code == 0, done.err
    assert {body["messages"][0]["content"] for body in server.asked} == {"Be brief."}
    assert 'Asked as: own conversation, changed (system prompt "Be brief.").' in notes(tmp_path / "served")
