"""Files that somebody names, and what YAML and JSON in them say: bounded, and never a device or a pipe.

Whatever is wrong is an `OSError` with a reason in `strerror`, or a `ValueError`: whoever asks names the flag
and the file, as with any other file that cannot be read.
"""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import yaml

from stic_eval.errors import first_line

SETTINGS_BYTES = 1 << 20  # of settings, prompts and templates; PyYAML takes seconds for so much
CODE_BYTES = 16 << 20  # of a plug-in
_DEPTH = 100  # of lists and mappings; functions that go through values call themselves a few times a level
_NODES = 100_000  # of YAML, with what is named by an alias counted wherever it stands
_BITS = 1_000  # of a whole number; a float ends at 1,024
_LITERAL = 1 << 16  # characters of a list in a cell; Python takes seconds, and gigabytes, for millions
_LONG = re.compile(r"\d{300}")


def open_regular(path: Path | str) -> BinaryIO:
    """Opens a regular file to read.

    Raises:
        OSError: There is none, it cannot be opened, or it is a folder, a device, a pipe.
    """
    try:
        # A pipe without a writer would be waited for.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except ValueError:  # a NUL
        raise OSError(errno.EINVAL, "is not a file name") from None
    try:
        kind = os.fstat(handle).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "is not a regular file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: Path | str, most: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        most: Bytes that it may have; None: any number.

    Raises:
        OSError: It cannot be read, is no regular file, or is larger.
    """
    with open_regular(path) as file:
        data = file.read() if most is None else file.read(most + 1)
    if most is not None and len(data) > most:
        raise OSError(errno.EFBIG, f"is larger than {most >> 20} MiB")
    return data


def read_text(path: Path | str, most: int | None = None) -> str:
    """The text of a regular file, line ends as Python has them, without a byte order mark.

    Raises:
        OSError: As of `read_bytes`.
        UnicodeDecodeError: It is not UTF-8.
    """
    return read_bytes(path, most).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path | str) -> Iterator[str]:
    """The lines of `read_text`, without their ends, one after the other.

    Not those of `splitlines`: JSON strings may hold Unicode line separators.

    Raises:
        OSError: As of `read_bytes`.
        UnicodeDecodeError: It is not UTF-8.
    """
    with TextIOWrapper(open_regular(path), "utf-8-sig", newline=None) as file:
        for line in file:
            yield line.removesuffix("\n")


# ---------------------------------------------------------------- JSON


def from_json(text: str | bytes) -> Any:
    """What JSON says.

    Raises:
        ValueError: It is not valid, is nested too deeply, or holds a number that nothing could compute with.
    """
    try:
        value = _json_reader()(text)
    except ValueError:  # what it refuses, Python reads or says what is wrong with: half a surrogate pair
        try:
            value = json.loads(text)
        except RecursionError:
            raise ValueError("is nested too deeply") from None
    read = text if isinstance(text, str) else text.decode("utf-8", "replace")
    # Short ones are neither nested so deeply nor hold numbers so long.
    if len(read) > _DEPTH and (read.count("[") + read.count("{") > _DEPTH or _LONG.search(read)):
        _check(value)
    return value


@cache
def _json_reader() -> Callable[[str | bytes], Any]:
    """What reads JSON faster than Python does, and the same; names of columns are shared."""
    from pydantic_core import from_json

    return partial(from_json, cache_strings="keys")


def _check(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(_DEPTH):
        if any(isinstance(part, int) and part.bit_length() > _BITS for part in level):
            raise ValueError("holds a whole number with too many digits")
        level = [inner for part in level for inner in _inside(part)]
        if not level:
            return
    raise ValueError("is nested too deeply")


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def from_literal(text: str) -> Any:
    """What the text of a Python list, number or text says: how tables of text hold lists.

    Raises:
        ValueError: It is none, is nested too deeply, or is longer than any cell of that kind.
    """
    if len(text) > _LITERAL:
        raise ValueError(f"has more than {_LITERAL:,} characters")
    try:
        return ast.literal_eval(text)
    except (SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError("is not a list") from error


# ---------------------------------------------------------------- YAML

_NO_SETTINGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("timestamp", "binary", "set", "omap", "pairs"))


class _Loader(yaml.SafeLoader):
    """YAML of settings: texts, numbers, lists and mappings. What looks like a date is a text."""

    yaml_implicit_resolvers: dict[Any, Any] = {  # noqa: RUF012 - as PyYAML declares it
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NO_SETTINGS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors: ClassVar[dict[str | None, Any]] = {
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag not in _NO_SETTINGS
    }

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _count(node, {}, 0)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value: int = super().construct_yaml_int(node)
        if value.bit_length() > _BITS:
            raise ValueError("a whole number has too many digits")
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _count(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """How many nodes there are below one, and itself.

    Raises:
        ValueError: They are nested too deeply, in themselves, or are too many.
    """
    if depth > _DEPTH:
        raise ValueError("is nested too deeply")
    if id(node) not in known:
        parts: list[Any] = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        known[id(node)] = 1 + sum(_count(part, known, depth + 1) for part in parts)
    if known[id(node)] > _NODES:
        raise ValueError(f"has more than {_NODES:,} values")
    return known[id(node)]


def _where(error: yaml.MarkedYAMLError) -> str:
    """What is wrong, and where, without the excerpt that PyYAML draws over several lines."""
    mark = error.problem_mark or error.context_mark
    place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    context = f" ({error.context})" if error.context and error.problem else ""
    return first_line(ValueError(f"{place}{error.problem or error.context}{context}"))


def from_yaml(text: str) -> Any:
    """What YAML says, of the kinds that JSON has.

    Raises:
        ValueError: It is not valid, nested too deeply, or too much.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError:
        raise
    except yaml.MarkedYAMLError as error:
        raise ValueError(_where(error)) from error
    # A tag that its value does not fit (`!!bool x`) makes PyYAML raise whatever comes.
    except Exception as error:
        raise ValueError(first_line(ValueError(" ".join(str(error).split())))) from error
