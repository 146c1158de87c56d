"""The part of a plug-in's code that a result depends on, as content: for keys of what is cached.

This program's own code has versions. A plug-in's has none that could be relied on while somebody works on it.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from types import CodeType
from typing import Any

from pydantic import BaseModel

from stic_eval.store import content_key, file_sha256

OWN = "stic_eval"
_FILES = 100  # of a package that is somebody's plug-in; a larger one is a library


def foreign(*functions: Any) -> list[str]:
    """Content of the functions that are no part of this program, in no particular order but always the same.

    Of a function in a file that is the file's content, of one in a package that of all of the package's
    modules, of one that was typed in that of its compiled code, and of what this names beside it. Values that
    are bound to it, by `partial` or in a closure, count as far as they are data.

    Args:
        functions: Functions, classes, or objects that are called; None for those that are not given.
    """
    return sorted({key for function in functions if function is not None for key in _keys(function)})


def _keys(function: Any) -> list[str]:
    bound: list[Any] = []
    while isinstance(function, partial):
        bound += [function.args, function.keywords]
        function = function.func
    if not hasattr(function, "__code__") and not inspect.isclass(function):
        bound.append(getattr(function, "__dict__", {}))
        function = getattr(function, "__func__", type(function))
    # A function of ours may have been given one of theirs.
    keys = [key for value in bound for key in _keys_in(value)]
    if str(getattr(function, "__module__", "")).partition(".")[0] != OWN:
        # Lists and mappings in a closure may be a count of calls, say, and not what it was made with.
        cells = [cell_content(cell) for cell in getattr(function, "__closure__", None) or ()]
        cells = [None if isinstance(value, (list, dict, set)) else value for value in cells]
        defaults = getattr(function, "__defaults__", None)
        keys.append(content_key([_text(function), _data(bound), _data(cells), _data(defaults)]))
    return keys


def _keys_in(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [key for part in value for key in _keys_in(part)]
    if isinstance(value, dict):
        return [key for part in value.values() for key in _keys_in(part)]
    return _keys(value) if inspect.isroutine(value) or isinstance(value, partial) else []


def _text(function: Any) -> Any:
    """The code that a function is part of."""
    name = str(getattr(function, "__module__", "")).partition(".")[0]
    package = getattr(sys.modules.get(name), "__path__", None)
    modules = (file for folder in package or () for file in Path(folder).rglob("*.py"))
    files = list(islice(modules, _FILES + 1))
    if 0 < len(files) <= _FILES:
        return [file_sha256(file) for file in sorted(files)]
    try:
        return file_sha256(inspect.getsourcefile(function) or "")
    except (TypeError, OSError):  # typed into an interpreter or a notebook
        return _typed(function, set()) or getattr(function, "__qualname__", "")


def _typed(function: Any, seen: set[str]) -> Any:
    """What typed code does, with the functions and data of its module that it names."""
    code, found = getattr(function, "__code__", None), {}
    if isinstance(code, CodeType):
        for name in sorted(_names(code) & function.__globals__.keys() - seen):
            seen.add(name)
            value = function.__globals__[name]
            near = getattr(value, "__module__", None) == function.__module__ and hasattr(value, "__code__")
            found[name] = _typed(value, seen) if near else _data(value)
    return [_compiled(code), found] if found else _compiled(code)


def _names(code: CodeType) -> set[str]:
    """Names that code, or code in it, looks up outside of itself."""
    inner = [part for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _compiled(code: Any) -> Any:
    """What compiled code does, without its place in memory."""
    if isinstance(code, CodeType):
        return [code.co_code.hex(), list(code.co_names), [_compiled(part) for part in code.co_consts]]
    return _data(code)


def literals(code: str) -> Iterator[tuple[str, Any]]:
    """Names that code assigns literal values to, wherever in it, and these; nothing is executed.

    Raises:
        SyntaxError, ValueError: It is no Python.
    """
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                with suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                    if isinstance(target, ast.Name):
                        yield target.id, ast.literal_eval(node.value)


def cell_content(cell: Any) -> Any:
    """What a cell of a closure holds; None where it is not filled yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _data(value: Any) -> Any:
    """A value as JSON, as far as it is data; of anything else the name of its kind."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(key): _data(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_data(part) for part in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_data(part) for part in value), key=repr)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(getattr(value, "__qualname__", type(value).__qualname__))
