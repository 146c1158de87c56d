"""A run as one HTML file: self-contained, offline, and safe whatever models and data sets wrote.

What is not shown at once (answers, images, pairs) lies in blocks: `<script type="application/gzip">` with
gzipped JSON in base64, which no browser executes or reads as markup. The page's script unpacks a block
when it is looked at and writes texts as text nodes only; a content-security policy allows that one script
and style sheet by their hashes, and nothing from anywhere else.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.contracts.engine import ProgressUpdate
from stic_eval.printable import printable
from stic_eval.report import dark_figures, fact_marks, run_pairs, sample_browser, thumbnails
from stic_eval.report.run_adapters import adapter_folders
from stic_eval.report.runs import name_of
from stic_eval.store import atomic_write, read_object

if TYPE_CHECKING:
    from stic_eval.report.runs import Scores
    from stic_eval.types import ImageRef

CHUNK = 64  # images of one block: about what a page of the list shows
_ADAPTERS = 8  # whose places are shown
SCRIPTS = ("data.js", "facts.js", "samples.js", "pairs.js", "screen.js", "page.js")


@dataclass(frozen=True)
class SvgFigure:
    """A plot as the page shows it.

    Attributes:
        svg: A whole SVG document. It is shown as an image: nothing in it is executed.
    """

    title: str
    svg: str


@dataclass(frozen=True)
class PageFacts:
    """What the page says beside scores and samples.

    Attributes:
        table: The table and its notes as HTML, already escaped.
        warnings: What could not be shown, and why.
    """

    table: str
    gains: Sequence[SvgFigure] = ()
    curves: Sequence[SvgFigure] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class WrittenPage:
    """What was written.

    Attributes:
        warnings: All that could not be shown, pairs included, and why.
    """

    page: Path
    bytes: int
    pictures: thumbnails.Thumbnails
    warnings: tuple[str, ...]


def write(
    scores: Scores,
    folder: Path,
    out: Path,
    facts: PageFacts,
    *,
    refs: Mapping[str, ImageRef],
    stages: Path,
    budget: int = 20_000_000,
    n_pairs: int = 60,
    images: bool = True,
    progress: ProgressUpdate | None = None,
) -> WrittenPage:
    """Writes the report of a run, atomically.

    Args:
        out: The file. Images over the budget go to `<stem>_images` beside it.
        refs: Content hash -> image, of the benchmarks' rows.
        stages: The cache's folder of finished stages.
        budget: Bytes of images in the file.
        n_pairs: Preference pairs shown of each seed.
        images: Whether images are shown at all.
        progress: Called with (images done, images in all).

    Raises:
        UserError: A file of records is damaged.
    """
    wanted: dict[str, int] = {}
    sides = sample_browser.sides(scores)
    compared, columns = sample_browser.opening(scores)
    between = sample_browser.compared_folders(sides, compared)
    known = fact_marks.truths(refs)
    packed: list[tuple[str, bytes]] = []
    changing: dict[str, list[list[float | None]]] = {}
    for column in scores.columns:
        watched = [f"answers:{column.name}:{folder}" for folder in between]
        for name, block in sample_browser.blocks(folder, column.name, scores.entries, wanted, known):
            packed.append((name, squeeze(block)))
            if name in watched:
                changing.setdefault(column.name, []).append(block["score"])
    sets, missing = run_pairs.read(scores, stages, n_pairs) if n_pairs else ([], [])
    paired = {
        ref.sha256: ref for group in sets for pair in group.pairs for ref in (pair.image, pair.spoilt) if ref
    }
    for sha in paired:
        wanted.setdefault(sha, len(wanted))
    packed += [
        (f"pairs:{number}", squeeze([_pair(pair, wanted) for pair in group.pairs]))
        for number, group in enumerate(sets)
    ]
    beside = out.with_name(f"{out.stem}_images")
    shown = thumbnails.make(list(wanted) if images else [], {**refs, **paired}, budget, beside, progress)
    packed += [
        (f"images:{start // CHUNK}", squeeze(shown.addresses[start : start + CHUNK]))
        for start in range(0, len(shown.addresses), CHUNK)
    ]
    warnings = list(facts.warnings)
    if shown.missing:
        warnings.append(f"{shown.missing:,} of {len(shown.addresses):,} images could not be read.")
    meta = {
        "benchmarks": [{"name": column.name, "title": printable(column.title)} for column in scores.columns],
        "sides": [asdict(side) for side in sides],
        "compared": compared,
        "columns": columns,
        "start": sample_browser.first_listed([column.name for column in scores.columns], changing),
        "pairs": [{"label": group.label, "total": group.total} for group in sets],
        "chunk": CHUNK,
    }
    blocks = [("meta", squeeze(meta)), *packed]
    pieces = _render(
        scores, folder, facts, warnings=warnings, blocks=((name, as_text(data)) for name, data in blocks),
        beside=shown.folder is not None, n_sets=len(sets), n_sides=len(sides), n_pairs=n_pairs,
        unpaired=missing,
    )  # fmt: skip
    # Piece by piece: a large page is never held as a whole.
    atomic_write(out, (piece.encode("utf-8", "backslashreplace") for piece in pieces))
    size = out.stat().st_size
    if shown.folder is None:
        thumbnails.clear(beside)
    return WrittenPage(out, size, shown, (*warnings, *missing))


def squeeze(value: object) -> bytes:
    """A value as gzipped JSON; equal values give equal bytes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return gzip.compress(text.encode("utf-8", "backslashreplace"), compresslevel=6, mtime=0)


