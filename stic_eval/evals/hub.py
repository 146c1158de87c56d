"""A benchmark's rows on the Hugging Face hub: under the newest of its ids that is available.

Data sets move. A pinned commit is the same under each id, so that a copy which is in the local cache under a
former id is as good as the newest, and nothing is asked or downloaded for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.contracts.benchmark import HubData, HubId
from stic_eval.errors import UserError, first_line

if TYPE_CHECKING:
    from datasets import Dataset

Tell = Callable[[str], None]

_LOCAL_COPY = "`score --rows FILE`, `run -o rows.NAME=FILE`, `data check --from FILE`"
_COMMIT = 40  # hex digits; what is shorter, or no number, is a branch or tag, which may have gone on


def label_of(hub: HubData, at: HubId) -> str:
    """A split under one of its ids, for people."""
    return f"{at.path}{f' ({hub.name})' if hub.name else ''}, split {hub.split}"


def pattern(hub: HubData) -> str:
    """The split's own files: `load_dataset` would fetch the training images as well."""
    return f"{hub.name or 'data'}/{hub.split}-*.parquet"


def plan_source(hub: HubData) -> tuple[HubId, bool]:
    """Which id rows would come from, and whether a copy is in the local cache; nobody is asked."""
    copy = next((at for at in hub.ids if _is_usable(at) and cached_folder(hub, at) is not None), None)
    return (copy or hub.ids[0], copy is not None)


def cached_folder(hub: HubData, at: HubId) -> Path | None:
    """The folder of the local cache that holds the split under an id; None: there is none."""
    try:
        return _snapshot(hub, at, local_files_only=True)
    except Exception:  # the hub's client raises a dozen kinds
        return None


def _snapshot(hub: HubData, at: HubId, **how: Any) -> Path | None:
    from huggingface_hub import snapshot_download

    folder = Path(
        snapshot_download(
            at.path, repo_type="dataset", revision=at.revision, allow_patterns=[pattern(hub)], **how
        )
    )  # fmt: skip
    # Of this split: a snapshot that holds another one is found as well.
    return folder if any(folder.glob(pattern(hub))) else None


def _is_usable(at: HubId) -> bool:
    """Whether a cached copy may be used: that of a commit always, that of a branch when offline."""
    from huggingface_hub import is_offline_mode

    return is_offline_mode() or is_commit(at.revision)


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit, which is the same under each id and for ever."""
    return len(revision) == _COMMIT and set(revision) <= set("0123456789abcdef")


def find(who: str, hub: HubData, tell: Tell) -> Iterator[tuple[HubId, Path | Dataset]]:
    """The split's copies, the best first: those of the cache, then those of the hub, the newest id first.

    Whoever cannot use one takes the next.

    Args:
        tell: Says in a line that an id redirects, is not available, or is not the newest.

    Raises:
        UserError: No further one is left; names each id that there is nothing under, and why.
    """
    from huggingface_hub import is_offline_mode

    for at in hub.ids:
        if _is_usable(at) and (folder := cached_folder(hub, at)) is not None:
            if at != hub.ids[0]:
                tell(f"{who}: rows of the local cache under a former id, {at.path} (now {hub.path})")
            yield _pin_commit(at, folder), folder
    failed: list[str] = []
    for at, following in zip(hub.ids, (*hub.ids[1:], None), strict=True):
        try:
            found = _fetch(hub, at)
        except Exception as error:  # the hub's client raises a dozen kinds
            copies = (cached_folder(hub, other) for other in hub.ids)
            if _is_unreachable(error) and not any(copies):  # nor for another id, after half a minute more
                raise UserError(
                    f"{who}: the hub cannot be reached, and {label_of(hub, at)}, is not in the local cache; "
                    f"give a local copy: {_LOCAL_COPY}"
                ) from error
            reason = f"{type(error).__name__}: {first_line(error)}"
            why = "" if is_offline_mode() else f": {reason}"
            failed.append(f"{label_of(hub, at)}, revision {at.revision}{why}")
            if following is not None and not is_offline_mode():
                tell(f"{who}: {at.path} is not available ({reason}); trying {following.path}")
            continue
        if new := None if is_offline_mode() else _new_id(at):
            tell(f"{who}: {at.path} has moved to {new} on the hub, which answers for it")
        yield _pin_commit(at, found), found
    if failed:
        raise UserError(f"{who}: {_not_there(failed)}")


def _fetch(hub: HubData, at: HubId) -> Path | Dataset:
    from datasets import load_dataset

    folder = _snapshot(hub, at)
    return folder or load_dataset(at.path, hub.name, split=hub.split, revision=at.revision)


def _pin_commit(at: HubId, found: Path | Dataset) -> HubId:
    """The id with the commit that its branch or tag comes to, where that is known."""
    # <cache>/datasets--x--y/snapshots/<commit>
    commit = found.name if isinstance(found, Path) and is_commit(found.name) else at.revision
    return HubId(at.path, commit)


def _new_id(at: HubId) -> str | None:
    """The id that the hub gives a data set by now, if that is another one."""
    from huggingface_hub import HfApi

    try:
        new = HfApi().dataset_info(at.path, revision=at.revision).id
    except Exception:  # it has just been there; only a remark is lost
        return None
    return new if new and new != at.path else None


def _is_unreachable(error: BaseException) -> bool:
    """Whether nobody has answered: there is no network, or a proxy or firewall is in the way."""
    from huggingface_hub import is_offline_mode

    seen: BaseException | None = error
    while seen is not None and not is_offline_mode():
        # httpx has a kind for this, and requests, which earlier clients use, another one.
        if {"TransportError", "ConnectionError"} & {kind.__name__ for kind in type(seen).__mro__}:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _not_there(failed: list[str]) -> str:
    from huggingface_hub import is_offline_mode

    advice = f"or give a local copy: {_LOCAL_COPY}"
    if is_offline_mode():
        under = f" (nor under a former id: {'; '.join(failed[1:])})" if len(failed) > 1 else ""
        return (
            f"{failed[0]}, is not in the local cache{under}; "
            f"without --offline it would be downloaded ({advice})"
        )
    return f"cannot get from the hub {'; nor '.join(failed)} ({advice})"
