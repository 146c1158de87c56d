"""What is there by name, each kind a registry: entry points and plug-in files, loaded on demand.

Built-ins have no privilege: they are entry points of this package, as a user's own file is one
of theirs. A plug-in that cannot be imported is named when it is asked for and never takes the
others down.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Generic, TypeVar

from stic_eval import entry_points, plugins
from stic_eval.contracts.benchmark import Benchmark
from stic_eval.contracts.corruption import Corruption
from stic_eval.contracts.engine import Engine
from stic_eval.contracts.loss import Loss
from stic_eval.contracts.method import Method
from stic_eval.contracts.solver import Solver
from stic_eval.errors import UserError, headline
from stic_eval.plugins import PluginFile

T = TypeVar("T")


def suggest(word: str, known: Iterable[str]) -> str:
    """Returns `; did you mean "x"?` for the closest known word, or an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{match[0]}"?' if match else ""


class Registry(Generic[T]):
    """Names to objects, by entry point or plug-in file.

    Args:
        kind: What it holds, for messages: `benchmark`, `loss`.
        flag: The flag that names one, for messages.
        families: Entry points of functions that make an object from what stands behind `<family>:`.
        files: Gives the plug-in files that there are at the moment.
    """

    def __init__(
        self,
        kind: str,
        flag: str,
        points: Iterable[EntryPoint],
        families: Iterable[EntryPoint] = (),
        files: Callable[[], Sequence[PluginFile]] = list,
    ) -> None:
        self.kind, self.flag = kind, flag
        self.plural = f"{kind}es" if kind.endswith("s") else f"{kind}s"
        self._points: dict[str, list[EntryPoint]] = {}
        for point in points:
            same = self._points.setdefault(point.name, [])
            if all(other.value != point.value for other in same):
                same.append(point)
        self._families = {point.name: point for point in families}
        self._loaded: dict[str, T] = {}
        self._objects: dict[str, T] = {}
        self._of_this_call: set[str] = set()  # names of objects
        self._files = files

    def names(self) -> list[str]:
        """All registered names, those that fail to load included, in order of registration."""
        files = (self._name(file) for file in self._having())
        return list(dict.fromkeys([*self._points, *self._objects, *files]))

    def add(self, thing: T) -> str:
        """Registers an object of this process, in place of one of its name from an earlier call.

        Returns:
            Its name.

        Raises:
            UserError: It cannot be used; or what is installed, what is in a plug-in file, or another object
                of this call has its name.
        """
        if reason := plugins.fault(self.kind, thing):
            raise UserError(reason)
        name = str(getattr(thing, "name"))  # noqa: B009
        if name not in self._points and self.file(name) is None:
            if name in self._of_this_call and self._objects[name] is not thing:
                raise UserError(self._taken_message(name))
            self._objects[name] = thing
            self._of_this_call.add(name)
        elif self.get(name) is not thing:
            raise UserError(self._taken_message(name))
        return name

    def has_object(self, name: str) -> bool:
        """Whether a name is that of an object of this process, which no other process knows."""
        return self._object(name) is not None

    def forget(self) -> None:
        """Ends a call: an object or a file of a later one may take the place of one of its objects."""
        self._of_this_call.clear()

    def own(self) -> list[str]:
        """Names of what is built in, in order; this is what `all` stands for, whatever else is installed."""
        return [name for name, points in self._points.items() if any(map(entry_points.is_own, points))]

    def broken(self) -> list[PluginFile]:
        """Plug-in files that cannot be used; what they hold is not known."""
        return [file for file in self._files() if file.error]

    def has_family(self, name: str) -> bool:
        """Whether a name is `family:rest` with a family that there is."""
        family, colon, rest = name.partition(":")
        return bool(colon and rest) and family in self._families

    def families(self) -> list[str]:
        """Names of the families."""
        return list(self._families)

    def file(self, name: str) -> Path | None:
        """The plug-in file that a name comes from; None for an entry point."""
        return next((file.path for file in self._having() if self._name(file) == name), None)

    def get(self, name: str) -> T:
        """Loads one entry.

        Args:
            name: Its name, `family:rest`, or the path of a plug-in file (`.py`), which is registered.

        Raises:
            UserError: Unknown name (with the closest known one), several things of that name, or a plug-in
                that cannot be loaded; names path and line.
        """
        if name.endswith(".py"):
            return self._of_file(name)
        if name not in self.names():
            if self.has_family(name):
                return self._of_family(name)
            raise UserError(self._unknown(name))
        points = self._points.get(name, [])
        files = [file for file in self._having() if self._name(file) == name]
        thing = self._object(name)
        if thing is not None:
            if files:
                raise UserError(self._taken_message(name))
            return thing
        if len(points) + len(files) > 1:
            raise UserError(self._collision(name, points, files))
        if files:
            found: T = files[0].objects[self.kind]
            return found
        if name not in self._loaded:
            self._loaded[name] = self._load(points[0], name)
        return self._loaded[name]

    def roots(self) -> list[Path]:
        """Files and folders of plug-ins that were loaded: where an error may come from."""
        loaded = [self._points[name][0] for name in self._loaded if name in self._points]
        used = {name.partition(":")[0] for name in self._loaded if name not in self._points}
        loaded += [self._families[name] for name in used]
        return [file.path for file in self._having()] + [
            root for point in loaded if not entry_points.is_own(point) for root in entry_points.roots(point)
        ]

    def _object(self, name: str) -> T | None:
        """The object of a name; a file takes the place of one from an earlier call."""
        if name in self._objects and name not in self._of_this_call and self.file(name) is not None:
            del self._objects[name]
        return self._objects.get(name)

    def _having(self) -> list[PluginFile]:
        return [file for file in self._files() if self.kind in file.objects]

    def _name(self, file: PluginFile) -> str:
        return str(file.objects[self.kind].name)

    def _of_file(self, path: str) -> T:
        """What a plug-in file holds, under its own name; the file is registered."""
        try:
            file = plugins.register_file(path)
        except UserError as error:
            message = str(error).removeprefix(f"{plugins.display_path(plugins.absolute(path))}: ")
            raise UserError(f"{self.flag} {path}: {message}") from error
        if self.kind not in file.objects:
            other = next(iter(file.objects))
            line = plugins.line_in(file.path, other)
            where = f"{self.flag} {path}: {plugins.display_path(file.path)}, line {line}"
            raise UserError(f"{where}: holds a {other}, and no {self.kind}")
        return self.get(self._name(file))

    def _of_family(self, name: str) -> T:
        """What a family makes of the rest of a name."""
        if name not in self._loaded:
            family, _, rest = name.partition(":")
            point = self._families[family]
            try:
                thing = entry_points.load(point)(rest)
            except UserError:
                raise
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                raise UserError(
                    f'{self.kind} "{name}" ({point.value}): {entry_points.explain(error, point)}'
                ) from error
            reason = plugins.fault(self.kind, thing, name)
            if reason:
                raise UserError(f'{self.kind} "{name}" ({point.value}): {reason}')
            self._loaded[name] = thing
        return self._loaded[name]

    def _load(self, point: EntryPoint, name: str) -> T:
        try:
            loaded: Any = entry_points.load(point)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plug-in may raise anything while it is imported
            raise UserError(
                f'{self.kind} "{name}" ({point.value}) cannot be loaded: {entry_points.explain(error, point)}'
            ) from error
        reason = plugins.fault(self.kind, loaded, name)
        if reason:
            file = getattr(sys.modules.get(point.module), "__file__", None)
            line = f"{file}, line {plugins.line_in(Path(file), point.attr)}: " if file else ""
            raise UserError(f'{self.kind} "{name}" ({point.value}): {line}{reason}')
        found: T = loaded
        return found

    def _unknown(self, name: str) -> str:
        family, colon, _ = name.partition(":")
        if colon and self._families:
            there = f"no family of {self.plural} is called {family!r} (there is {', '.join(self._families)})"
            return f"{self.flag} {name}: {there}"
        broken = self.broken()
        more = ""
        if broken:
            count = "a plug-in is" if len(broken) == 1 else f"{len(broken)} plug-ins are"
            more = f"; {count} broken: {broken[0].error}"
        return (
            f'{self.flag}: no {self.kind} is called "{name}"{self._suggest(name)} '
            f"(`stic-eval ls {self.plural}` lists them){more}"
        )

    def _suggest(self, name: str) -> str:
        """The closest name, unless a family has, or may have, just this one; see `offers` of its module."""
        close = difflib.get_close_matches(name, self.names(), n=1, cutoff=0.8)
        unknown = ""
        for family, point in self._families.items():
            try:
                entry_points.load(point)
                offers = getattr(sys.modules[point.module], "offers", lambda name: False)(name)
            except KeyboardInterrupt:
                raise
            except BaseException:  # a plug-in may raise anything; its name will say so
                continue
            if offers:
                return f'; did you mean "{family}:{name}"?'
            if offers is None and re.fullmatch(r"[a-z0-9_]+", name):  # nobody knows
                unknown = f'; if {family} has it, write "{family}:{name}"'
        return f'; did you mean "{close[0]}"?' if close else unknown or suggest(name, self.names())

    def _taken_message(self, name: str) -> str:
        return f'two {self.plural} are called "{name}"; give your object another name, e.g. name="my_{name}"'

    def _collision(self, name: str, points: Sequence[EntryPoint], files: Sequence[PluginFile]) -> str:
        def line(file: PluginFile) -> str:
            return f"{plugins.display_path(file.path)}, line {plugins.line_in(file.path, self.kind)}"

        wheres = [*(point.value for point in points), *map(line, files)]
        advice = "rename one"
        if files:
            advice = f'give the one in {files[-1].path.name} another name, e.g. name="my_{name}"'
        return f'two {self.plural} are called "{name}": {wheres[0]} and {wheres[-1]}; {advice}'


