"""Whether every version stands for the code that it stood for when it was last raised.

Results are kept under versions, not under code: whoever changes what comes out raises one. What each stands
for is kept in `bench/versions.json`: its files as syntax trees, without comments, docstrings and layout. A
test fails where a tree has changed and the version has not. Then either raise the version and take that down,
or say that the same comes out, and why:

    python -m bench.versions
    python -m bench.versions --same-output scoring --because "a variable has another name"

A tree is written out field by field, without empty fields, of which Python 3.12 and 3.13 have added some, and
with the texts of f-strings joined, which they cut differently: a digest does not depend on Python's version.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bench.units import UNITS, files

ROOT = Path(__file__).parent.parent
RECORD = Path(__file__).with_suffix(".json")
COMMAND = "python -m bench.versions"


# ---------------------------------------------------------------- code as data


def tree(text: str, names: Sequence[str] = ()) -> Any:
    """Code as JSON values, without what does nothing: comments, layout, docstrings.

    Args:
        text: The code.
        names: Of the definitions at its top that count, with those that they use; none: all of it does.

    Raises:
        LookupError: It has no such definition.
    """
    module = ast.parse(text)
    if names:
        known = {name: node for node in module.body for name in _defined(node)}
        found: dict[str, ast.stmt] = {}
        todo = list(names)
        while todo:
            name = todo.pop()
            found[name] = known[name]
            used = {node.id for node in ast.walk(known[name]) if isinstance(node, ast.Name)}
            todo += used & known.keys() - found.keys()
        return [_plain(found[name]) for name in sorted(found)]
    return _plain(module)


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if not isinstance(node, (ast.Assign, ast.AnnAssign)):
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]


def _plain(node: Any) -> Any:
    if node is None:  # in a list, as the key of `{**more}`
        return None
    if isinstance(node, ast.Constant):
        return ascii(node.value)
    if isinstance(node, ast.JoinedStr):
        return {"": "JoinedStr", "values": [_plain(part) for part in _joined(node.values)]}
    if isinstance(node, ast.AST):
        fields = {name: _plain(value) for name, value in ast.iter_fields(node) if value is not None}
        return {"": type(node).__name__, **{name: value for name, value in fields.items() if value != []}}
    if isinstance(node, list):
        return [_plain(part) for part in node if not _says_nothing(part)]
    return ascii(node)


def _says_nothing(node: Any) -> bool:
    """Whether it is a docstring, or another text that stands by itself."""
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return text and isinstance(node.value.value, str)


def _joined(parts: list[Any]) -> list[Any]:
    """The parts of an f-string with neighbouring texts as one, and none that is empty."""
    found: list[Any] = []
    for part in parts:
        if isinstance(part, ast.Constant) and found and isinstance(found[-1], str):
            found[-1] += str(part.value)
        else:
            found.append(part.value if isinstance(part, ast.Constant) else part)
    return [part for part in found if part != ""]


def digest(root: Path, pattern: str) -> str:
    """The first digits of the sha256 of a file as data, or of what of it is named."""
    file, _, names = pattern.partition(":")
    return _digest((root / file).read_text(encoding="utf-8"), file.endswith(".yaml"), names)


@cache
def _digest(text: str, data: bool, names: str) -> str:
    wanted = names.split(",") if names else []
    found = [yaml.safe_load(text)[name] for name in wanted] if data else tree(text, wanted)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


# ---------------------------------------------------------------- the record


def now(root: Path, name: str) -> dict[str, Any]:
    """A unit as it is: version, and digest of each file."""
    version = json.loads(json.dumps(UNITS[name].version()))
    return {"version": version, "files": {file: digest(root, file) for file in files(root, name)}}


def _numbers(version: Any) -> dict[str, int]:
    parts = version if isinstance(version, (list, dict)) else [version]
    return dict(parts) if isinstance(parts, dict) else {str(n): part for n, part in enumerate(parts)}


def raised(old: Any, new: Any) -> bool:
    """Whether a version, of several numbers some, is higher than before, and none lower."""
    before, after = _numbers(old), _numbers(new)
    steps = [after[name] - before[name] for name in before.keys() & after.keys()]
    return max(steps, default=0) > 0 and min(steps) >= 0


def kept(old: Any, new: Any) -> bool:
    """Whether a version is as it was; of several numbers those that there were, beside new ones."""
    before, after = _numbers(old), _numbers(new)
    return before.keys() <= after.keys() and all(after[name] == before[name] for name in before)


def findings(root: Path, record: Mapping[str, Any]) -> Iterator[tuple[str, bool, str]]:
    """Units that are not as recorded: name, whether that may be taken down as it is, what to do.

    Args:
        root: Folder of the project.
        record: What `bench/versions.json` holds.
    """
    for name, unit in UNITS.items():
        found, known = now(root, name), record.get(name)
        if known is None or raised(known["version"], found["version"]):
            yield name, True, f"{name}: version {found['version']} is not taken down: {COMMAND}"
        elif not kept(known["version"], found["version"]):
            yield name, False, f"{name}: version {known['version']} became {found['version']}; only raise it"
        elif found["files"] != known["files"]:
            both = found["files"].keys() | known["files"].keys()
            changed = sorted(f for f in both if found["files"].get(f) != known["files"].get(f))
            why = (
                f"{name}: its version is {found['version']} as it was, but {', '.join(changed)} changed. If "
                f"other results may come out, raise {unit.where}, then {COMMAND}; if not, {COMMAND} "
                f'--same-output {name} --because "..."'
            )
            yield name, False, why
        elif found["version"] != known["version"]:
            yield name, True, f"{name}: version {found['version']} is not taken down: {COMMAND}"
    for name in record.keys() - UNITS.keys():
        yield name, True, f"{name}: is no unit any more: {COMMAND}"


def update(root: Path, record: dict[str, Any], same: Sequence[str] = (), why: str = "") -> list[str]:
    """Takes down what may be, and of some units that the same comes out; gives what is still wrong."""
    left = []
    for name, may, line in list(findings(root, record)):
        if name not in UNITS:
            del record[name]
        elif may:
            record[name] = now(root, name)
        elif name in same and kept(record[name]["version"], now(root, name)["version"]):
            reasons = [*record[name].get("same output", []), why]
            record[name] = {**now(root, name), "same output": reasons}
        else:
            left.append(line)
    return left


def main(argv: Sequence[str]) -> int:
    """Runs the command; 1: a version does not stand for its code."""
    parser = argparse.ArgumentParser(prog="python -m bench.versions", description=__doc__.partition("\n")[0])
    parser.add_argument("--same-output", nargs="+", default=[], choices=UNITS, metavar="UNIT")
    parser.add_argument("--because", default="", help="why the same comes out")
    given = parser.parse_args(argv)
    if bool(given.same_output) != bool(given.because.strip()):
        parser.error("--same-output and --because go together")
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    left = update(ROOT, record, given.same_output, given.because.strip())
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    RECORD.write_text(text, encoding="utf-8")
    print("\n".join(left) or "every version stands for its code")
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
