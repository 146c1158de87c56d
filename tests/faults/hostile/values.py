"""What inputs are made of: hostile texts, values, and files with a few bytes changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")

# Every payload tries to make a file `canary` beside the working directory, or to show what is not its own.
MARKUP = (
    "</script><script>document.title='broken';window.owned=1</script>",
    "<img src=x onerror=\"document.title='broken';window.owned=1\">",
    '"\'><svg onload="window.owned=1">',
    "<iframe srcdoc='<script>parent.owned=1</script>'>",
    "javascript:window.owned=1",
    "[click](javascript:window.owned=1) ![x](http://127.0.0.1:9/x.png) `code` | cell | **bold**",
    "{{ 7 * 7 }} ${7*7} #{7*7} <%= 7*7 %>",
)
TERMINAL = (
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31mred",
    "a\rb",
    "\u202egnp.exe\u202c",
    "\u2066hidden\u2069",
    "a\0b",
    "\x08\x7f",
)
FORMULAS = ('=HYPERLINK("http://127.0.0.1:9")', "+1+1", "-2+3", "@SUM(1)", "\t=1+1", "\r=1", "＝1+1")
LATEX = (
    "\\input{/etc/passwd}",
    "\\write18{touch ../canary}",
    "50% & #1 $x^2$ _a_ ~ \\ { }",
    "\\end{tabular}",
)
CODE = (
    "__import__('os').system('touch ../canary')",
    "!!python/object/apply:os.system ['touch ../canary']",
    "{{ cycler.__init__.__globals__.os.system('touch ../canary') }}",
    "$(touch ../canary)",
    "`touch ../canary`",
    "; touch ../canary",
    "cos\nsystem\n(S'touch ../canary'\ntR.",
)
PATHS = (
    "../secret.png",
    "../secret.txt",
    "/etc/passwd",
    "/dev/zero",
    "/dev/stdin",
    "/proc/self/environ",
    "circle.png",
    "pipe",
    ".",
    "",
    "file:///etc/passwd",
    "http://127.0.0.1:9/x.png",
    "HTTPS://127.0.0.1:9/x",
    "data:image/png;base64,AAAA",
    "data:,x",
    "\0",
    "~/x.png",
    "$HOME/x.png",
    "x" * 300,
    "a/" * 600,
    "\ud83d.png",
)
ODD = (
    "",
    " ",
    "nan",
    "None",
    "null",
    "-0",
    "1e999",
    "\ufeff",
    "\ud83d",
    "\u2028",
    "x" * 50_000,
    "[" * 5_000,
    "['a', 'b']",
    "[" + "-" * 5_000 + "1]",
    "A",
    "0",
    "2020-13-45",
    "<image>",
    "<image><image>",
    "<video>",
)
TEXTS = (*MARKUP, *TERMINAL, *FORMULAS, *LATEX, *CODE, *PATHS, *ODD)


def one_of(given: Sequence[T]) -> st.SearchStrategy[T]:
    """Any of them; named by number, since hypothesis writes down what a strategy chooses from."""
    return st.integers(0, len(given) - 1).map(lambda number: given[number])


texts = st.one_of(
    one_of(TEXTS),
    st.text(st.characters(codec=None, categories=None), max_size=20),  # type: ignore[arg-type]
    st.tuples(one_of(TEXTS), one_of(TEXTS)).map("".join),
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    texts,
    st.integers(),
    one_of([10**18, 2**63, 2**64, -(2**63) - 1, 10**400, 10**5000, -1]),
    st.floats(),
    st.sampled_from([float("inf"), float("nan"), 1e308, -0.0]),
)

values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def to_json(value: Any) -> str:
    """A value as JSON, with integers of any length, and halves of surrogate pairs as escapes."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value)
    finally:
        sys.set_int_max_str_digits(limit)


@st.composite
def changed(draw: st.DrawFn, row: dict[str, Any], more: st.SearchStrategy[Any] = values) -> dict[str, Any]:
    """A row with one to three of its values, or names, changed."""
    found = dict(row)
    for _ in range(draw(st.integers(1, 3))):
        names = sorted(found)
        what = draw(st.sampled_from(["value", "value", "value", "missing", "new", "inside"]))
        name = draw(st.sampled_from(names)) if names else ""
        if what == "value" or not names:
            found[name] = draw(more)
        elif what == "missing":
            del found[name]
        elif what == "new":
            found[draw(st.one_of(texts, st.sampled_from(["id", "image", "images", "answer", "meta"])))] = (
                draw(more)
            )
        else:
            found[name] = _inside(draw, found[name], more)
    return found


def _inside(draw: st.DrawFn, value: Any, more: st.SearchStrategy[Any]) -> Any:
    """A value with something inside of it changed."""
    if isinstance(value, list) and value:
        number = draw(st.integers(0, len(value) - 1))
        return [_inside(draw, part, more) if k == number else part for k, part in enumerate(value)]
    if isinstance(value, dict) and value:
        chosen = draw(st.sampled_from(sorted(value, key=str)))
        return {name: _inside(draw, part, more) if name == chosen else part for name, part in value.items()}
    return draw(more)


@st.composite
def spoilt(draw: st.DrawFn, data: bytes) -> bytes:
    """A file's bytes with bits flipped, cut off, repeated, overwritten or put in; or as they are."""
    for _ in range(draw(st.integers(0, 4))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        what = draw(st.sampled_from(["flip", "flip", "set", "cut", "insert", "repeat", "zero", "long"]))
        if what == "flip":
            data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
        elif what == "set":
            data = data[:at] + bytes([draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFE, 0xFF]))]) + data[at + 1 :]
        elif what == "cut":
            data = data[:at]
        elif what == "insert":
            data = data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
        elif what == "repeat":
            end = min(len(data), at + draw(st.integers(1, 64)))
            data = data[:end] + data[at:end] * draw(st.integers(1, 20)) + data[end:]
        elif what == "zero":
            end = min(len(data), at + draw(st.integers(1, 64)))
            data = data[:at] + b"\0" * (end - at) + data[end:]
        else:  # a length, wherever one may be
            data = (
                data[:at]
                + draw(st.sampled_from([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\1\0"]))
                + data[at + 4 :]
            )
    return data
