"""`stic-eval new`: a method or a benchmark of one's own, working and commented, and its test."""

from __future__ import annotations

import ast
import keyword
import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from stic_eval.flags import Argument, Flag
from stic_eval.printable import printable

Kind = Literal["method", "benchmark"]
Force = Annotated[bool, Flag("Overwrite Python files that exist; rows and images are kept.")]

_ROWS = 2  # of each kind of embedded picture


def new(
    kind: Annotated[Kind, Argument("method or benchmark.")],
    name: Annotated[str, Argument("Its name: letters, digits and _.")],
    to: Annotated[Path, Flag("Folder to write into.", names="--output --to")] = Path("."),
    force: Force = False,
) -> None:
    """Write a working, commented method or benchmark in one file, with its test."""
    from importlib.resources import files

    check_name(kind, name, to / f"{name}.py", f"new {kind} {name}")
    templates = files("stic_eval.templates")
    texts = {
        f"{name}.py": (templates / f"{kind}.py").read_text(encoding="utf-8"),
        f"test_{name}.py": (templates / f"{kind}_test.py").read_text(encoding="utf-8"),
    }
    title = name.replace("_", " ").strip().capitalize()
    contents: dict[str, str | bytes] = {
        file: as_theirs(text.replace(f"my_{kind}", name).replace(f"My {kind}", title))
        for file, text in texts.items()
    }
    if kind == "benchmark":
        rows_there = (to / f"{name}.jsonl", to / f"{name}_images")
        # By now they may be somebody's own.
        contents |= {} if force and any(path.exists() for path in rows_there) else _rows(name)
    write(to, contents, force)
    file, test = (shlex.quote(str(to / part)) for part in (f"{name}.py", f"test_{name}.py"))
    # Of pictures their folder alone.
    written = (f"{Path(path).parent}/" if path.endswith(".png") else path for path in contents)
    for path in dict.fromkeys(written):
        print(printable(f"wrote {to / path}{'/' * path.endswith('/')}"))
    print("\nnext, on the built-in model:")
    if kind == "method":
        tell(
            f"stic-eval run --method {here(file)} --benchmarks chartqa --limit 2 -o stage1.images=4",
            f"stic-eval run --method {here(file)}",
            f"python -m pytest {test}",
        )
    else:
        rows = shlex.quote(str(to / f"{name}.jsonl"))
        tell(
            f"stic-eval data check {here(file)} --from {rows}",
            f"stic-eval eval --benchmarks {here(file)} -o rows.{name}={rows}",
            f"python -m pytest {test}",
        )


def here(path: str) -> str:
    """A path as it is typed, so that one in the working directory cannot be taken for a name."""
    return path if re.match(r"['/~.\\]", path) else f"./{path}"


def tell(*commands: str) -> None:
    """Prints commands to be copied."""
    for command in commands:
        print(f"  {command}")


def check_name(kind: str, name: str, file: Path, where: str) -> None:
    """Refuses a name that could not be used.

    Args:
        kind: `method` or `benchmark`.
        name: The name.
        file: What is to be written; that it has the name already is no collision.
        where: The command, for messages.

    Raises:
        UserError: Says why, and what to do.
    """
    from stic_eval import plugins, registry
    from stic_eval.errors import UserError

    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or keyword.iskeyword(name):
        raise UserError(f"{where}: {name!r} cannot be a name: give letters, digits and _, a letter first")
    if why := plugins.why_reserved(kind, name):
        raise UserError(f'{where}: "{name}", {why}, cannot be a name; give another one')
    if name in sys.stdlib_module_names or name in ("conftest", "stic_eval") or name.startswith("test_"):
        raise UserError(f"{where}: {name}.py would be mistaken for something else; give another name")
    known = registry.methods() if kind == "method" else registry.benchmarks()
    taken = known.file(name)
    if name in known.names() and taken != plugins.absolute(file):
        by = f"in {plugins.display_path(taken)}" if taken else "installed"
        raise UserError(f'{where}: there is a {kind} called "{name}" already ({by}); give another name')


def write(folder: Path, contents: dict[str, str | bytes], force: bool) -> None:
    """Writes files into a folder; all or, where one already exists and is to be kept, none.

    Raises:
        UserError: One is there, or cannot be written.
    """
    from stic_eval.errors import UserError, write_failure
    from stic_eval.store import atomic_write

    there = [name for name in contents if (folder / name).exists()]
    if there and not force:
        raise UserError(f"{folder / there[0]}: already exists; give another name, or --force to overwrite it")
    try:
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            atomic_write(folder / name, content)
    except OSError as error:
        raise write_failure(folder, error) from error


def as_theirs(text: str) -> str:
    """A file's text with imports in the order of a project of which stic_eval is no part.

    There it is a library like pydantic, and stands in one block with it; here a blank line parts them.
    """
    imports = [node for node in ast.parse(text).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    lines = text.splitlines(keepends=True)
    for before, node in pairwise(imports):
        library = _package(before) not in {*sys.stdlib_module_names, "stic_eval"}
        between = lines[before.end_lineno : node.lineno - 1]
        if library and _package(node) == "stic_eval" and not "".join(between).strip():
            del lines[before.end_lineno : node.lineno - 1]
            break
    return "".join(lines)


def _package(node: ast.Import | ast.ImportFrom) -> str:
    name = (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
    return name.partition(".")[0]


def _rows(name: str) -> dict[str, str | bytes]:
    """A few rows to begin with, of the embedded world, and their images."""
    import io
    import json

    from stic_eval.pocket.rows import benchmark_rows

    lines: list[str] = []
    contents: dict[str, str | bytes] = {}
    for kind, source in (("sign", "textvqa"), ("chart", "chartqa")):
        for row in benchmark_rows(source)[:_ROWS]:
            number = len(lines) + 1
            image = f"{name}_images/{number}.png"
            drawn = io.BytesIO()
            row["image"].load().save(drawn, format="PNG")
            answers = list(dict.fromkeys(row["answers"])) if "answers" in row else [row["answer"]]
            answers = [answer for answer in answers if answer != "unanswerable"]
            line = {
                "id": str(number),
                "image": image,
                "question": row["question"],
                "answer": answers,
                "kind": kind,
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
            contents[image] = drawn.getvalue()
    return {f"{name}.jsonl": "".join(lines), **contents}
