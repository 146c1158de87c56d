"""Plug-in files: Python files with a `method`, or another of `CONTRACTS`, or several of these.

A file is named (`--method ./mine.py`), or lies in a folder of `$STIC_EVAL_PLUGINS`. Whatever is wrong with
one is said in one line that names path and line, and is nobody else's problem.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib.util import decode_source, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stic_eval.contracts.benchmark import Benchmark
from stic_eval.contracts.corruption import Corruption
from stic_eval.contracts.engine import Engine
from stic_eval.contracts.loss import Loss
from stic_eval.contracts.method import Method
from stic_eval.contracts.solver import Solver
from stic_eval.documents import CODE_BYTES, read_bytes
from stic_eval.errors import UserError, headline, quote, shorten

FOLDERS = "STIC_EVAL_PLUGINS"  # the environment variable
CONTRACTS: Mapping[str, type] = {
    "method": Method, "benchmark": Benchmark, "solver": Solver, "engine": Engine, "corruption": Corruption,
    "loss": Loss,
}  # fmt: skip
_CALLED = {
    "method": ("plan",), "benchmark": ("to_sample", "score", "aggregate"), "solver": ("solve", "requests"),
    "corruption": ("spoil",), "loss": ("compute",),
}  # fmt: skip
_TEXTS = {
    "method": ("title", "paper"), "benchmark": ("title", "protocol"), "solver": ("title", "suffix"),
    "engine": ("name",), "loss": ("title",),
}  # fmt: skip
_PYTHON = Path(os.__file__).parent  # the standard library
_NAME = re.compile(r"[A-Za-z][\w-]*")
_SUFFIX = re.compile(r"\w*")
_ADAPTER = re.compile(r"adapter\d*", re.IGNORECASE)  # folders differ by case in some file systems alone


@dataclass(frozen=True)
class PluginFile:
    """A plug-in file that was looked at.

    Attributes:
        objects: What it gives, by kind (of `CONTRACTS`). Empty if it is broken.
        error: What is wrong with it, path and line included; empty if nothing is.
    """

    path: Path
    objects: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


# Content by path: a process imports a file once, and once more when a later command finds it changed.
_imported: dict[Path, tuple[bytes, PluginFile]] = {}
# What the present command sees; the value of the environment variable -> the files there.
_named: dict[Path, PluginFile] = {}
_listed: dict[str, list[PluginFile]] = {}


def register_file(path: str | Path) -> PluginFile:
    """Registers a file for the rest of the command.

    Raises:
        UserError: There is no such file, or it is broken.
    """
    found = _named.get(absolute(path)) or _look_at(absolute(path))
    if found.error:
        raise UserError(found.error)
    _named[found.path] = found
    return found


def forget() -> None:
    """Lets go of what a command has named and listed, for the next one to look anew."""
    _named.clear()
    _listed.clear()


def known_files() -> list[PluginFile]:
    """Files that were named, and those in the folders of `$STIC_EVAL_PLUGINS`, broken ones included."""
    value = os.environ.get(FOLDERS, "")
    if value not in _listed:
        _listed[value] = []  # a file that asks the registry while it is imported does not see its like
        folders = dict.fromkeys(absolute(part.strip()) for part in value.split(os.pathsep) if part.strip())
        _listed[value] = [file for folder in folders for file in _in_folder(folder)]
    return list(({file.path: file for file in _listed[value]} | _named).values())


def absolute(path: str | Path) -> Path:
    """The path from the root, `~` and links resolved."""
    given = Path(os.path.expanduser(path))
    try:
        return given.resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, a NUL: told when it is opened
        return given.absolute()


def display_path(path: Path) -> str:
    """A path for people: from the working directory on, if it lies there."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def _in_folder(folder: Path) -> Iterator[PluginFile]:
    try:
        paths = sorted(absolute(path) for path in folder.iterdir() if path.suffix == ".py")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        yield PluginFile(folder, error=f"{FOLDERS}: {folder}: {reason}; name folders of plug-in files there")
        return
    for path in paths:
        if not path.name.startswith(("_", "test_")) and path.name != "conftest.py":
            yield _look_at(path)


def _look_at(path: Path) -> PluginFile:
    """Imports a file under a private name, unless that was done before; says what is wrong, never raises."""
    try:
        content = read_bytes(path, CODE_BYTES)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        return PluginFile(path, error=f"{display_path(path)}: {reason.lower()}")
    before = _imported.get(path)
    if before is None or before[0] != content:
        _imported[path] = content, PluginFile(path)
        before = _imported[path] = content, _import(path, content)
    return before[1]


