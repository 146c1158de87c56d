"""`stic-eval cp`: a method or benchmark that there is, as a file of one's own to vary."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from importlib.util import resolve_name
from pathlib import Path
from typing import Annotated, Any

from stic_eval.cli.new import Force, Kind, as_theirs, check_name, here, tell, write
from stic_eval.flags import Argument, Flag
from stic_eval.printable import printable


def cp(
    kind: Annotated[Kind, Argument("method or benchmark.")],
    name: Annotated[str, Argument("What to copy, e.g. stic.")],
    to: Annotated[Path, Argument("Folder to write into, or `NAME.py` in it.")] = Path("."),
    called: Annotated[str | None, Flag("Name of the copy.", "my_<name>", "NAME", names="--as")] = None,
    force: Force = False,
) -> None:
    """Copy a method or benchmark to a file of your own, under a new name, to change it."""
    from stic_eval import plugins, registry
    from stic_eval.errors import UserError

    if to.suffix == ".py" and not to.is_dir():
        if called not in (None, to.stem):
            raise UserError(f"--as {called}: {to} gives another name; leave one of them out")
        to, called = to.parent, to.stem
    known: Any = registry.methods() if kind == "method" else registry.benchmarks()
    thing = known.get(name)
    own = called or f"my_{re.sub(r'[^A-Za-z0-9_]', '_', thing.name)}"
    file = to / f"{own}.py"
    check_name(kind, own, file, f"cp {kind} {name}")
    made_by = thing.plan if kind == "method" else thing.to_sample
    source = inspect.getsourcefile(inspect.unwrap(getattr(made_by, "func", made_by)))
    if source is None or registry.of_family(name):
        raise UserError(f"cp {kind} {name}: it has no file of its own to copy")
    try:
        text = copy_as(
            Path(source).read_text(encoding="utf-8"), kind, thing, own, _presets(kind, thing), made_by
        )
    except ValueError as error:
        raise UserError(f"cp {kind} {name}: {source}: {error}; copy that file by hand") from error
    before = file.read_bytes() if force and file.is_file() else None
    write(to, {file.name: text}, force)
    try:
        plugins.forget()  # of the file that was there before
        known.get(str(file))
    except UserError:  # nothing that does not work is left behind
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)
        raise
    path = here(shlex.quote(str(file)))
    print(printable(f"wrote {file}: {source} as {own}") + "\n\nnext, on the built-in model:")
    if kind == "method":
        tell(
            f"stic-eval run --method {path} --method {shlex.quote(thing.name)}  # side by side",
            f"stic-eval show {path}",
        )
    else:
        tell(
            f"stic-eval eval --benchmarks {path},{shlex.quote(thing.name)}  # side by side",
            f"stic-eval show {path}",
        )


def _presets(kind: Kind, thing: Any) -> dict[str, Any]:
    """What presets say about a method: their own files, else the method."""
    from stic_eval import config_layers

    if kind == "benchmark":
        return {}
    found = {name: dict(options) for name, options in thing.presets.items()}
    for preset in config_layers.preset_names():
        options = (config_layers.read_preset(preset).get("method_options") or {}).get(thing.name)
        if options:
            found[preset] = options
    return found


def copy_as(text: str, kind: str, thing: Any, own: str, presets: Mapping[str, Any], made_by: Any) -> str:
    """Copies the text of a method's or benchmark's file under another name, without its other methods.

    Args:
        text: Of the original.
        kind: `method` or `benchmark`.
        thing: The original.
        own: The copy's name.
        presets: Preset -> options of a method.
        made_by: A function of the original's module.

    Raises:
        ValueError: How the original gets its name cannot be seen in the text.
    """
    tree = ast.parse(text)
    edits = _Edits(text)
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and _callee(node) == kind.capitalize()
    ]
    mine = [call for call in calls if _text(tree, _argument(call, 0, "name")) == thing.name]
    if not mine:
        raise ValueError(f'no {kind.capitalize()}(name="{thing.name}", ...) can be seen in it')
    for call in mine:
        edits.put(_constant(tree, _argument(call, 0, "name")), json.dumps(own))
        title = _constant(tree, _argument(call, 1, "title"))
        if title is not None and isinstance(title.value, str):
            edits.put(title, json.dumps(f"{title.value} ({own})", ensure_ascii=False))
        if kind == "benchmark" and not any(keyword.arg == "rows_like" for keyword in call.keywords):
            edits.add(call, f"rows_like={json.dumps(thing.rows_like or thing.name)}")
    if kind == "method":
        _drop_other_methods(tree, mine[0], edits)
        if presets and presets != thing.presets:
            _with_presets(tree, mine[0], presets, edits)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = made_by.__module__.rpartition(".")[0]
            module = resolve_name("." * node.level + (node.module or ""), package)
            names = ", ".join(f"{a.name} as {a.asname}" if a.asname else a.name for a in node.names)
            edits.put(node, f"from {module} import {names}")
    header = f"# A copy of the {kind} {thing.name}, to vary. Its name is {own}.\n"
    return as_theirs(re.sub(r"\n{4,}", "\n\n\n", header + edits.apply()))


class _Edits:
    """Changes of a text, by nodes of its tree."""

    def __init__(self, text: str) -> None:
        self._bytes = text.encode()
        lines = self._bytes.splitlines(keepends=True)
        self._starts = [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]
        self._found: dict[tuple[int, int], str] = {}

    def _at(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column

    def put(self, node: Any, text: str) -> None:
        """Puts another text in a node's place."""
        span = self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)
        self._found[span] = text

    def add(self, call: ast.Call, argument: str) -> None:
        """Adds an argument to a call."""
        last = max(
            [*call.args, *(k.value for k in call.keywords)],
            key=lambda node: (node.end_lineno, node.end_col_offset),
        )
        at = self._at(last.end_lineno or 0, last.end_col_offset or 0)
        given: list[Any] = [*call.args, *call.keywords]
        first = min(given, key=lambda node: (node.lineno, node.col_offset))
        gap = f",\n{' ' * first.col_offset}" if first.lineno != call.lineno else ", "
        self._found[at, at] = gap + argument

    def before(self, node: ast.stmt, text: str) -> None:
        """Puts a text in front of a statement."""
        at = self._at(node.lineno, 0)
        self._found[at, at] = text

    def drop(self, node: ast.stmt) -> None:
        """Takes whole statements away."""
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        self._found[self._at(first, 0), self._starts[node.end_lineno or first]] = ""

    def apply(self) -> str:
        """The text after all changes."""
        found = self._bytes
        for (start, end), text in sorted(self._found.items(), reverse=True):
            found = found[:start] + text.encode() + found[end:]
        return found.decode()


