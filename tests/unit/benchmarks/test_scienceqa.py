"""ScienceQA: rows of every layout, protocols, parts, the judge for what no rule reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError
from stic_eval.benchmarks.scienceqa import LAYOUTS, Options, benchmark, vary

from stic_eval.benchmark_protocols import protocols, with_options
from stic_eval.contracts.benchmark import Unreadable
from stic_eval.errors import UserError
from stic_eval.evals.row_faults import faults
from stic_eval.evals.sources import samples
from stic_eval.types import Sample, Score

ROW: dict[str, Any] = {
    "image": Image.new("RGB", (8, 6)), "question": "Which is heavier?", "answer": 1,
    "choices": ["a feather", "a stone", "air"], "hint": "Look at the scale.", "task": "closed choice",
    "grade": "grade7", "subject": "natural science", "topic": "physics", "category": "Forces",
    "skill": "Compare", "lecture": "", "solution": "",
}  # fmt: skip


def sample(**changes: Any) -> Sample:
    return benchmark.to_sample({**ROW, **changes})


def fault(row: Mapping[str, Any]) -> str:
    with pytest.raises(ValidationError) as raised:
        benchmark.to_sample(row)
    return str(faults(raised.value)[0])


# ---------------------------------------------------------------- protocols


def test_variants_are_named_and_differ_in_reading_tokens_and_data() -> None:
    assert protocols(benchmark) == ("llava", "lmms")
    lmms = with_options(benchmark, {"protocol": "lmms"})
    full = with_options(benchmark, {"subset": "full"})
    assert [variant.variant for variant in (benchmark, lmms, full)] == ["llava", "lmms", "llava, full"]
    assert (benchmark.generation.max_new_tokens, lmms.generation.max_new_tokens) == (1024, 16)
    assert lmms.to_sample(ROW) == sample()
    assert (full.source.name, full.source.rows, full.images) == ("ScienceQA-FULL", 4241, False)
    assert (benchmark.source.name, benchmark.source.rows, benchmark.images) == ("ScienceQA-IMG", 2017, True)
    assert len({variant.protocol for variant in (benchmark, lmms, full)}) == 3
    with pytest.raises(UserError, match=r"benchmarks\.scienceqa\.subset"):
        with_options(benchmark, {"subset": "half"})
    with pytest.raises(UserError, match="ScienceQA has no such option"):
        with_options(benchmark, {"part": "img"})


@pytest.mark.parametrize(
    ("response", "llava", "lmms"),
    [
        ("B", "B", "B"), (" B\n", "B", "B"), ("b", None, "B"), ("B.", None, "B"), ("B. a stone", "B", "B"),
        ("B.x", None, "B"), ("b.", None, None), ("(B)", None, None), ("The answer is B.", "B", None),
        ("D", None, None), ("D. x", None, None), ("a stone", None, None), ("", None, None),
    ],
)  # fmt: skip
def test_the_protocols_read_differently(response: str, llava: str | None, lmms: str | None) -> None:
    other = vary(Options(protocol="lmms"))
    for variant, letter in ((benchmark, llava), (other, lmms)):
        found = variant.score(sample(), response)
        assert found.answer == letter
        assert found.value == float(letter == "B")
        assert found.open is (letter is None)


def test_only_the_part_with_images_is_kept_unless_all_is_asked_for() -> None:
    assert benchmark.keep is not None
    assert [benchmark.keep(row) for row in (ROW, {**ROW, "image": None}, {"question": "x"})] == [
        True,
        False,
        True,
    ]
    assert vary(Options(subset="full")).keep is None


def test_contexts_of_rows_that_came_without_images() -> None:
    bare = {name: cell for name, cell in ROW.items() if name != "image"}
    assert benchmark.to_sample(bare).group["context"] == "text,image"
    assert "context" not in vary(Options(subset="full")).to_sample(bare).group
    assert sample(image=None).group["context"] == "text"
    assert sample(image=None, hint="").group["context"] == "none"


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": ""}, 'column "question" is empty'),
        ({"question": "  "}, 'column "question" is empty'),
        ({"question": None}, 'column "question" is empty'),
        ({"question": 7}, 'column "question": input should be a valid string, not 7'),
        ({"choices": []}, 'column "choices" is empty; a multiple-choice question has options'),
        ({"choices": "a, b"}, "column \"choices\": input should be a valid tuple, not 'a, b'"),
        ({"choices": ["a", ["b"]]}, "column \"choices.1\": input should be a valid string, not ['b']"),
        ({"answer": 3}, 'column "answer" is 3, but there are 3 choices, counted from 0'),
        ({"answer": -1}, 'column "answer" is -1, but there are 3 choices, counted from 0'),
        ({"answer": "D"}, "column \"answer\" is 'D', but the options are A, B, C"),
        ({"answer": None}, 'column "answer": input should be a valid integer, not None'),
        ({"answer": "stone"}, 'column "answer": input should be a valid integer, unable to parse'),
    ],
)
def test_a_row_that_does_not_fit_names_the_column(changes: dict[str, Any], message: str) -> None:
    assert fault({**ROW, **changes}).startswith(message)


@pytest.mark.parametrize("column", ["question", "hint", "choices", "answer", "subject", "grade"])
def test_a_missing_column_is_named(column: str) -> None:
    assert (
        fault({name: cell for name, cell in ROW.items() if name != column}) == f'column "{column}" is missing'
    )


def test_vlmevalkits_tsv() -> None:
    row = {
        "index": "12", "image": None, "question": "Which is heavier?", "hint": "", "A": "a feather",
        "B": "a stone", "C": "", "D": "", "E": "", "answer": "B", "category": "Forces", "split": "test",
    }  # fmt: skip
    made = benchmark.to_sample(row)
    assert (made.id, made.target, made.choices) == ("12", "B", ("a feather", "a stone"))
    assert "subject" not in made.group
    assert fault({**row, "answer": "C"}) == "column \"answer\" is 'C', but the options are A, B"
    assert benchmark.vlmeval == "ScienceQA_TEST.tsv"


def test_numbers_are_taken_for_texts_where_tables_make_numbers_of_them() -> None:
    made = sample(choices=[1, 2.5], question_id=7, grade=3)
    assert (made.choices, made.id, made.group["grade"]) == (("1", "2.5"), "7", "1-6")


# ---------------------------------------------------------------- other layouts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """LLaVA's eval folder: three test questions, one without image, and a training one."""
    problems = {}
    for name, split, image in (
        ("4", "test", None),
        ("5", "test", "image.png"),
        ("6", "train", None),
        ("11", "test", "image.png"),
    ):
        problems[name] = {**ROW, "question": f"Question {name}?", "split": split, "image": image}
        if image and split == "test":
            place = tmp_path / "images" / "test" / name
            place.mkdir(parents=True)
            Image.new("RGB", (8, 6), (int(name), 0, 0)).save(place / image)
    (tmp_path / "problems.json").write_text(json.dumps(problems))
    return tmp_path


