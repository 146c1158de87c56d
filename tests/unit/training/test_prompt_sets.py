"""Prompt sets: what is shipped, files, and scripts that hold prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from stic_eval.errors import UserError
from stic_eval.training.prompt_sets import load_prompts, shipped_names

SCRIPT = '''
import os
raise SystemExit("this file must not run")
prompt_list = ["Describe it.", "What is there?"]
hallu_prompt_list = ["Invent things.", "Add objects."]
preferred_prompt = """Look carefully, name the subjects, then the setting, """ \\
    """then the mood, and interpret it all."""
numbers = [1, 2]
def main():
    path = os.environ["HOME"]
'''


@pytest.mark.parametrize("name", ["stic", "pocket"])
def test_shipped_sets_have_the_papers_roles(name: str) -> None:
    prompts = load_prompts(name)
    assert (len(prompts.plain), len(prompts.misleading)) == (8, 8)
    assert len({*prompts.plain, *prompts.misleading, prompts.step_by_step}) == 17
    assert len(prompts.step_by_step) > max(map(len, prompts.plain))


def test_without_a_name_it_is_the_builtin_one() -> None:
    assert load_prompts() == load_prompts("stic")
    assert shipped_names() == ["pocket", "stic"]


def test_a_file_replaces_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("step_by_step: Look closely.\nplain: [Describe.]\nmisleading: [Invent., Dream.]\n")
    prompts = load_prompts(file)
    assert prompts.plain == ("Describe.",)
    assert prompts.misleading == ("Invent.", "Dream.")


def test_a_script_is_read_and_never_run(tmp_path: Path) -> None:
    file = tmp_path / "generate.py"
    file.write_text(SCRIPT)
    prompts = load_prompts(file)
    assert prompts.plain == ("Describe it.", "What is there?")
    assert prompts.misleading == ("Invent things.", "Add objects.")
    assert prompts.step_by_step.startswith("Look carefully")
    assert prompts.step_by_step.endswith("interpret it all.")


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("a.yaml", "plain: [x]\nmisleading: [y]", ["step_by_step", "field required"]),
        ("a.yaml", "step_by_step: x\nplain: []\nmisleading: [y]", ["plain", "at least 1"]),
        ("a.yaml", "step_by_step: x\nplain: [a]\nmisleading: [y, ' ']", ["misleading.1"]),
        ("a.yaml", "step_by_step: x\nplain: [a]\nmisleading: [y]\nextra: 1", ["extra"]),
        ("a.yaml", "- x", ["step_by_step, plain and misleading"]),
        ("a.yaml", "a: {", ["not valid YAML"]),
        ("a.py", "def (", ["not valid Python"]),
        ("a.py", "hallu = ['x']", ["one list of plain prompts", "found 0"]),
        ("a.py", "hallu = ['x']\na = ['y']\nb = ['z']", ["found 2", "a, b"]),
        ("a.py", "hallu = ['x']\na = ['y, and so on']\nlong = 'short'", ["step-by-step"]),
    ],
)
def test_what_does_not_fit_is_named(name: str, text: str, parts: list[str], tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load_prompts(file)
    assert all(part in str(caught.value) for part in [name, *parts]), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_what_there_is() -> None:
    with pytest.raises(
        UserError, match=r"--prompts nowhere\.yaml: neither a file nor a built-in set \(pocket, stic\)"
    ):
        load_prompts("nowhere.yaml")
