"""Keeps a task's own code from the network and from writing files by accident; finds out if it asks a judge.

lmms-eval's tasks are ordinary Python. Some ask a judge model while they score, retry for minutes when it
is not there, and then count the answer as wrong; some write submission files where they are run.
This is no sandbox: code that means harm gets past it (threads, `os.open`).
"""

from __future__ import annotations

import contextlib
import io
import random
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from stic_eval.plugin_code import cell_content

# Events of Python's audit hooks (docs.python.org/3/library/audit_events.html) that reach other machines,
# or start programs that may.
_OUTWARD = frozenset(
    {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto",
     "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"}
)  # fmt: skip
# Clients of model servers, and lmms-eval's own ways to them.
_CLIENTS = (
    "openai", "anthropic", "requests", "httpx", "aiohttp", "urllib.request", "urllib3", "dashscope", "azure",
    "google.generativeai", "google.genai", "lmms_eval.llm_judge", "lmms_eval.verifiers.openai",
)  # fmt: skip


class Reached(BaseException):
    """Code tried to reach the network. No `Exception`, so that no task takes it for a judge's bad day."""


@dataclass
class Watch:
    """What code did while it was watched.

    Attributes:
        scoring: Whether it also may not write files, and cannot go on after it tried the network.
        folder: Where it may write all the same.
        tried: The events that it was kept from.
    """

    scoring: bool
    folder: str | None = None
    tried: list[str] = field(default_factory=list)


_watching = threading.local()
# What is watched has standard output, log and random state, which are the process's, to itself: a loader's
# thread makes images while the main one scores.
_alone = threading.RLock()


def _hook(event: str, args: tuple[Any, ...]) -> None:
    watch: Watch | None = getattr(_watching, "watch", None)
    if watch is None:
        return
    if event in _OUTWARD:
        watch.tried.append(event)
        raise Reached(event) if watch.scoring else ConnectionError("a task's code may not use the network")
    if watch.scoring and event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        if watch.folder is not None and str(args[0]).startswith(watch.folder):
            return
        raise PermissionError(f"a task's scoring may not write files: {args[0]}")


@cache
def _install() -> None:
    sys.addaudithook(_hook)  # cannot be taken out again; it does nothing where nothing is watched


@contextlib.contextmanager
def watch(scoring: bool = True, folder: str | None = None) -> Iterator[Watch]:
    """Runs a task's code without network, without its prints and its log.

    Args:
        scoring: Files may not be written, and an attempt to reach the network ends the code with
            `Reached`. Without (for imports): the attempt fails as if there were no network.
        folder: Where files may be written all the same.
    """
    from loguru import logger

    _install()
    with _alone, contextlib.redirect_stdout(io.StringIO()):
        before = getattr(_watching, "watch", None)
        _watching.watch = Watch(scoring, folder)
        logger.disable("")
        try:
            yield _watching.watch
        finally:
            if before is None:
                logger.enable("")
            _watching.watch = before


# ---------------------------------------------------------------- who would ask a judge


def client_of(function: Any) -> str | None:
    """The client of a model server that a function can come to by the names in its code; None: none.

    What is reached may still never be called, and what a name hides (`getattr`, files that are executed)
    is not found: `watch` keeps it from the network all the same.
    """
    seen: set[int] = set()
    waiting: list[Any] = [function]
    while waiting:
        found = waiting.pop()
        if id(found) in seen or found is None:
            continue
        seen.add(id(found))
        if client := _client(found):
            return client
        waiting += _behind(found)
    return None


def _client(found: Any) -> str | None:
    if isinstance(found, ModuleType):
        name = found.__name__
    elif isinstance(found, (FunctionType, BuiltinFunctionType, MethodType, type)):
        name = found.__module__ or ""
    else:
        name = type(found).__module__
    return next((client for client in _CLIENTS if name == client or name.startswith(client + ".")), None)


def _behind(found: Any) -> list[Any]:
    """What a function or class of a task refers to; other libraries are not looked into."""
    if isinstance(found, partial):
        return [found.func]
    if isinstance(found, MethodType):
        return [found.__func__]
    if isinstance(found, type):
        own = _of_task(found.__module__)
        return [item for item in vars(found).values() if isinstance(item, FunctionType)] if own else []
    if not isinstance(found, FunctionType) or not _of_task(found.__module__):
        return []
    names = set(names_in(found.__code__))
    behind = [found.__globals__[name] for name in names & found.__globals__.keys()]
    behind += [sys.modules[name] for name in names & sys.modules.keys()]  # imported inside of the function
    for module in [item for item in behind if isinstance(item, ModuleType) and _of_task(item.__name__)]:
        behind += [vars(module)[name] for name in names & vars(module).keys()]
    behind += [cell_content(cell) for cell in found.__closure__ or ()]
    wrapped = getattr(found, "__wrapped__", None)
    return [item for item in [*behind, wrapped] if item is not None]


def _of_task(module: str | None) -> bool:
    """Whether a module is lmms-eval's: tasks are imported by their file's bare name (`utils`)."""
    name = module or ""
    return name.startswith("lmms_eval.") or name.partition(".")[0] not in _libraries()


@cache
def _libraries() -> frozenset[str]:
    from importlib.metadata import packages_distributions

    return sys.stdlib_module_names | packages_distributions().keys()


def names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)


def call(function: Callable[..., Any], *args: Any, seed: str = "", folder: str | None = None) -> Any:
    """What a task's function gives, watched.

    Args:
        seed: Of what it draws: MMMU's scoring takes any option where an answer names none. lmms-eval draws
            from one sequence for all rows; here a row's draws are its own, the same whenever it is scored.
        folder: Where it may write files.

    Raises:
        ValueError: It ended the program, or tried to reach the network.
        Exception: Whatever it raises.
    """
    try:
        with (
            watch(folder=folder),
            _fixed_randomness(seed),
        ):  # in this order: random state is the process's too
            return function(*args)
    except Reached as error:
        raise ValueError(f"its code asks the network ({error})") from error
    except SystemExit as error:
        raise ValueError(f"its code gives up: {error}") from error


@contextlib.contextmanager
def _fixed_randomness(seed: str) -> Iterator[None]:
    import numpy as np

    number = zlib.crc32(seed.encode("utf-8", "replace"))
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(number)
    np.random.seed(number)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
