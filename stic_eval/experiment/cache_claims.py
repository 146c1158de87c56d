"""What runs need of a cache: each writes it down there, in `<cache>/runs/`, before it does anything.

So whoever frees space knows of all runs that use a cache, wherever their folders lie. Of runs of earlier
versions, which wrote nothing down, their scores.json and config.yaml say it as far as they do.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stic_eval import lease
from stic_eval.errors import RunError, UserError
from stic_eval.report import runs
from stic_eval.store import atomic_write, read_object

if TYPE_CHECKING:
    from stic_eval.experiment.planning import Experiment
    from stic_eval.experiment.resources import Resources
    from stic_eval.report.runs import Scores


@dataclass(frozen=True)
class Claim:
    """What one run needs of a cache.

    Attributes:
        folder: The run's.
        stages: Names of stages' folders: of its adapters, and of what these are made of.
        responses: File of the base model's answers; empty: the run does not say.
        evaluates: Whether it evaluates, or trains only.
        used: When it last started, in seconds since 1970; 0: not known.
        known: Whether that is all that it needs; False: an earlier version began it and wrote nothing down.
        host: The machine that it was started on.
    """

    folder: Path
    stages: tuple[str, ...]
    responses: str = ""
    evaluates: bool = True
    used: float = 0.0
    known: bool = True
    host: str = ""

    @property
    def is_away(self) -> bool:
        """Whether its folder is not seen here, and may still lie on another machine that shares the cache."""
        return self.host not in ("", socket.gethostname()) and not (self.folder / "config.yaml").is_file()

    @property
    def at_work(self) -> str:
        """Who is at work in the run's folder, in words; empty: nobody."""
        return lease.holder(self.folder / ".lease")

    def is_unfinished(self, stages: Path) -> bool:
        """Whether the run's command would do more than read what there is.

        Args:
            stages: The cache's folder of finished stages.
        """
        if not self.evaluates and not (self.folder / "scores.json").is_file():
            return not all((stages / name / "manifest.json").is_file() for name in self.stages)
        try:
            found = runs.load(self.folder)
        except UserError:
            return True
        unanswered = any(s.unanswered for entry in found.entries for s in entry.summaries.values())
        return bool(found.unfinished_notes()) or unanswered


def stage_folder(name: str, key: str) -> str:
    """What the folder of a stage is called."""
    return f"{name}-{key[:16]}"


def write(experiment: Experiment, resources: Resources) -> None:
    """Writes down what a run needs of its cache, unless that is its own.

    A cache that takes no more is no reason to end a run: what is pruned too early is made again.
    """
    at = resources.config.folder.absolute()
    trained = any(subject.stages for subject in experiment.subjects)
    if resources.cache.absolute().is_relative_to(at) or not (trained or experiment.evaluations):
        return
    names = [stage_folder(stage.name, key) for one in experiment.subjects for stage, key in one.stages]
    claim = Claim(
        at,
        tuple(dict.fromkeys(names)),
        f"{resources.fingerprint[:16]}.sqlite",
        bool(experiment.evaluations),
        host=socket.gethostname(),
    )
    data = asdict(claim) | {"folder": str(at)}
    del data["used"], data["known"]
    with suppress(UserError, RunError):
        atomic_write(_path(resources.cache, at), json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def _path(cache: Path, folder: Path) -> Path:
    return cache / "runs" / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.json"


def read(cache: Path, more: Iterable[Path] = ()) -> list[Claim]:
    """What runs need that still have a folder.

    Args:
        cache: Its folder.
        more: Folders of runs, of which those that have written nothing down are looked into.
    """
    found = written_down(cache)
    # A folder refers to what it was evaluated with, whatever was planned since.
    found = [replace(c, stages=tuple(dict.fromkeys((*c.stages, *_stages_of(c.folder))))) for c in found]
    written = {claim.folder.resolve() for claim in found}
    return [*found, *(_former(path) for path in more if path.resolve() not in written and _has_begun(path))]


def written_down(cache: Path) -> list[Claim]:
    """What runs have written down that still have a folder, here or perhaps on another machine."""
    return [claim for path in sorted((cache / "runs").glob("*.json")) if (claim := _read(path))]


def _read(path: Path) -> Claim | None:
    """A claim as it was written; None: it cannot be read, or the run's folder is gone."""
    data = read_object(path)
    try:
        folder, stages = Path(data["folder"]), tuple(map(str, data["stages"]))
        used = path.stat().st_mtime
        evaluates, host = bool(data["evaluates"]), str(data.get("host", ""))
        claim = Claim(folder, stages, str(data["responses"]), evaluates, used, host=host)
    except (OSError, KeyError, TypeError):
        return None
    return claim if claim.is_away or (folder / "config.yaml").is_file() else None


def gone(cache: Path) -> dict[Path, str]:
    """File of a claim -> the run's folder, which is not there any more."""
    paths = sorted((cache / "runs").glob("*.json"))
    return {path: str(read_object(path).get("folder", "?")) for path in paths if _read(path) is None}


def withdraw(cache: Path, folder: Path) -> None:
    """Takes back what a run has written down, as its folder is deleted."""
    with suppress(OSError):
        _path(cache, folder.absolute()).unlink()


def _has_begun(folder: Path) -> bool:
    """Whether a folder with settings is that of a run that has begun, and not just a place for settings."""
    return any((folder / name).is_file() for name in ("scores.json", "run.log"))


def _former(folder: Path) -> Claim:
    """What can be told of a run that has written nothing down: all if it is finished."""
    scores: Scores | None = None
    with suppress(UserError):
        scores = runs.load(folder)
    model = read_object(folder / "manifest.json").get("model")
    fingerprint = model.get("fingerprint") if isinstance(model, dict) else None
    responses = f"{fingerprint[:16]}.sqlite" if isinstance(fingerprint, str) else ""
    known = scores is not None and not scores.unfinished_notes()
    return Claim(folder, tuple(_stages_of(folder)), responses, known=known)


def _stages_of(folder: Path) -> dict[str, None]:
    """Folders of the stages that a run's scores say its adapters come from."""
    with suppress(UserError):
        stages = (stage for entry in runs.load(folder).entries for stage in entry.stages)
        return dict.fromkeys(stage_folder(stage.name, stage.key) for stage in stages)
    return {}


def adapters_of(folder: Path) -> Iterator[Path]:
    """Where the adapters lie, or may, that a run was given from elsewhere (`--adapter`).

    A path that does not say where it starts was given in the folder that the command was called in: this
    one, or one that leads to the run's.
    """
    from stic_eval.config_layers import read_file

    with suppress(UserError, TypeError, ValueError):
        for adapter in read_file(folder / "config.yaml").get("adapters") or ():
            for start in (Path.cwd(), *folder.absolute().parents):
                if (path := start / str(adapter)).exists():
                    yield path.resolve()
