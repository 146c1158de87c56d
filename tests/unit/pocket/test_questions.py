"""Wordings of the pocket world's questions: two groups, none of them a prompt that training uses."""

from __future__ import annotations

import ast
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stic_eval import config, config_layers, registry
from stic_eval.experiment.inputs import prompt_set
from stic_eval.pocket import rows, tasks, world
from stic_eval.pocket.questions import GROUPS, WORDINGS, held_out, questions
from stic_eval.solvers.describe_and_respond import Options, first_prompt
from stic_eval.training.prompt_sets import load_prompts, shipped_names

KINDS = ("scene", "sign", "many", "bar", "line", "pie")


def asked(name: str, split: world.Split) -> list[str]:
    """Each question of a benchmark once, however many rotations it has."""
    found = rows.benchmark_rows(name, split)
    return [row["question"] for row in found if row.get("index", 0) < 1_000_000]


def plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".?! ")


# ---------------------------------------------------------------- two groups of wordings


def test_a_wording_is_of_one_group() -> None:
    rng = random.Random(0)
    for ways in WORDINGS.values():
        assert ways.shared and ways.held_out
    for seed in range(60):
        for kind in KINDS:
            spec = world.draw_spec("train", seed, kind)
            for group in GROUPS:
                for question in questions(spec, rng, group):
                    assert held_out(question.text) is (group == "held_out"), question.text
                    assert held_out(question.text.lower()) is (group == "held_out")


@pytest.mark.parametrize("name", list(tasks.MAKERS))
@pytest.mark.parametrize("split", ["test", "val"])
def test_a_third_of_a_benchmarks_questions_is_held_out(name: str, split: world.Split) -> None:
    found = asked(name, split)
    assert 0.3 < sum(map(held_out, found)) / len(found) < 0.37
    to_sample = registry.benchmarks().get(name).to_sample
    for row in rows.benchmark_rows(name, split):
        assert held_out(to_sample(row).question) is held_out(row["question"])


def test_no_instruction_item_has_a_held_out_wording() -> None:
    talks = [item["conversations"] for item in rows.sft_items(1000)]
    said = [turn["value"] for talk in talks for turn in talk if turn["from"] == "human"]
    assert len(said) > 1500
    assert not [text for text in said if held_out(text)]


def test_the_models_own_training_has_both_groups() -> None:
    ask, rng = rows.wordings(), random.Random(0)
    talks = [rows.turns(world.draw_spec("train", seed), rng, ask, 3) for seed in range(200)]
    share = Counter(held_out(one.question) for talk in talks for one in talk)
    assert share[True] > 200 and share[False] > 200


# ---------------------------------------------------------------- no question is a prompt for descriptions


ROOT = Path(__file__).parents[3]
ROLES = ("step_by_step", "plain", "misleading")


def _asking(options: Any) -> Iterator[str]:
    """Texts under keys such as `judge_prompt`, at any depth."""
    for key, value in options.items() if isinstance(options, dict) else ():
        if isinstance(value, str) and "prompt" in key and " " in value:  # not the name of a role
            yield value
        yield from _asking(value)


def prompt_sets() -> dict[str, set[str]]:
    """What every shipped prompt set, method and preset asks for, by where it stands."""
    found: dict[str, set[str]] = {}
    for name in shipped_names():
        for role, said in load_prompts(name).model_dump().items():
            found[f"prompt set {name}: {role}"] = {said} if isinstance(said, str) else set(said)
    methods = registry.methods()
    for preset in config_layers.preset_names():
        built = config.load(preset=preset, flags={"methods": tuple(methods.names())})
        for role in ROLES:
            dar = Options(prompt_role=role)  # type: ignore[arg-type]
            found[f"preset {preset}: {role}"] = {first_prompt(dar, prompt_set(built))}
        for solver in registry.solvers().names():
            if own := set(_asking(config.options_of(built, registry.solvers().get(solver)).model_dump())):
                found[f"preset {preset}: solver {solver}"] = own
        for name, options in built.method_options.items():
            if own := set(_asking(options)):
                found[f"preset {preset}: {name}"] = own
    for name in methods.names():
        if own := set(_asking(methods.get(name).config().model_dump())):
            found[f"method {name}"] = own
    return found


