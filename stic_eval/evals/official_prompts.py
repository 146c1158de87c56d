"""The judge prompts that the benchmarks published, read at run time from the installed lmms-eval.

Its files are parsed, never imported or executed, and the long texts are not copied into this project.
Each text is checked by its digest, so that `official@lmms-eval-0.7.3` always means the same words.
Nothing is read before the first prompt is built.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from stic_eval.contracts.benchmark import Unreadable
from stic_eval.errors import UserError
from stic_eval.plugin_code import literals

PACKAGE = "lmms-eval"
VERSION = "0.7.3"
PROTOCOL = f"official@{PACKAGE}-{VERSION}"

_INSTALL = f"`pip install --no-deps {PACKAGE}=={VERSION}`, or choose --judge-protocol stic-eval-1"

# Text -> the file below lmms_eval/tasks that holds it, and the first digits of its sha256.
_TEXTS = {
    "mmvet": ("mmvet/utils.py", "4d9b806e960fcd3f"),
    "llava_bench": ("llava-in-the-wild/rule.json", "87371ff8e65017d0"),
    "mathvista": ("mathvista/mathvista_evals.py", "a231722ced09cbd1"),
    "mmbench": ("mmbench/mmbench_evals.py", "e9d2a64105ded9b6"),
}


def installed_version() -> str | None:
    """The version of lmms-eval that is installed, without importing it; None: it is not."""
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    try:
        return version(PACKAGE) if find_spec("lmms_eval") else None
    except PackageNotFoundError:
        return None


def lack() -> str:
    """What is needed and not there; empty where the one version that everything here is for is installed."""
    found = installed_version()
    has = f"{PACKAGE} {found} is installed" if found else f"{PACKAGE} is not installed"
    return "" if found == VERSION else f"needs {PACKAGE} {VERSION}, {has}"


def available() -> bool:
    """Whether the official texts are available: the one version that they are defined by is installed."""
    return installed_version() == VERSION


def require() -> None:
    """Makes sure that the official texts are available.

    Raises:
        UserError: lmms-eval is not installed, or another version of it.
    """
    if lacking := lack():
        raise UserError(f"--judge-protocol official: {lacking}; {_INSTALL}")


def mmvet_prompt(question: str, answer: str, response: str) -> str:
    """MM-Vet's grader: instructions with examples, then a table row whose last cell is to be filled.

    Args:
        answer: Its ground truth, parts joined by `<AND>` or `<OR>`.

    Returns:
        What lmms-eval asks, which bounds the reply to 128 tokens. Read it with `verdicts.fraction`.

    Raises:
        UserError: The text is not available.
    """
    truth = answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    return f"{_text('mmvet')}\n{question} | {truth} | {response} |"


def llava_bench_prompt(category: str, context: str, question: str, reference: str, response: str) -> str:
    """LLaVA-Bench's comparison of the reference answer (Assistant 1) with ours (Assistant 2).

    Args:
        category: `conv`, `detail` or `complex`, with or without `llava_bench_` before it.
        context: The row's captions, joined by line breaks.

    Returns:
        What lmms-eval asks, which bounds the reply to 1024 tokens. Read it with `verdicts.score_pair`.

    Raises:
        UserError: The text is not available, or has no rule for the category.
    """
    rules = json.loads(_text("llava_bench"))
    rule = rules.get("llava_bench_" + category.removeprefix("llava_bench_"))
    if rule is None:
        raise UserError(f'column "category": {category!r} has no judge prompt; conv, detail and complex have')
    role = rule["role"]
    blocks = [f"[Context]\n{context}", f"[Question]\n{question}"]
    for number, text in ((1, reference), (2, response)):
        blocks += [f"[{role} {number}]\n{text}", f"[End of {role} {number}]"]
    return "\n\n".join([*blocks, f"[System]\n{rule['prompt']}", ""])


def mathvista_prompt(query: str, response: str) -> str:
    """MathVista's extraction of the final answer, with the authors' demonstrations.

    Args:
        query: The row's `query`: hint, question and choices.
        response: The answer to extract from; blanks around it are cut as lmms-eval does.

    Returns:
        What lmms-eval asks, which bounds the reply to 256 tokens. Read it with `verdicts.extraction`.

    Raises:
        UserError: The text is not available.
    """
    return f"{_text('mathvista').strip()}\n\n{query}\n\n{response.strip()}\n\nExtracted answer: "


def mmbench_prompt(question: str, options: Mapping[str, str], response: str) -> str:
    """MMBench's matcher: which option is meant, `E` if none.

    Args:
        options: Letter -> text, `A` to `D` at most.
        response: The answer to match; blanks around it are cut as lmms-eval does.

    Returns:
        What lmms-eval asks, which bounds the reply to 256 tokens. Read it with
        `verdicts.letter(reply, [*options, "E"])`.

    Raises:
        Unreadable: There are options beyond D, where the published text's `E` means none: ask in
            the project's own words instead.
        UserError: The text is not available.
    """
    if not set(options) <= set("ABCD"):
        raise Unreadable("the published matcher knows four options at most")
    listed = "There are several options: \n" + "".join(f"{c}. {options[c]}\n" for c in sorted(options))
    return _text("mmbench").format(question, listed, response.strip())


# ---------------------------------------------------------------- the texts


@cache
def _text(name: str) -> str:
    require()
    file, digest = _TEXTS[name]
    try:
        source = (task_folder() / file).read_text(encoding="utf-8")
        text = _READERS[name](source)
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, StopIteration) as error:
        raise UserError(f"{PACKAGE}: no judge prompt in tasks/{file} ({error}); {_INSTALL}") from error
    if hashlib.sha256(text.encode()).hexdigest()[:16] != digest:
        raise UserError(f"{PACKAGE}: tasks/{file} is not that of version {VERSION}; {_INSTALL}")
    return text


def task_folder() -> Path:
    """Where lmms-eval has its tasks; nothing of it is imported."""
    from importlib.util import find_spec

    spec = find_spec("lmms_eval")  # of a top-level package: looks for it, imports nothing
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise FileNotFoundError("the package lmms_eval has no folder")
    return Path(places[0]) / "tasks"


def _assignment_reader(variable: str) -> Callable[[str], str]:
    """A function that reads the string which a source file assigns to a variable, anywhere in the file."""

    def read(source: str) -> str:
        for name, text in literals(source):
            if name == variable and isinstance(text, str):
                return text
        raise ValueError(f"nothing is assigned to {variable}")

    return read


def _rules(source: str) -> str:
    rules = json.loads(source)
    names = [f"llava_bench_{category}" for category in ("conv", "detail", "complex")]
    return json.dumps({name: rules[name] for name in names}, sort_keys=True)


_READERS: dict[str, Callable[[str], str]] = {
    "mmvet": _assignment_reader("MM_VET_PROMPT"),
    "llava_bench": _rules,
    "mathvista": _assignment_reader("DEMO_PROMPT"),
    "mmbench": _assignment_reader("tmpl"),
}