@cache
def benchmarks() -> Registry[Benchmark]:
    """The benchmarks that are there: installed ones, and those of plug-in files."""
    points, families = _group("benchmarks"), _group("benchmark_families")
    return Registry("benchmark", "--benchmarks", points, families, files=plugins.known_files)


@cache
def methods() -> Registry[Method]:
    """The methods that are there."""
    return Registry("method", "--method", _group("methods"), files=plugins.known_files)


@cache
def solvers() -> Registry[Solver]:
    """The solvers that are there."""
    return Registry("solver", "--solver", _group("solvers"), files=plugins.known_files)


@cache
def engines() -> Registry[type[Engine]]:
    """The engines that are there."""
    return Registry("engine", "--engine", _group("engines"), files=plugins.known_files)


@cache
def losses() -> Registry[Loss]:
    """The preference losses that are there."""
    return Registry("loss", "loss", _group("losses"), files=plugins.known_files)


@cache
def corruptions() -> Registry[Corruption]:
    """The corruptions that are there."""
    return Registry("corruption", "corruptions", _group("corruptions"), files=plugins.known_files)


def _group(name: str) -> list[EntryPoint]:
    return entry_points.of_group(f"stic_eval.{name}")


def kinds() -> dict[str, Registry[Any]]:
    """All registries, by what they hold."""
    return {
        "benchmark": benchmarks(), "method": methods(), "solver": solvers(), "engine": engines(),
        "loss": losses(), "corruption": corruptions(),
    }  # fmt: skip