def literals() -> set[str]:
    """Every text in methods, measurements and the package, but for what makes the questions."""
    found: set[str] = set()
    for folder in ("methods", "bench", "stic_eval"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.parent.name != "pocket":
                tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                found |= {n.value for n in tree if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return found


def test_no_question_is_a_prompt_that_asks_for_descriptions() -> None:
    sets = prompt_sets()
    assert len(sets) > 20
    assert {"prompt set stic: plain", "prompt set pocket: misleading", "preset pocket: sima"} <= set(sets)
    said = {plain(text): where for where, texts in sets.items() for text in texts}
    said |= {plain(text): "a text in the code" for text in literals()}
    found = {
        question: said[plain(question)]
        for name in tasks.MAKERS
        for split in ("test", "val")
        for question in asked(name, split)
        if plain(question) in said
    }
    assert not found
    assert plain("  Describe the\n Image") in said


def test_whole_descriptions_are_asked_for_by_both_benchmarks_in_both_groups() -> None:
    for name in ("llava_bench", "mmvet"):
        details = [
            q for q in asked(name, "test") if q in (*WORDINGS["detail"].shared, *WORDINGS["detail"].held_out)
        ]
        assert {held_out(question) for question in details} == {True, False}
        assert len(details) > 20


# ---------------------------------------------------------------- what a guess is worth


@pytest.mark.parametrize("split", ["test", "val"])
def test_the_right_options_place_is_balanced(split: world.Split) -> None:
    letters = Counter(row["answer"] for row in rows.benchmark_rows("scienceqa", split))
    assert set(letters) == {0, 1, 2, 3} and max(letters.values()) <= 52
    assert all(len(set(row["choices"])) == 4 for row in rows.benchmark_rows("scienceqa", split))
    problems = [row for row in rows.benchmark_rows("mathvista", split) if row["choices"]]
    places = Counter(row["choices"].index(row["answer"]) for row in problems)
    assert len(problems) > 50 and max(places.values()) / len(problems) < 0.35


def test_the_right_number_stands_anywhere_among_the_options_by_size() -> None:
    """Values at the end of the scale have no neighbour on one side; else each rank is as likely."""
    make, ranks = tasks.MAKERS["mathvista"][0], Counter[int]()
    for seed in range(3000):
        spec = world.draw_spec("train", seed, "chart")
        made = make(spec, tasks.Draw(random.Random(seed), "shared", seed % 4))
        if made and made.row["choices"] and made.row["answer"].isdecimal():
            ranks[sorted(made.row["choices"], key=int).index(made.row["answer"])] += 1
    assert all(0.15 < ranks[rank] / ranks.total() < 0.38 for rank in range(4)), ranks


def test_yes_is_as_often_right_as_no() -> None:
    answers = Counter(
        made.row["answer"]
        for seed in range(3000)
        for made in [
            tasks.MAKERS["chartqa"][0](
                world.draw_spec("train", seed, "chart"), tasks.Draw(random.Random(seed), "shared", 0)
            )
        ]
        if made
    )
    assert answers["yes"] > 50
    assert 0.4 < answers["yes"] / (answers["yes"] + answers["no"]) < 0.6


def test_science_questions_need_the_picture_and_the_rule() -> None:
    """The object's place is named, never its shape or colour, and each option is some rule's property."""
    for row in rows.benchmark_rows("scienceqa"):
        assert not any(word in row["question"].split() for word in (*world.COLORS, *world.SHAPES))
        assert row["hint"].count(".") == 4
        assert all(f" {choice}." in row["hint"] for choice in row["choices"])


def test_two_questions_of_one_row_do_not_answer_each_other() -> None:
    for row in rows.benchmark_rows("llava_bench"):
        facts = row["caption"].removeprefix("key facts: ").split("<AND>")
        if row["category"] != "llava_bench_detail":
            for fact in facts:
                assert f" {fact.partition('<OF>')[0]}" not in row["question"].removesuffix("?"), row[
                    "question"
                ]


def test_means_have_one_decimal() -> None:
    found = [row for row in rows.benchmark_rows("mathvista") if row["answer_type"] == "float"]
    assert found
    assert all(row["answer"].endswith((".0", ".5")) and row["precision"] == 1 for row in found)
