"""The seven benchmark files, on rows in the schemas of the real data sets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from stic_eval import registry
from stic_eval.contracts.benchmark import Benchmark
from stic_eval.evals.row_faults import faults
from stic_eval.types import Record, Sample, Score


def picture(level: int = 0) -> Image.Image:
    return Image.new("RGB", (8, 6), (level, 0, 0))


ROWS: dict[str, dict[str, Any]] = {
    "scienceqa": {
        "image": picture(), "question": "Which is heavier?", "choices": ["a feather", "a stone", "air"],
        "answer": 1, "hint": "Look at the scale.", "task": "closed choice", "grade": "grade7",
        "subject": "natural science", "topic": "physics", "category": "Forces", "skill": "Compare",
        "lecture": "", "solution": "",
    },
    "textvqa": {
        "image_id": "0054c91397f2fe05", "question_id": 34602, "question": "what is the brand of this Camera?",
        "question_tokens": ["what"], "image": picture(), "image_width": 8, "image_height": 6,
        "answers": ["nous les gosses", "dakota"] + ["Dakota"] * 3 + ["clos culombu"] * 5,
        "image_classes": ["Camera"], "set_name": "val", "ocr_tokens": ["DAKOTA", "DIGITAL"],
    },
    "chartqa": {"type": "human_test", "question": "How many bars?", "answer": "14", "image": picture()},
    "llava_bench": {
        "question_id": 3, "question": "What is the name?", "image": picture(),
        "caption": "A hotel by the sea.", "gpt_answer": "It is the Ritz.", "category": "conv",
        "image_id": "001",
    },
    "mmbench": {
        "index": 1_000_241, "question": "Which colour?", "hint": "nan", "answer": "B", "A": "red",
        "B": "blue", "C": "nan", "D": "nan", "category": "attribute_recognition", "source": "x",
        "L2-category": "finegrained_perception (instance-level)", "comment": "nan",
        "split": "dev", "image": picture(),
    },
    "mmvet": {
        "question_id": "v1_0", "question": "What is x?", "image": picture(), "image_source": "x",
        "answer": "-1<AND>-5<OR>five", "capability": "math,ocr",
    },
    "mathvista": {
        "pid": "7", "question": "How wide?", "image": "images/7.jpg", "decoded_image": picture(),
        "choices": None, "unit": "cm", "precision": 1.0, "answer": "1.2",
        "question_type": "free_form", "answer_type": "float",
        "metadata": {
            "category": "math-targeted-vqa", "context": "table", "grade": "high school", "img_height": 6,
            "img_width": 8, "language": "english", "skills": ["algebraic reasoning", "arithmetic reasoning"],
            "source": "x", "split": "testmini", "task": "figure question answering",
        },
        "query": "Hint: Please answer.\nQuestion: How wide? (Unit: cm)",
    },
}  # fmt: skip

LETTER = "Answer with the option's letter from the given choices directly."
PROMPTS = {
    "scienceqa": (
        f"Context: Look at the scale.\nWhich is heavier?\nA. a feather\nB. a stone\nC. air\n{LETTER}"
    ),
    "textvqa": (
        "What is the brand of this camera?\nReference OCR token: DAKOTA, DIGITAL\n"
        "Answer the question using a single word or phrase."
    ),
    "chartqa": "How many bars?\nAnswer the question with a single word.",
    "llava_bench": "What is the name?",
    "mmbench": f"Which colour?\nA. red\nB. blue\n{LETTER}",
    "mmvet": "What is x?",
    "mathvista": "Hint: Please answer.\nQuestion: How wide? (Unit: cm)",
}


def get(name: str) -> Benchmark:
    return registry.benchmarks().get(name)


def sample(name: str, **changes: Any) -> Sample:
    return get(name).to_sample({**ROWS[name], **changes})


def records(benchmark: Benchmark, items: Iterable[tuple[Sample, Score]]) -> list[Record]:
    return [
        Record(
            s.id,
            s.question,
            (),
            s.target,
            s.group,
            None,
            "",
            v.answer,
            v.value,
            v.weight,
            v.why,
            0.0,
            0,
            s.meta,
        )
        for s, v in items
    ]


@pytest.mark.parametrize("name", sorted(ROWS))
def test_prompt_and_image(name: str) -> None:
    benchmark, made = get(name), sample(name)
    assert benchmark.name == name
    assert made.question == PROMPTS[name]
    (image,) = made.images
    assert image.load().size == (8, 6)
    assert benchmark.generation.temperature == 0


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_missing_column_is_an_error_with_its_name(name: str) -> None:
    row = dict(ROWS[name])
    del row["question"]
    with pytest.raises((KeyError, ValidationError)) as raised:
        get(name).to_sample(row)
    assert [str(fault) for fault in faults(raised.value)] == ['column "question" is missing']


def test_scienceqa_scores_and_groups() -> None:
    benchmark, made = get("scienceqa"), sample("scienceqa")
    assert made.target == "B"
    assert benchmark.score(made, "B") == Score(1.0, "B")
    assert benchmark.score(made, "C. air").value == 0
    unread = benchmark.score(made, "a stone")
    assert unread == Score(0.0, None, "no option in the answer", open=True)
    assert not benchmark.score(replace(made, meta={**made.meta, "rows": "pocket"}), "a stone").open
    text_only = sample("scienceqa", image=None, hint="", grade="grade3")
    assert text_only.images == ()
    assert text_only.question.startswith("Which is heavier?\nA. ")
    summary = benchmark.aggregate(
        records(benchmark, [(made, Score(1.0)), (replace(text_only, id="2"), Score(0.0))])
    )
    assert summary.score == 50
    assert summary.breakdown == {
        "subject/natural science": 50, "context/text": 100, "context/image": 100, "context/none": 0,
        "grade/7-12": 100, "grade/1-6": 0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="is 3, but there are 3 choices"):
        sample("scienceqa", answer=3)


def test_textvqa_scores_by_the_annotators() -> None:
    benchmark, made = get("textvqa"), sample("textvqa")
    assert benchmark.score(made, "The DAKOTA.") == Score(1.0, "dakota")
    assert benchmark.score(made, "nous les gosses").value == pytest.approx(0.3)
    assert sample("textvqa", ocr_tokens=[]).question.count("\n") == 1
    assert benchmark.score(sample("textvqa", answers=[]), "dakota").value is None


def test_chartqa_scores_within_five_percent_and_by_kind_of_question() -> None:
    benchmark, made = get("chartqa"), sample("chartqa")
    assert benchmark.score(made, " 14.5\n") == Score(1.0, "14.5")
    assert benchmark.score(made, "15").value == 0
    other = replace(sample("chartqa", type="augmented_test"), id="b")
    summary = benchmark.aggregate(
        records(benchmark, [(replace(made, id="a"), Score(1.0)), (other, Score(0.0))])
    )
    assert summary.breakdown == {"questions/human": 100, "questions/augmented": 0}


def test_llava_bench_is_a_ratio_and_unscored_without_a_judge() -> None:
    benchmark, made = get("llava_bench"), sample("llava_bench")
    assert benchmark.judged
    assert made.target == "It is the Ritz."
    assert benchmark.score(made, "It is the Ritz.") == Score(
        None, why="needs a judge (--judge MODEL)", open=True
    )
    items = [(made, Score(0.8, weight=0.9)), (replace(made, id="4"), Score(0.4, weight=0.7))]
    assert benchmark.aggregate(records(benchmark, items)).score == pytest.approx(75)


def test_llava_bench_key_facts_are_graded_by_rule() -> None:
    made = sample("llava_bench", caption="key facts: ritz<AND>two palm trees", gpt_answer_content="The Ritz.")
    assert made.target == "The Ritz."
    graded = get("llava_bench").score(made, "The Ritz, with palm trees")
    assert (graded.value, graded.weight) == (0.5, 1)
    assert graded.why is not None
    assert graded.why.startswith("rule")


def test_mmbench_is_circular_by_index() -> None:
    benchmark = get("mmbench")
    rotations = [sample("mmbench", index=241), sample("mmbench", A="blue", B="red", answer="A")]
    assert [made.id for made in rotations] == ["241", "1000241"]
    assert {made.meta["unit"] for made in rotations} == {"241"}
    other = sample("mmbench", index=242, hint="See below.", C="green", D=None)
    assert other.question.startswith("See below.\nWhich colour?\nA. red\nB. blue\nC. green\nAnswer")
    scored = [(made, benchmark.score(made, "B")) for made in (*rotations, other)]
    assert [score.value for _, score in scored] == [1, 0, 1]
    summary = benchmark.aggregate(records(benchmark, scored))
    assert (summary.score, summary.n) == (50, 2)
    assert summary.units == {"241": (0, 1), "242": (1, 1)}
    assert summary.breakdown["ability/FP-S"] == 50
    assert (summary.breakdown["vanilla"], summary.breakdown["vanilla/FP-S"]) == (100, 100)
    assert summary.breakdown["category/attribute_recognition"] == 50


def test_mmbench_reads_text_and_takes_missing_cells_of_any_kind() -> None:
    benchmark, made = get("mmbench"), sample("mmbench", C=float("nan"), D=None, hint=None)
    assert made.choices == ("red", "blue")
    assert benchmark.score(made, "It is a banana, painted blue").value == 1
    assert benchmark.score(made, "C").value == 0
    assert benchmark.score(sample("mmbench", answer="nan"), "B").value is None
    with pytest.raises(ValueError, match="is 'D', but the options are A, B"):
        sample("mmbench", answer="D")
    tsv = {key: value for key, value in ROWS["mmbench"].items() if key != "L2-category"}
    made = benchmark.to_sample({**tsv, "index": "5", "C": "", "D": "", "l2-category": "logic_reasoning"})
    assert (made.id, made.group["ability"]) == ("5", "LR")


def test_mmvet_by_capability_and_combination() -> None:
    benchmark, made = get("mmvet"), sample("mmvet")
    assert made.group == {"capability": "ocr,math", "combination": "ocr+math"}
    assert benchmark.score(made, "-1 and -5").value is None
    pocket = replace(made, meta={"rows": "pocket"})
    graded = benchmark.score(pocket, "x is -1 or five")
    assert (graded.value, graded.answer) == (1, "-1, five")
    assert benchmark.score(pocket, "x is 5").value == 0
    other = replace(sample("mmvet", capability="ocr"), id="2")
    summary = benchmark.aggregate(records(benchmark, [(made, Score(0.5)), (other, Score(1.0))]))
    assert summary.breakdown == {
        "capability/ocr": 75, "capability/math": 50, "combination/ocr+math": 50, "combination/ocr": 100,
    }  # fmt: skip


def test_mathvista_unread_answers_are_unscored_but_on_pocket_wrong() -> None:
    benchmark, made = get("mathvista"), sample("mathvista")
    assert benchmark.score(made, "It is 1.23 cm wide.") == Score(1.0, "1.23")
    assert benchmark.score(made, "1.26").value == 0
    unread = benchmark.score(made, "I cannot tell.")
    assert (unread.value, unread.open) == (None, True)
    assert unread.why
    assert benchmark.score(replace(made, meta={**made.meta, "rows": "pocket"}), "I cannot tell.").value == 0
    summary = benchmark.aggregate(records(benchmark, [(made, Score(1.0))]))
    assert {"skill/algebraic reasoning", "skill/arithmetic reasoning", "context/table"} <= set(
        summary.breakdown
    )


@pytest.mark.parametrize(
    ("changes", "prompt"),
    [
        (
            {},
            "Hint: Please answer the question requiring a floating-point number with one decimal place and "
            "provide the final value, e.g., 1.2, 1.3, 1.4, at the end.\nQuestion: How wide? (Unit: cm)",
        ),
        (
            {
                "question_type": "multi_choice",
                "answer_type": "text",
                "choices": ["1", "2"],
                "answer": "2",
                "unit": None,
            },
            "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at "
            "the end.\nQuestion: How wide?\nChoices:\n(A) 1\n(B) 2",
        ),
        (
            {"answer_type": "integer", "precision": None, "unit": ""},
            "Hint: Please answer the question requiring an integer answer and provide the final value, "
            "e.g., 1, 2, 3, at the end.\nQuestion: How wide?",
        ),
    ],
)
def test_mathvista_rebuilds_the_query(changes: dict[str, Any], prompt: str) -> None:
    row = {key: value for key, value in ROWS["mathvista"].items() if key != "query"} | changes
    assert get("mathvista").to_sample(row).question == prompt