def _import(path: Path, content: bytes) -> PluginFile:
    name = f"_stic_eval_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None:
        return PluginFile(path, error=f"{display_path(path)}: cannot be imported")
    module = module_from_spec(spec)
    sys.modules[name] = module  # where pickle, dataclasses and inspect look
    try:
        # Compiled here: Python's own cache of compiled files takes one that was just edited for the old one.
        with redirect_stdout(sys.stderr):  # standard output is the command's own: tables, JSON
            exec(compile(decode_source(content), str(path), "exec"), module.__dict__)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a file may do anything while it is imported
        sys.modules.pop(name, None)
        return PluginFile(path, error=explain(error, path))
    objects = {kind: module.__dict__[kind] for kind in CONTRACTS if kind in module.__dict__}
    for kind, thing in objects.items():
        reason = fault(kind, thing)
        if reason:
            return PluginFile(path, error=f"{display_path(path)}, line {_line_of(content, kind)}: {reason}")
    return PluginFile(path, objects) if objects else PluginFile(path, error=_without(path, content, module))


def _without(path: Path, content: bytes, module: Any) -> str:
    """What to do about a file without any of them: perhaps its object only has another name."""
    for name, thing in vars(module).items():
        for kind in CONTRACTS:
            if _is(kind, thing):
                where = f"{display_path(path)}, line {_line_of(content, name)}"
                return f"{where}: `{name}` is a {kind}, which a plug-in file has to call `{kind}`"
    return (
        f"{display_path(path)}, line 1: has no `method = Method(...)`, `benchmark = Benchmark(...)`, nor a "
        "solver, engine, loss or corruption of that name (`stic-eval new method NAME` writes one that works)"
    )


def _is(kind: str, thing: object) -> bool:
    """Whether an object is a plug-in of a kind; an engine is a class, which is made for each run."""
    contract = CONTRACTS[kind]
    if contract is not Engine:
        return isinstance(thing, contract)
    return isinstance(thing, type) and issubclass(thing, Engine) and thing is not Engine