def _callee(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _argument(call: ast.Call, place: int, name: str) -> ast.expr | None:
    named = next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
    return named or (call.args[place] if len(call.args) > place else None)


def _constant(tree: ast.Module, node: ast.expr | None) -> ast.Constant | None:
    """What an argument is: itself, or the constant of the module that it names."""
    if isinstance(node, ast.Name):
        node = next((s.value for s in tree.body if isinstance(s, ast.Assign) and _target(s) == node.id), None)
    return node if isinstance(node, ast.Constant) else None


def _text(tree: ast.Module, node: ast.expr | None) -> Any:
    found = _constant(tree, node)
    return found.value if found else None


def _target(node: ast.stmt) -> str:
    """The one name that a statement of a module gives a value; empty if it does not."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
        return node.name
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else ""


def _statement(tree: ast.Module, call: ast.Call) -> ast.Assign:
    """The statement that gives a call's result a name."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.value is call and _target(node):
            return node
    raise ValueError("the method is not made by a statement `method = Method(...)`")


def _drop_other_methods(tree: ast.Module, mine: ast.Call, edits: _Edits) -> None:
    """Names a method `method`, and drops other methods with whatever only they used."""
    own_statement = _statement(tree, mine)
    edits.put(own_statement.targets[0], "method")
    others = [
        node for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and node is not own_statement
        and _callee(node.value) == "Method"
    ]  # fmt: skip
    dropped: list[ast.stmt] = list(others)
    while True:
        rest = [node for node in tree.body if node not in dropped]
        wanted = {name for node in dropped for name in _names(node)}
        free = [
            node for node in rest
            if (own := _target(node)) in wanted
            and not any(own in _names(other) for other in rest if other is not node)
        ]  # fmt: skip
        if not free:
            break
        dropped += free
    for node in dropped:
        edits.drop(node)


def _names(node: ast.AST) -> Iterator[str]:
    return (part.id for part in ast.walk(node) if isinstance(part, ast.Name))


def _with_presets(tree: ast.Module, mine: ast.Call, presets: Mapping[str, Any], edits: _Edits) -> None:
    """Writes what presets say about the method into the file."""
    text = (
        "# Options under presets (`--preset`; `pocket` for the embedded model), as the original has them.\n"
    )
    edits.before(_statement(tree, mine), f"{text}PRESETS = {_literal(presets)}\n\n")
    old = _argument(mine, 6, "presets")
    if old is not None:
        edits.put(old, "PRESETS")
    else:
        edits.add(mine, "presets=PRESETS")


def _literal(value: Any, indent: int = 0) -> str:
    """A value as Python source, over several lines where one would be too long."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if not isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    parts = [f"{json.dumps(str(key))}: {_literal(item, indent + 4)}" for key, item in value.items()]
    line = "{" + ", ".join(parts) + "}"
    if "\n" not in line and indent + len(line) < 90:
        return line
    inner = "".join(f"{' ' * (indent + 4)}{part},\n" for part in parts)
    return "{\n" + inner + " " * indent + "}"
