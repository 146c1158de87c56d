"""The pocket world: splits that share nothing, rows in the real schemas, answers that are right."""

from __future__ import annotations

import hashlib
import random
import re
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stic_eval import registry
from stic_eval.evals.scoring.keyfacts import named_facts, parse_facts
from stic_eval.evals.sources import samples
from stic_eval.pocket import rows, world
from stic_eval.pocket.language import careless, claims, describe, invented, truth
from stic_eval.pocket.questions import Question, questions

NAMES = ("scienceqa", "textvqa", "chartqa", "llava_bench", "mmbench", "mmvet", "mathvista")
SEEDS = st.integers(0, 10_000)
KINDS = st.sampled_from(["any", "scene", "sign", "many", "chart", "benchmark-like", "bar", "line", "pie"])


def pixels(image: Any) -> str:
    return hashlib.sha256(image.load().tobytes()).hexdigest()


def test_no_picture_occurs_twice() -> None:
    """Unlabeled images, instruction data, validation and test rows: compared by their pixels."""
    found: dict[str, list[str]] = {
        "images": [pixels(image) for image in rows.unlabeled_images(500)],
        "sft": [pixels(item["image"]) for item in rows.sft_items(500)],
    }
    for split in ("test", "val"):
        for name in NAMES:
            refs = {
                r["decoded_image" if name == "mathvista" else "image"]
                for r in rows.benchmark_rows(name, split)
            }
            found[f"{split}/{name}"] = [pixels(ref) for ref in refs]
    everything = [digest for digests in found.values() for digest in digests]
    assert len(everything) > 3000
    assert len(set(everything)) == len(everything)


def test_nothing_that_is_trained_on_is_drawn_in_another_split() -> None:
    specs = {split: {world.draw_spec(split, seed) for seed in range(400)} for split in world._SPLITS}
    seeds = [world.split_seeds(split) for split in world._SPLITS]
    for one, drawn in specs.items():
        assert all(one == other or not drawn & others for other, others in specs.items())
    ordered = sorted(seeds, key=lambda r: r.start)
    assert all(a.stop <= b.start for a, b in pairwise(ordered))


def signs(split: world.Split, n: int) -> list[str]:
    specs = [world.draw_spec(split, seed, "sign") for seed in range(n)]
    return [spec.sign for spec in specs if isinstance(spec, world.Scene) and spec.sign is not None]


def test_no_word_of_one_split_is_on_a_sign_of_another() -> None:
    """Least of all one that the tower was trained to read."""
    # Short words are few: so many signs of the training show nearly all that it may show.
    found = {split: set(signs(split, 4000 if split == "train" else 600)) for split in world._SPLITS}
    assert all(len(words) > 200 for words in found.values())
    for one, other in combinations(found, 2):
        assert not found[one] & found[other], (one, other)


@given(SEEDS, st.sampled_from(list(world._SPLITS)))
def test_words_on_signs_can_be_pronounced_and_are_no_words_of_the_text(seed: int, split: world.Split) -> None:
    word = world.made_up_word(random.Random(seed), split)
    assert re.fullmatch(r"(?:[^aeiou][aeiou]){1,2}[^aeiou]?", word)
    assert 3 <= len(word) <= 5
    assert set(word) <= set(world.LETTERS)
    assert len(set(world.LETTERS)) == len(world.LETTERS) == 19


def test_nothing_that_is_said_in_the_pocket_world_can_be_a_made_up_word() -> None:
    said: set[str] = set()
    for seed in range(400):
        spec = world.draw_spec("train", seed, ("scene", "many", "chart", "bar", "line", "pie")[seed % 6])
        if isinstance(spec, world.Scene) and spec.sign is not None:
            continue
        for question in questions(spec, random.Random(seed)):
            said |= set(re.findall(r"[a-z]+", f"{question.text} {question.sentence}".lower()))
        said |= set(re.findall(r"[a-z]+", describe(spec).lower()))
    said |= set(re.findall(r"[a-z]+", rows.PROMPTS.read_text(encoding="utf-8").lower()))
    shapes = (r"[{0}][aeiou][{0}]", r"[{0}][aeiou][{0}][aeiou]", r"[{0}][aeiou][{0}][aeiou][{0}]")
    possible = {w for w in said if any(re.fullmatch(p.format(world.CONSONANTS), w) for p in shapes)}
    assert {"red", "bar", "top", "line"} <= possible
    assert possible <= world._REAL


@given(SEEDS)
def test_charts_have_three_different_values_to_twenty(seed: int) -> None:
    for kind in world.CHARTS:
        chart = world.draw_spec("test", seed, kind)
        assert isinstance(chart, world.Chart)
        values = [value for _, value in chart.values]
        assert len(set(values)) == 3
        assert all(1 <= value <= 20 for value in values)
        assert kind != "pie" or sum(values) == 20


