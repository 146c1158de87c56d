"""The two registries, benchmarks and methods: entry points, loaded on demand.

Built-ins have no privilege: they are entry points of this package, as a user's own file is one
of theirs. A plug-in that cannot be imported is named when it is asked for and never takes the
others down.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from stic_eval.errors import UserError

if TYPE_CHECKING:
    from stic_eval.evals.benchmark import Benchmark
    from stic_eval.selftrain.method import Method

T = TypeVar("T")


def suggest(word: str, known: Iterable[str]) -> str:
    """Returns `; did you mean "x"?` for the closest known word, or an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{match[0]}"?' if match else ""


class Registry(Generic[T]):
    """Names to objects, by entry point.

    Args:
        kind: What it holds, for messages: `benchmark` or `method`.
        flag: The flag that names one, for messages.
        points: The entry points of the group.

    Raises:
        UserError: Two entry points share a name; both are named.
    """

    def __init__(self, kind: str, flag: str, points: Iterable[EntryPoint]) -> None:
        self.kind, self.flag = kind, flag
        self._points: dict[str, EntryPoint] = {}
        self._loaded: dict[str, T] = {}
        for point in points:
            other = self._points.setdefault(point.name, point)
            if other.value != point.value:
                raise UserError(
                    f'two {kind}s are called "{point.name}": {other.value} and {point.value}; rename one'
                )

    def names(self) -> list[str]:
        """All registered names, those that fail to load included, in order of registration."""
        return list(self._points)

    def get(self, name: str) -> T:
        """Loads one entry.

        Raises:
            UserError: Unknown name (with the closest known one), or a plug-in that cannot be loaded.
        """
        if name in self._loaded:
            return self._loaded[name]
        if name not in self._points:
            raise UserError(
                f'{self.flag}: no {self.kind} is called "{name}"{suggest(name, self._points)} '
                f"(`stic-eval ls {self.kind}s` lists them)"
            )
        point = self._points[name]
        try:
            loaded: Any = point.load()
        except Exception as error:  # a plug-in may raise anything while it is imported
            raise UserError(
                f'{self.kind} "{name}" ({point.value}) cannot be loaded: {type(error).__name__}: {error}'
            ) from error
        if getattr(loaded, "name", None) != name:
            raise UserError(
                f'{self.kind} "{name}" ({point.value}) calls itself "{getattr(loaded, "name", None)}"'
            )
        self._loaded[name] = loaded
        return self._loaded[name]


def _points(group: str) -> list[EntryPoint]:
    # Definition order of pyproject.toml is lost in metadata files that sort; the order of the
    # paper's table is kept for what it has, then the alphabet.
    order = ["scienceqa", "textvqa", "chartqa", "llava_bench", "mmbench", "mmvet", "mathvista"]
    order += ["baseline", "stic", "sft", "positive_only", "stic_stage1"]
    rank = {name: index for index, name in enumerate(order)}
    return sorted(entry_points(group=group), key=lambda p: (rank.get(p.name, len(rank)), p.name))


@cache
def benchmarks() -> Registry[Benchmark]:
    """The benchmarks that are installed."""
    return Registry("benchmark", "--benchmarks", _points("stic_eval.benchmarks"))


@cache
def methods() -> Registry[Method]:
    """The methods that are installed."""
    return Registry("method", "--method", _points("stic_eval.methods"))