def fault(kind: str, thing: Any, name: str | None = None) -> str:
    """What keeps an object from being used as a plug-in of a kind; empty if nothing does.

    Args:
        kind: One of `CONTRACTS`.
        name: What it has to be called; None: anything that can be typed.
    """
    try:
        return _fault(kind, thing, name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # an attribute may be anything, even code that fails
        return f"`{kind}` cannot be looked at: {headline(error)}"


def _fault(kind: str, thing: Any, name: str | None) -> str:
    article = f"`{kind}`"
    contract: Any = CONTRACTS[kind]
    if not _is(kind, thing):
        what = f"is of type {type(thing).__name__}"
        return f"{article} {what}; it has to be a {contract.__name__} of {contract.__module__}"
    called = getattr(thing, "name", None)  # a class of an engine may have none
    if name is not None and called != name:
        return f'{article} calls itself "{shorten(str(called))}", not "{name}"'
    if name is None and (not isinstance(called, str) or not _NAME.fullmatch(called)):
        return f"{article} is called {quote(called)}; a name has letters, digits, _ and -, a letter first"
    if why := why_reserved(kind, thing.name):
        return f'{article} is called "{thing.name}", {why}'
    for attribute in _TEXTS.get(kind, ()):
        if not isinstance(getattr(thing, attribute), str):
            return f"{article}: {attribute} is {quote(getattr(thing, attribute))}; it has to be a text"
    for attribute in _CALLED.get(kind, ()):
        if not callable(getattr(thing, attribute)):
            return f"{article}: {attribute} is {quote(getattr(thing, attribute))}; it has to be a function"
    faults = {
        "method": _fault_of_method, "benchmark": _fault_of_benchmark, "solver": _fault_of_solver,
        "engine": _fault_of_engine, "loss": _fault_of_loss, "corruption": _fault_of_corruption,
    }  # fmt: skip
    return faults[kind](thing)


def why_reserved(kind: str, name: str) -> str:
    """Why a name is reserved for something of a kind, as a relative clause; empty if it is free."""
    if name == "all":
        return "which stands for everything"
    if kind == "method" and _ADAPTER.fullmatch(name):
        return "which is what `--adapter` calls its rows"
    if kind == "corruption" and name in ("misleading", "both"):
        return "which stands for something else among pairs and axes"
    return ""


def _fault_of_options(article: str, attribute: str, options: Any) -> str:
    if not (isinstance(options, type) and issubclass(options, BaseModel)):
        return f"{article}: {attribute} is {quote(options)}; it has to be a class of pydantic's BaseModel"
    if options.model_config.get("extra") != "forbid":
        advice = 'model_config = ConfigDict(extra="forbid")'
        return f"{article}: {attribute} has to forbid unknown fields: {advice}"
    return ""


def _fault_of_engine(engine: Any) -> str:
    missing = sorted(engine.__abstractmethods__)
    if engine.trains and engine.trainable is Engine.trainable:
        missing.append("trainable")
    return f"`engine`: has no {', '.join(missing)}" if missing else ""


def _fault_of_solver(solver: Any) -> str:
    if reason := _fault_of_options("`solver`", "options", solver.options):
        return reason
    missing = [name for name, field in solver.options.model_fields.items() if field.is_required()]
    if missing:
        return f"`solver`: options.{missing[0]} has no default; each needs one"
    if not _SUFFIX.fullmatch(solver.suffix):
        return f"`solver`: suffix is {quote(solver.suffix)}; it has letters, digits and _"
    if bool(solver.suffix) != bool(solver.title):
        return "`solver`: title and suffix tell its rows from others; give both"
    if solver.key is not None and not callable(solver.key):
        return f"`solver`: key is {quote(solver.key)}; it has to be a function, or None"
    if not isinstance(solver.version, int):
        return f"`solver`: version is {quote(solver.version)}; it has to be a whole number"
    return ""


def _fault_of_method(method: Any) -> str:
    if reason := _fault_of_options("`method`", "config", method.config):
        return reason
    if not isinstance(method.presets, Mapping) or not all(
        isinstance(options, Mapping) for options in method.presets.values()
    ):
        return "`method`: presets has to map a preset's name to options"
    return ""


def _fault_of_benchmark(benchmark: Any) -> str:
    if (benchmark.options is None) != (benchmark.vary is None):
        return "`benchmark`: `options` and `vary` come together"
    options = benchmark.options
    if options is None:
        return ""
    if not (isinstance(options, type) and issubclass(options, BaseModel)):
        return f"`benchmark`: options is {quote(options)}; it has to be a class of pydantic's BaseModel"
    try:
        name = benchmark.vary(options()).name
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # of a plug-in
        return f"`benchmark`: vary(options()) raises {headline(error)}"
    if name != benchmark.name:
        return f'`benchmark`: vary makes one called "{name}"; keep the name, or set options=None, vary=None'
    return ""


def _fault_of_loss(loss: Any) -> str:
    try:
        right = all(above < value < below for value, above, below in loss.constants.values())
    except (AttributeError, TypeError, ValueError):
        right = False
    if not right:
        return "`loss`: constants has to map a name to (default, what it is above, and below)"
    try:
        inspect.signature(loss.compute).bind(None, 1.0, **dict.fromkeys(loss.constants, 0.0))
    except (TypeError, ValueError) as error:
        return f"`loss`: compute does not take (Logps, beta, and the constants by name): {error}"
    return ""


def _fault_of_corruption(corruption: Any) -> str:
    right = isinstance(corruption.defaults, Mapping)
    return "" if right else "`corruption`: defaults has to map a parameter to its value"


def _line_of(content: bytes, name: str) -> int:
    """The last line at which a module gives a name a value; 1 if it does so in some other way."""
    found = 1
    for node in ast.parse(content).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            found = node.lineno
    return found


def line_in(path: Path, name: str) -> int:
    """The last line at which a file gives a name a value; 1 if it cannot be read."""
    try:
        return _line_of(read_bytes(path, CODE_BYTES), name)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return 1


def explain(error: BaseException, *roots: Path) -> str:
    """One line about an error that a plug-in raised: path, line, type and message.

    Args:
        *roots: The plug-in's file, or its package's folder.
    """
    message = headline(error).removesuffix(": ")
    if isinstance(error, SyntaxError):
        message = f"{type(error).__name__}: {error.msg}"
    place = locate(error, roots)
    if place is None:
        return f"{display_path(roots[0])}: {message}" if roots else message
    return f"{display_path(place[0])}, line {place[1]}: {message}"


def locate(error: BaseException, roots: Sequence[Path]) -> tuple[Path, int] | None:
    """File and line of the deepest step into files or folders on the way to an error; None: it took none."""

    def inside(path: Path) -> bool:
        return any(path == root or root in path.parents for root in roots)

    if isinstance(error, SyntaxError) and error.lineno and inside(Path(error.filename or "")):
        return Path(error.filename or ""), error.lineno
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        path = Path(frame.f_code.co_filename)
        if inside(path):
            return path, line
    return None


def locate_own_code(error: BaseException) -> tuple[Path, int] | None:
    """File and line of the deepest step into a user's code on the way to an error; None: it took none.

    That is what is neither this program's nor a library's.
    """
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        path = Path(frame.f_code.co_filename)
        ours = str(frame.f_globals.get("__name__")).partition(".")[0] == "stic_eval"
        installed = {"site-packages", "dist-packages"} & set(path.parts) or _PYTHON in path.parents
        if not (ours or installed or path.name.startswith("<frozen ")):
            return path, line
    return None