def test_values_can_be_read_off_a_bar_and_a_slice() -> None:
    heights = []
    for value in range(1, 21):
        others = (("green", value % 20 + 1), ("red", (value + 1) % 20 + 1))
        img = world.draw(world.Chart("bar", (("blue", value), *others)), 0)
        column = [img.getpixel((world.CELL // 2, y)) for y in range(world.SIZE)]
        heights.append(column.count(world.COLORS["blue"]))
    assert all(3 <= above - below <= 4 for below, above in pairwise(heights))
    for value in range(1, 18):
        rest = 20 - value
        img = world.draw(world.Chart("pie", (("blue", value), ("red", 1), ("green", rest - 1))), 0)
        counts = dict.fromkeys(("blue", "red", "green"), 0)
        for n, pixel in img.getcolors(world.SIZE**2) or []:
            counts |= {color: n for color in counts if world.COLORS[color] == pixel}
        assert 20 * counts["blue"] / sum(counts.values()) == pytest.approx(value, abs=0.5)


def test_letters_of_a_sign_stand_in_slots_of_their_own() -> None:
    """Where no letter stands is grain alone; where one stands is ink, whatever the seed."""
    lightest_ink = world.BOARD - world.CONTRAST + world.GRAIN
    darkest_board = world.BOARD - world.GRAIN
    assert lightest_ink < darkest_board
    for word, slots in (("zup", {1, 2, 3}), ("kevo", {1, 2, 3, 4}), ("mabig", {0, 1, 2, 3, 4})):
        for seed in range(20):
            img = world.draw(world.Scene("night", (), word, 2), seed).convert("L")
            for slot in range(world.SLOTS):
                box = (max(1, 12 * slot), 51, min(71, 12 * slot + 12), 69)
                assert (min(img.crop(box).tobytes()) < darkest_board) == (slot in slots), (word, slot)


def test_pictures_like_the_benchmarks_are_charts_and_signs_alone() -> None:
    specs = [world.draw_spec("images", seed, "benchmark-like") for seed in range(200)]
    charts = [spec for spec in specs if isinstance(spec, world.Chart)]
    assert all(isinstance(spec, world.Chart) or spec.sign for spec in specs)
    assert 70 < len(charts) < 130
    plain = [world.draw_spec("images", seed, "any") for seed in range(200)]
    assert any(isinstance(spec, world.Scene) and spec.sign is None for spec in plain)


@given(SEEDS, KINDS)
def test_pictures_depend_on_spec_and_seed_alone(seed: int, kind: str) -> None:
    spec = world.draw_spec("val", seed, kind)
    assert world.draw_spec("val", seed, kind) == spec
    assert world.draw(spec, seed).tobytes() == world.draw(spec, seed).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_rows_fit_the_real_benchmark_and_their_answers_score(name: str) -> None:
    benchmark = registry.benchmarks().get(name)
    found = samples(benchmark, "pocket")
    assert len(found) == rows.ROWS
    for sample in found:
        (image,) = sample.images
        assert image.load().size == (world.SIZE, world.SIZE)
        if name == "textvqa":
            right = max(set(sample.target), key=sample.target.count)
        else:
            # MM-Vet's key facts, each a sentence; the subjects are for the grader.
            right = ". ".join(fact.partition("<OF>")[0] for fact in str(sample.target).split("<AND>"))
        assert benchmark.score(sample, right).value == 1.0
        assert benchmark.score(sample, "").value == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_change(name: str) -> None:
    rows.benchmark_rows.cache_clear()
    first = [repr(row) for row in rows.benchmark_rows(name)]
    rows.benchmark_rows.cache_clear()
    assert [repr(row) for row in rows.benchmark_rows(name)] == first


def test_mmbench_rotations_share_a_picture_and_agree() -> None:
    groups: dict[int, list[Any]] = {}
    for row in rows.benchmark_rows("mmbench"):
        groups.setdefault(row["index"] % 1_000_000, []).append(row)
    assert len(groups) == 50
    for group in groups.values():
        assert len({row["image"].sha256 for row in group}) == 1
        assert len({row[row["answer"]] for row in group}) == 1
        assert {row["answer"] for row in group} == set("ABCD")


def test_columns_are_the_real_ones() -> None:
    expected = {
        "scienceqa": "image question choices answer hint task grade subject topic category skill lecture "
        "solution",
        "textvqa": "image_id question_id question question_tokens image image_width image_height "
        "flickr_original_url flickr_300k_url answers image_classes set_name ocr_tokens",
        "chartqa": "type question answer image",
        "llava_bench": "question_id question image caption gpt_answer category image_id",
        "mmbench": "index question hint answer A B C D category image source L2-category comment split",
        "mmvet": "question_id image question answer image_source capability",
        "mathvista": "pid question image decoded_image choices unit precision answer question_type "
        "answer_type metadata query",
    }
    for name, columns in expected.items():
        for row in rows.benchmark_rows(name):
            assert set(row) == set(columns.split()), name
    assert all(len(row["answers"]) == 10 for row in rows.benchmark_rows("textvqa"))


def test_mathvista_queries_are_those_that_the_benchmark_would_build() -> None:
    from stic_eval.benchmarks.mathvista import Row, query

    for row in rows.benchmark_rows("mathvista"):
        assert row["query"] == query(Row.model_validate({**row, "query": None}))


@given(SEEDS, KINDS)
def test_a_faithful_description_can_be_read_back(seed: int, kind: str) -> None:
    spec = world.draw_spec("train", seed, kind)
    found = claims(describe(spec))
    if isinstance(spec, world.Chart):
        assert found == {(color, str(value)) for color, value in spec.values}
    else:
        things = {(world.POSITIONS[t.cell], t.color, t.shape) for t in spec.things}
        assert found == things | ({("sign", spec.sign)} if spec.sign else set())


def test_careless_and_invented_descriptions_are_worse() -> None:
    precision, recall = {}, {}
    for make in (careless, invented):
        said = right = there = 0
        for seed in range(300):
            spec = world.draw_spec("train", seed)
            claimed = claims(make(spec, random.Random(seed)))
            said, right, there = (
                said + len(claimed),
                right + len(claimed & truth(spec)),
                there + len(truth(spec)),
            )
        precision[make], recall[make] = right / said, right / there
    assert 0.6 < precision[careless] < 0.9
    assert precision[invented] < precision[careless] - 0.1
    assert max(recall.values()) < 0.8


@given(SEEDS, KINDS)
def test_no_question_has_its_answer_among_the_wrong_ones(seed: int, kind: str) -> None:
    spec = world.draw_spec("train", seed, kind)
    for question in questions(spec, random.Random(seed)):
        assert question.answer not in question.wrong
        assert len(set(question.wrong)) == len(question.wrong)
        assert question.answer.lower() in question.sentence.lower()


@given(SEEDS)
def test_values_differences_and_sums_are_right(seed: int) -> None:
    chart = world.draw_spec("train", seed, "chart")
    assert isinstance(chart, world.Chart)
    values = dict(chart.values)
    for question in questions(chart, random.Random(seed)):
        colors = [color for color in values if f" {color}" in question.text]
        if question.kind == "sum":
            assert int(question.answer) == sum(values[color] for color in colors)
        elif question.kind == "difference":
            assert int(question.answer) == max(values[c] for c in colors) - min(values[c] for c in colors)
        elif question.kind == "total":
            assert int(question.answer) == sum(values.values())
        elif question.kind == "highest":
            assert values[question.answer] == max(values.values())


def test_instruction_data_is_in_llavas_format() -> None:
    items = rows.sft_items(40)
    assert len({item["id"] for item in items}) == 40
    for item in items:
        talk = item["conversations"]
        assert [turn["from"] for turn in talk] == ["human", "gpt"] * (len(talk) // 2)
        assert talk[0]["value"].startswith("<image>\n")
        assert all("<image>" not in turn["value"] for turn in talk[1:])


def said(answer: str, question: Question) -> bool:
    return bool(named_facts(answer, parse_facts(f"{question.answer}<OF>{question.subject}")))


@given(SEEDS, KINDS)
def test_what_is_said_of_another_subject_is_not_graded_as_right(seed: int, kind: str) -> None:
    """Where the question is about the blue star, the green star's place (colour, value, sum) is no answer."""
    spec = world.draw_spec("train", seed, kind)
    found = [
        q for q in questions(spec, random.Random(seed)) if q.subject and q.kind not in ("size", "count_size")
    ]
    for question in found:
        assert said(question.sentence, question)
        assert said(question.answer, question)
        for other in found:
            kinds = {question.kind, other.kind}
            if other.subject == question.subject or question.answer in other.subject:
                continue
            if len(kinds) == 1 and kinds <= {
                "place",
                "color",
                "shape",
                "at",
                "left",
                "value",
                "sum",
                "highest",
            }:
                wrong = other.sentence.replace(other.answer, question.answer)
                assert not said(wrong, question), (wrong, question)


def test_a_benchmarks_rows_are_graded_by_subject() -> None:
    benchmark = registry.benchmarks().get("llava_bench")
    found = [(s, re.match(r"Where is the (\w+) (\w+)\?", s.question)) for s in samples(benchmark, "pocket")]
    where = [(sample, match[1], match[2]) for sample, match in found if match]
    assert where
    for sample, color, shape in where:
        other = next(c for c in world.COLORS if c not in sample.target and c != color)
        wrong = sample.target.replace(f"The {color} {shape} is", f"The {other} {shape} is")
        assert benchmark.score(sample, sample.target).value == 1.0
        assert benchmark.score(sample, wrong).value < 1.0


@pytest.mark.parametrize("name", ["llava_bench", "mmvet"])
def test_a_wrong_place_is_not_graded_as_right(name: str) -> None:
    benchmark = registry.benchmarks().get(name)
    found = [s for s in samples(benchmark, "pocket") if re.fullmatch(r"Where is the \w+ \w+\?", s.question)]
    assert found
    for sample in found:
        thing = sample.question.removeprefix("Where is ").removesuffix("?")
        (fact,) = sample.meta["key_facts"] if name == "llava_bench" else parse_facts(sample.target)
        (place,) = fact.alternatives
        assert benchmark.score(sample, f"T{thing[1:]} is at the {place}.").value == 1.0
        for other in set(world.POSITIONS) - {place}:
            assert benchmark.score(sample, f"T{thing[1:]} is at the {other}.").value == 0.0