def as_text(squeezed: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(squeezed).decode("ascii")


def _pair(pair: run_pairs.PairExample, numbers: Mapping[str, int]) -> dict[str, Any]:
    return {
        "prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected,
        "negative": pair.negative, "source": pair.source, "image": numbers[pair.image.sha256],
        "spoilt": None if pair.spoilt is None else numbers[pair.spoilt.sha256],
    }  # fmt: skip


def _render(
    scores: Scores,
    folder: Path,
    facts: PageFacts,
    *,
    beside: bool,
    **values: object,
) -> Iterator[str]:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    script = "\n".join(_resource(name) for name in SCRIPTS)
    style = _resource("page.css")
    # Beside a page that was opened from disk images are files, beside one on a server of its own origin.
    pictures = "data: file: 'self'" if beside else "data:"
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        f"img-src {pictures}; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    manifest = read_object(folder / "manifest.json")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["shown"] = lambda value: printable(str(value))
    template = environment.from_string(_resource("template.html.j2"))
    return template.generate(
        name=name_of(folder),
        scores=scores,
        facts=facts,
        table=Markup(facts.table),
        policy=policy,
        script=Markup(script),
        style=Markup(style),
        darkened=dark_figures.darken,
        data_address=lambda svg: "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode(),
        provenance=list(_provenance(folder)),
        model=dict(_facts(scores, manifest))["Model"],
        started=str(manifest.get("started") or "")[:16].replace("T", " "),
        facts_of_run=[*_facts(scores, manifest), *_adapters(scores, folder)],
        stages=_stages(scores),
        seeds=sorted({entry.seed for entry in scores.entries if entry.seed is not None}),
        **values,
    )


def _resource(name: str) -> str:
    return (files("stic_eval.report") / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """A content-security policy's name of an inlined block."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _facts(scores: Scores, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the manifest says about the run, as lines; what it does not hold is left out."""
    model, versions = manifest.get("model"), manifest.get("versions")
    model = model if isinstance(model, dict) else {}
    yield "Run", str(manifest.get("run") or scores.run)
    yield "Model", scores.model or str(model.get("name", "not recorded"))
    seconds = manifest.get("seconds")
    stages = {stage.key: stage for entry in scores.entries for stage in entry.stages}.values()
    trained, whole = sum(stage.seconds for stage in stages), all(stage.known for stage in stages)
    lines = {
        "Fingerprint": model.get("fingerprint"),
        "Weights in memory": model.get("dtype"),
        "Command": shlex.join(["stic-eval", *map(str, command)])
        if isinstance(command := manifest.get("command"), list) else None,
        "Started": manifest.get("started"),
        "Last call": f"{seconds:,.0f} s (finished parts came from the cache)"
        if isinstance(seconds, int | float) else None,
        "Stages": f"{'' if whole else 'more than '}{trained:,.0f} s in all, when they were computed"
        if trained else None,
        "Settings": manifest.get("key"),
        "Python": manifest.get("python"),
        "Platform": manifest.get("platform"),
        "Versions": ", ".join(f"{name} {number}" for name, number in versions.items())
        if isinstance(versions, dict) else None,
    }  # fmt: skip
    yield from ((name, str(value)) for name, value in lines.items() if value)


def _adapters(scores: Scores, folder: Path) -> Iterator[tuple[str, str]]:
    """Where the run's adapters lie, the first few of them."""
    found = adapter_folders(scores, folder)
    yield from ((f"Adapter of {name}", str(path)) for name, path in [*found.items()][:_ADAPTERS])
    if len(found) > _ADAPTERS:
        yield "More adapters", f"{len(found) - _ADAPTERS}: stic-eval show {name_of(folder)} lists them"


def _stages(scores: Scores) -> list[dict[str, Any]]:
    """Each stage once, with the entries whose adapters came from it: the first two, and the others."""
    found: dict[str, dict[str, Any]] = {}
    for entry in scores.entries:
        for stage in entry.stages:
            line = found.setdefault(stage.key, {**asdict(stage), "key": stage.key[:16], "users": []})
            line["users"].append(entry.folder)
    return [
        {**line, "users": ", ".join(line["users"][:2]), "more": line["users"][2:]} for line in found.values()
    ]


def _provenance(folder: Path) -> Iterator[tuple[str, str]]:
    """The files that say where the numbers come from."""
    for name in ("config.yaml", "ablation.json", "manifest.json"):
        try:
            yield name, printable((folder / name).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
