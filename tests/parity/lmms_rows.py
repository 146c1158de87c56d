"""Rows of public data sets, made by hand in their own columns, as lmms-eval's tasks read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

Row = dict[str, Any]
ROWS = 24
WORDS = (
    "yes",
    "No.",
    "Yes, there is.",
    "y",
    "A",
    "b",
    "(C)",
    "D.",
    "A. a cat",
    "The answer is B.",
    "a cat",
    "two",
    "2",
    "",
    " \n",
    "14.2 %",
    "1,000",
    "unanswerable",
    "nokia\n\nThe phone is a nokia.",
    "yes\n\nno",
    "B ASSISTANT: C",
    "<think>A or B?</think>C",
    "I cannot see it",
    "Answer: Downhill",
    "\N{FULLWIDTH DIGIT FOUR}",
    "e" * 300,
)


def picture(index: int, mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (20 + index % 5, 16), (index * 9 % 256, 80, index * 40 % 256)).convert(mode)


def letters(index: int) -> str:
    return "ABCD"[index % 4]


def ten(index: int) -> list[str]:
    return ["two"] * (index % 5) + ["2"] * (3 - index % 3) + ["a cat"] * 5


@dataclass(frozen=True)
class Case:
    """A task, rows in its columns, and which of them are images.

    Attributes:
        row: Number -> row; images as PIL images.
        images: Columns with one image.
        lists: Columns with a list of images.
        options: Of our benchmark.
        points: Metrics that are no fractions.
    """

    row: Callable[[int], Row]
    images: tuple[str, ...] = ("image",)
    lists: tuple[str, ...] = ()
    options: Mapping[str, Any] | None = None
    points: tuple[str, ...] = ()


def pope(i: int) -> Row:
    return {
        "id": str(i),
        "question_id": str(i),
        "question": f" Is there a cat {i}? ",
        "answer": ["yes", "no"][i % 2],
        "image_source": "COCO",
        "image": picture(i),
        "category": ["adversarial", "random"][i // 3 % 2],
    }


def mme(i: int) -> Row:
    kind = ["existence", "code_reasoning", "OCR"][i // 2 % 3]
    return {
        "question_id": f"{kind}/{i // 2}.png",
        "image": picture(i),
        "answer": ["Yes", "No"][i % 2],
        "question": f"Is it {i}? Please answer yes or no.",
        "category": kind,
    }


def ai2d(i: int) -> Row:
    return {
        "question": f"Which part is {i}?",
        "options": ["a cat", "two", "leaf", "root"],
        "answer": str(i % 4),
        "image": picture(i, "L"),
    }


def scienceqa(i: int) -> Row:
    return {
        "image": None if i % 3 == 0 else picture(i),
        "question": f"Which is {i}?",
        "hint": ["", "Look."][i % 2],
        "choices": ["a cat", "two", "leaf"][: 2 + i % 2],
        "answer": i % 2,
        "task": "closed choice",
        "grade": "grade2",
        "subject": "natural science",
    }


def textvqa(i: int) -> Row:
    return {
        "image_id": f"{i:x}",
        "question_id": i,
        "question": "what is WRITTEN?",
        "image": picture(i),
        "ocr_tokens": ["NOKIA"],
        "answers": ["nokia"] * 6 + ten(i)[:4],
    }


def chartqa(i: int) -> Row:
    return {
        "type": ["human_test", "augmented_test"][i % 2],
        "question": f"How tall {i}?",
        "image": picture(i),
        "answer": ["14.2", "1000", "Yes", "2"][i % 4],
    }


def docvqa(i: int) -> Row:
    return {
        "questionId": str(i),
        "question": "What is the brand?",
        "question_types": ["form"],
        "image": picture(i),
        "docId": i,
        "answers": [["nokia"], ["two", "2"], ["Downhill"]][i % 3],
    }


def realworldqa(i: int) -> Row:
    question = "Which?\nA. a cat\nB. two\nPlease answer directly with only the letter of the correct option."
    return {"image": picture(i), "question": question, "answer": [letters(i), "2", "Downhill"][i % 3]}


def mmmu(i: int) -> Row:
    choice = i % 3 > 0
    question = "Compare <image 1> with <image 2>: which?" if i % 2 else "What does <image 1> show?"
    subject = ["Art", "Biology"][i % 2]
    return {
        "id": f"validation_{subject}_{i}",
        "question": question,
        "explanation": "",
        "options": "['a cat', 'two', 'leaf', 'root']" if choice else "[]",
        "answer": letters(i) if choice else "2",
        "image_1": picture(i),
        "image_2": picture(i + 50) if i % 2 else None,
        "image_3": None,
        "img_type": "['Diagrams']",
        "topic_difficulty": "Easy",
        "question_type": "multiple-choice" if choice else "open",
        "subfield": "x",
    }


def seedbench(i: int) -> Row:
    kind = ["image", "video"][i % 4 == 3]
    return {
        "answer": letters(i),
        "choice_a": "a cat",
        "choice_b": "two",
        "choice_c": "leaf",
        "choice_d": "root",
        "data_id": str(i),
        "data_type": kind,
        "question": "What is it?",
        "question_id": str(i),
        "question_type_id": 1,
        "image": [picture(i + k) for k in range(1 if kind == "image" else 3)],
    }


def gqa(i: int) -> Row:
    return {
        "id": str(i),
        "imageId": f"n{i}",
        "question": "Is it a cat?",
        "answer": ["yes", "a cat", "two"][i % 3],
        "fullAnswer": "x",
        "image": picture(i),
    }


def vqav2(i: int) -> Row:
    given = [{"answer": text, "answer_confidence": "yes", "answer_id": k} for k, text in enumerate(ten(i))]
    return {
        "question_type": "how many",
        "multiple_choice_answer": "two",
        "answers": given,
        "image_id": i,
        "answer_type": "number",
        "question_id": i,
        "question": "How many?",
        "image": picture(i),
    }


def okvqa(i: int) -> Row:
    return {
        "question_id": str(i),
        "image": picture(i),
        "question": "How many?",
        "answers": ten(i),
        "question_type": "one",
        "answer_type": "other",
    }


def vizwiz(i: int) -> Row:
    return {
        "question_id": f"V_{i}",
        "image": picture(i),
        "question": "what's this?",
        "answers": ten(i),
        "category": ["answerable", "unanswerable"][i % 2],
    }


def mmstar(i: int) -> Row:
    kinds = (("coarse perception", "image emotion"), ("math", "geometry"), ("math", "numeric commonsense"))
    category, finer = kinds[i % 3]
    return {
        "index": i,
        "question": "Which?\nOptions: A: a cat, B: two",
        "image": picture(i),
        "answer": letters(i),
        "category": category,
        "l2_category": finer,
        "meta_info": {"source": "x"},
    }


def ocrbench(i: int) -> Row:
    kinds = ("Regular Text Recognition", "Key Information Extraction")
    return {
        "dataset": ["IIIT5K", "HME100k"][i % 2],
        "question": "what is written?",
        "question_type": kinds[i % 2],
        "answer": [["nokia", "2"], ["1,000"], ["yes"]][i % 3],
        "image": picture(i),
    }


def muirbench(i: int) -> Row:
    return {
        "idx": str(i),
        "task": ["Counting", "Ordering"][i % 2],
        "image_relation": "x",
        "image_type": "x",
        "question": "Where? <image> or <image>",
        "options": ["<image>", "two", "leaf", "root"],
        "answer": letters(i),
        "image_list": [picture(i + k) for k in range(2)],
    }


def blink(i: int) -> Row:
    return {
        "idx": f"val_{i}",
        "question": "How many?",
        "sub_task": "Counting",
        "choices": ["a", "b", "c", "d"],
        "image_1": picture(i),
        "image_2": picture(i + 1) if i % 2 else None,
        "image_3": None,
        "image_4": None,
        "answer": f"({letters(i)})",
        "prompt": "How many?\n(A) a\n(B) b",
        "explanation": "",
    }


CASES = {
    "pope": Case(pope),
    "mme": Case(mme, points=("mme_perception_score", "mme_cognition_score")),
    "ai2d": Case(ai2d),
    "scienceqa": Case(scienceqa),
    "scienceqa_img": Case(lambda i: scienceqa(3 * i + 1)),
    "textvqa_val": Case(textvqa),
    "chartqa": Case(chartqa),
    "docvqa_val": Case(docvqa),
    "infovqa_val": Case(docvqa),
    "realworldqa": Case(realworldqa),
    "mmmu_val": Case(mmmu, images=("image_1", "image_2", "image_3")),
    "seedbench": Case(seedbench, images=(), lists=("image",)),
    "gqa": Case(gqa, options={"processed": True}),
    "vqav2_val": Case(vqav2),
    "ok_vqa_val2014": Case(okvqa),
    "vizwiz_vqa_val": Case(vizwiz),
    "mmstar": Case(mmstar),
    "ocrbench": Case(ocrbench),
    "muirbench": Case(muirbench, images=(), lists=("image_list",)),
    "blink_counting": Case(blink, images=("image_1", "image_2", "image_3", "image_4")),
}
