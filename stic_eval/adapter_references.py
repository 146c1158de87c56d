"""Adapters as a run's settings name them: where one lies, what it is called, what it is by content."""

from __future__ import annotations

import os
import re
from pathlib import Path

from stic_eval.digests import digest
from stic_eval.errors import UserError, headline

# Where the hub's client keeps a revision: <cache>/models--<owner>--<name>/snapshots/<commit>.
_SNAPSHOT = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})$")


def adapter_folder(given: Path) -> Path:
    """The folder of an adapter: the one given, or where the hub's client keeps what a hub id stands for.

    Raises:
        UserError: It can only be a hub id, and the hub (or its local cache) does not know it.
    """
    text, revision = given.as_posix(), None
    if given.exists():
        return given
    if snapshot := _SNAPSHOT.search(text):
        # In somebody else's cache, as a run's config.yaml has it.
        text, revision = f"{snapshot[1]}/{snapshot[2]}", snapshot[3]
    elif given.parent.is_dir() or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", text):
        return given  # what lies in a folder that there is can only be meant as a path
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(text, revision=revision, allow_patterns=["adapter_*"]))
    except Exception as error:  # the hub's client raises a dozen kinds
        raise UserError(
            f"--adapter {text}: neither a folder nor found on the hub or in its local cache: "
            f"{headline(error)}"
        ) from error


def split_adapter(text: str) -> tuple[str, str]:
    """`NAME=FOLDER` as name and folder, with `~` expanded; the name is empty where there is none.

    A text that is a path as it stands is one, whatever it holds.
    """
    name, equals, folder = text.partition("=")
    if equals and folder and re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) and not os.path.exists(text):
        return name, os.path.expanduser(folder)
    return "", os.path.expanduser(text)


def adapter_name(adapter: Path) -> str:
    """What an adapter is called: by its hub id or folder; by the folder above, if that is just `adapter`."""
    folder = Path(os.path.realpath(adapter))  # which links in a circle do not stop
    if snapshot := _SNAPSHOT.search(folder.as_posix()):
        return snapshot[2]
    return folder.parent.name if folder.name == "adapter" else folder.name


def adapter_content(folder: Path) -> list[str]:
    """An adapter by content: many lie in folders of one name, and one lies in many places."""
    try:
        return [digest(path) for path in sorted(folder.glob("adapter_*"))] or [str(folder)]
    except OSError:
        return [str(folder)]
