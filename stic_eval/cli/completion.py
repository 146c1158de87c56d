"""What a shell offers when the tab key is pressed: names of what there is."""

from __future__ import annotations

from collections.abc import Callable


def complete(kind: str) -> Callable[[str], list[str]]:
    """A function from what was typed to names that begin so; after a comma, to the next name."""

    def matching_names(incomplete: str) -> list[str]:
        before, comma, word = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names(kind) if name.startswith(word)]

    return matching_names


def names(kind: str) -> list[str]:
    """What there is of a kind; if that cannot be told, nothing: a shell's prompt is no place for an error.

    Args:
        kind: A registry's kind, or `preset`, `ablation`, `profile`, `run`, or `any` of them.
    """
    from stic_eval import profiles, registry
    from stic_eval.ablations import spec
    from stic_eval.config_layers import preset_names
    from stic_eval.errors import UserError
    from stic_eval.report import runs

    found: dict[str, Callable[[], list[str]]] = {
        **{name: known.names for name, known in registry.kinds().items()},
        "preset": preset_names,
        "ablation": spec.shipped_names,
        "profile": lambda: list(profiles.SHIPPED),
        "run": lambda: [runs.name_of(folder) for folder in runs.runs()],
    }
    try:
        return [name for one in ([kind] if kind != "any" else found) for name in found[one]()]
    except (UserError, OSError):
        return []
