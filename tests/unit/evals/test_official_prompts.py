"""The official judge prompts are lmms-eval's, to the byte, without running any of its code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stic_eval.contracts.benchmark import Unreadable
from stic_eval.errors import UserError
from stic_eval.evals import official_prompts

pytest.importorskip("lmms_eval")

ANSWERS = ("a cat", "", " spaces \n", "{question} {} %s", "line\nbreak | 1.0 |", 'ünï {0} 猫 \\n "q"')


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    official_prompts._text.cache_clear()
    yield
    official_prompts._text.cache_clear()


@pytest.fixture
def lmms(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a task module of lmms-eval, whose judge clients want some key at import."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    return lambda name: importlib.import_module(f"lmms_eval.tasks.{name}")


@pytest.mark.parametrize("answer", ANSWERS)
def test_mmvet(lmms: Any, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    module, asked = lmms("mmvet.utils"), []

    def chat(prompt: str, **_: Any) -> tuple[str, str]:
        asked.append(prompt)
        return "0.5", "m"

    monkeypatch.setattr(module, "get_chat_response", chat)
    row = {"question_id": "q", "question": "What is x?", "answer": "-1<AND>-5<OR>3", "capability": "ocr,math"}
    module.mmvet_process_results(row, [answer])
    assert asked == [official_prompts.mmvet_prompt(row["question"], row["answer"], answer)]


@pytest.mark.parametrize("category", ["conv", "detail", "complex"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_llava_bench(lmms: Any, monkeypatch: pytest.MonkeyPatch, category: str, answer: str) -> None:
    module, asked = lmms("llava-in-the-wild.utils"), []

    def pipeline(**given: Any) -> SimpleNamespace:
        asked.append(given["content"])
        return SimpleNamespace(raw_output="8 9", metadata={"scores": [8, 9]})

    monkeypatch.setattr(module, "_get_pipeline", lambda: pipeline)
    row = {"question": "What?", "gpt_answer": "A {cat}.", "caption": ["one", "two"], "category": category}
    module.llava_process_results(row, [answer])
    ours = official_prompts.llava_bench_prompt(
        category, "one\ntwo", row["question"], row["gpt_answer"], answer
    )
    assert asked == [ours]
    assert ours == official_prompts.llava_bench_prompt(
        f"llava_bench_{category}", "one\ntwo", "What?", "A {cat}.", answer
    )


@pytest.mark.parametrize("answer", [a for a in ANSWERS if a])
def test_mathvista(lmms: Any, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    module, asked = lmms("mathvista.utils"), []

    def chat(prompt: str, **_: Any) -> str:
        asked.append(prompt)
        return "14"

    monkeypatch.setattr(module.mathvista_evaluator, "get_chat_response", chat)
    row = {
        "pid": "1", "question_type": "free_form", "answer_type": "integer", "query": "Hint: {}\nQuestion: x?",
        "choices": [], "answer": "14", "precision": 0, "metadata": {},
    }  # fmt: skip
    module.mathvista_process_results(row, [answer])
    assert asked == [official_prompts.mathvista_prompt(row["query"], answer)]


@pytest.mark.parametrize(
    "options", [{"A": "a cat", "B": "a {dog}"}, {"A": "1", "B": "2", "C": "3", "D": "4"}]
)
@pytest.mark.parametrize("answer", ANSWERS)
def test_mmbench(lmms: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], answer: str) -> None:
    module, asked = lmms("mmbench.mmbench_evals"), []
    evaluator = module.MMBench_Evaluator()

    def chat(prompt: str) -> str:
        asked.append(prompt)
        return "A"

    monkeypatch.setattr(evaluator, "get_chat_response", chat)
    monkeypatch.setattr(evaluator, "can_infer", lambda text, choices: "A" if text == "A" else False)
    row = {letter: options.get(letter, float("nan")) for letter in "ABCD"}
    evaluator.extract_answer_from_item({**row, "question": "What is it", "prediction": answer.strip()})
    assert asked == [official_prompts.mmbench_prompt("What is it", options, answer)]


def test_the_published_matcher_knows_no_fifth_option() -> None:
    with pytest.raises(Unreadable):
        official_prompts.mmbench_prompt("What?", dict.fromkeys("ABCDE", "x"), "y")


def test_a_category_without_a_rule() -> None:
    with pytest.raises(UserError, match="category"):
        official_prompts.llava_bench_prompt("poem", "", "q", "a", "b")


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official_prompts, "installed_version", lambda: None)
    assert not official_prompts.available()
    with pytest.raises(
        UserError, match=r"lmms-eval is not installed; `pip install --no-deps lmms-eval==0\.7\.3`"
    ):
        official_prompts.mmvet_prompt("q", "a", "r")


def test_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official_prompts, "installed_version", lambda: "0.9.9")
    assert not official_prompts.available()
    with pytest.raises(UserError, match=r"lmms-eval 0\.9\.9 is installed"):
        official_prompts.require()


@pytest.mark.parametrize(
    "text", [None, "MM_VET_PROMPT = 'other words'", "nothing = 1", "def broken(", "MM_VET_PROMPT = 3"]
)
def test_texts_that_are_not_those(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "mmvet").mkdir()
        (tmp_path / "mmvet" / "utils.py").write_text(text)
    monkeypatch.setattr(official_prompts, "task_folder", lambda: tmp_path)
    with pytest.raises(UserError, match=r"mmvet/utils\.py") as error:
        official_prompts.mmvet_prompt("q", "a", "r")
    assert "\n" not in str(error.value)


def test_lmms_eval_is_read_but_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "lmms_eval"]:
        monkeypatch.delitem(sys.modules, name)
    assert official_prompts.available()
    official_prompts.mmvet_prompt("q", "a", "r")
    official_prompts.llava_bench_prompt("conv", "", "q", "a", "r")
    official_prompts.mathvista_prompt("q", "r")
    official_prompts.mmbench_prompt("q", {"A": "x"}, "r")
    assert "lmms_eval" not in sys.modules