def register(path: str, where: str) -> None:
    """Registers a plug-in file, whatever it holds.

    Args:
        where: What has named it, for messages.

    Raises:
        UserError: There is no such file, or it is broken.
    """
    try:
        plugins.register_file(path)
    except UserError as error:
        raise UserError(f"{where}: plugins: {error}") from error


def resolve_name(kind: str, name: str) -> str:
    """A name as it is; of a plug-in file, which is registered, the name of what is in it."""
    if not name.endswith(".py"):
        return name
    return str(kinds()[kind].get(name).name)


def add(kind: str, thing: object) -> str:
    """What is called by a name as it is; the name of an object, which is registered.

    Raises:
        UserError: The object cannot be used, or something else has its name.
    """
    return kinds()[kind].add(thing) if isinstance(thing, plugins.CONTRACTS[kind]) else str(thing)


def forget() -> None:
    """Lets go of what a call has named, for the next one to name its own; see `plugins.forget`."""
    plugins.forget()
    for registry in kinds().values():
        registry.forget()


def files(names: Mapping[str, Iterable[str]]) -> list[Path]:
    """Plug-in files that what is named comes from, each once.

    Args:
        names: Kind -> names; of those that there are not, none.
    """
    found = [kinds()[kind].file(name) for kind, given in names.items() for name in given]
    return list(dict.fromkeys(path for path in found if path is not None))


def origin(name: str) -> str:
    """Where a method comes from, for messages: its plug-in file, or its entry point."""
    file = methods().file(name)
    return plugins.display_path(file) if file else f"method {name}"


def foreign() -> set[str]:
    """Names of benchmarks that are not built in."""
    return set(benchmarks().names()) - set(benchmarks().own())


def of_family(name: str) -> bool:
    """Whether a benchmark's name is `family:rest` with a family that there is."""
    return benchmarks().has_family(name)


def explain(error: BaseException) -> str:
    """One line about an error: type, message, and path and line of the plug-in that led to it, if one did."""
    found = [root for registry in kinds().values() for root in registry.roots()]
    if plugins.locate(error, found) is not None:
        return plugins.explain(error, *found)
    return headline(error)


def explain_call(error: BaseException) -> str:
    """As `explain`, of what a user's function has raised, which may be in a script or a notebook."""
    found = [root for registry in kinds().values() for root in registry.roots()]
    place = plugins.locate(error, found) or plugins.locate_own_code(error)
    where = f"{plugins.display_path(place[0])}, line {place[1]}: " if place else ""
    return where + headline(error)
