"""No module needs one that needs it, by whatever way: imports for types and in functions count."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules(root: Path) -> dict[str, Path]:
    """Module -> its file."""
    found = {}
    for path in (root / "stic_eval").rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """What a file imports anywhere: of `from a import b` the module b, if there is one, else a."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = name.split(".") + ["__init__"] * (path.name == "__init__.py")
            start = above[: -node.level] if node.level else []
            module = ".".join([*start, *filter(None, [node.module])])
            inner = (f"{module}.{alias.name}" for alias in node.names)
            found |= {one if one in known else module for one in inner}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & known.keys()


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules of which each needs all others (Tarjan's strongly connected components)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in graph[name]:
            if other not in order:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == order[name]:
            at = stack.index(name)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for name in graph:
        if name not in order:
            visit(name)
    return found


def test_modules_do_not_go_round_in_circles() -> None:
    known = modules(ROOT)
    graph = {name: imported(name, path, known) - {name} for name, path in known.items()}
    assert circles(graph) == []


def test_a_circle_is_found_however_it_is_hidden(tmp_path: Path) -> None:
    folder = tmp_path / "stic_eval"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "a.py").write_text("from stic_eval import b\n")
    (folder / "b.py").write_text("def f():\n    from stic_eval.c import g\n")
    (folder / "c.py").write_text("if TYPE_CHECKING:\n    import stic_eval.a\n")
    (folder / "d.py").write_text("import stic_eval.a\n")
    (folder / "x.py").write_text("def f():\n    from . import y\n")
    (folder / "y.py").write_text("from .x import f\n")
    known = modules(tmp_path)
    graph = {name: imported(name, path, known) for name, path in known.items()}
    assert sorted(circles(graph)) == [
        ["stic_eval.a", "stic_eval.b", "stic_eval.c"],
        ["stic_eval.x", "stic_eval.y"],
    ]