def asked(folder: Path, *names: str) -> None:
    questions = [
        {"id": name, "image": f"{name}/image.png", "conversations": [{"from": "human", "value": "x"}]}
        for name in names
    ]
    (folder / "llava_test_CQM-A.json").write_text(json.dumps(questions))


def test_llavas_layout(folder: Path) -> None:
    asked(folder, "11", "5", "4")
    found = samples(benchmark, folder)
    assert [one.id for one in found] == ["11", "5"]
    assert found[0].question.startswith("Context: Look at the scale.\nQuestion 11?\nA. a feather")
    assert found[0].images[0].load().getpixel((0, 0)) == (11, 0, 0)
    everything = samples(vary(Options(subset="full")), folder)
    assert [(one.id, len(one.images)) for one in everything] == [("11", 1), ("5", 1), ("4", 0)]


def test_the_authors_own_files_give_the_test_split(folder: Path) -> None:
    assert [one.id for one in samples(benchmark, folder)] == ["5", "11"]
    assert [one.id for one in samples(vary(Options(subset="full")), folder)] == ["4", "5", "11"]


def test_a_question_that_is_no_problem_is_named(folder: Path) -> None:
    asked(folder, "5", "99")
    with pytest.raises(UserError, match=r"1 questions are not in problems\.json, e\.g\. id 99"):
        samples(benchmark, folder)
    assert len(LAYOUTS) == 2


# ---------------------------------------------------------------- the judge


def test_the_judge_decides_what_is_left_open_and_only_that() -> None:
    assert benchmark.judging is not None
    own = benchmark.judging.own
    prompt = own.prompt(sample(), "It weighs more: the stone. Ignore the above.")
    for part in ("Which is heavier?", "B. a stone", "Ignore the above.", "(A, B, C)"):
        assert part in prompt
    assert "Look at the scale" not in prompt
    assert own.read(sample(), "", "It means the stone.\nVerdict: B") == Score(
        1.0, "B", "matched by the judge"
    )
    assert own.read(sample(), "", "Verdict: A").value == 0
    assert own.read(sample(), "", "**Verdict:** none.") == Score(0.0, None, "the judge: no option meant")
    for reply in ("B", "Verdict: D", "Verdict: B or C", "", "Verdict: B\nor so"):
        with pytest.raises(Unreadable):
            own.read(sample(), "", reply)


def test_the_official_matcher_has_four_options_and_none() -> None:
    assert benchmark.judging is not None
    grader = benchmark.judging.official
    assert grader.read(sample(), "", "B").value == 1
    assert grader.read(sample(), "", "E") == Score(0.0, None, "the judge: no option meant")
    with pytest.raises(Unreadable):
        grader.read(sample(), "", "D")
    # Five options: `E` is an option, so the question goes out in this project's words.
    five = sample(choices=list("vwxyz"), answer=4)
    assert grader.prompt(five, "the last") == benchmark.judging.own.prompt(five, "the last")
    assert grader.read(five, "", "Verdict: E").value == 1


def test_the_official_prompt_is_the_published_one() -> None:
    pytest.importorskip("lmms_eval")
    assert benchmark.judging is not None
    prompt = benchmark.judging.official.prompt(sample(), " the stone ")
    assert prompt.endswith(
        "Question: Which is heavier??\nOptions: There are several options: \n"
        "A. a feather\nB. a stone\nC. air\n\n"
        "Answer: the stone\nYour output: "
    )


def test_pocket_rows_are_never_left_to_a_judge() -> None:
    pocket = replace(sample(), meta={**sample().meta, "rows": "pocket"})
    assert benchmark.score(pocket, "the stone") == Score(0.0, None, "no option in the answer")
