"""The model card of an adapter, or of a model that it was merged into: Markdown with the hub's metadata.

What a card says goes out to others. Texts of plug-ins and files are escaped, and of a path on this machine
the last part stands alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from stic_eval.printable import printable
from stic_eval.report.cell_text import delta_text, interval_text, markdown, one_line, score_text
from stic_eval.report.runs import TrainedStage
from stic_eval.report.table_rows import AVERAGE, TableRow
from stic_eval.report.tables import Table

# Where a path begins that means something on this machine alone (from the root, a home, the working
# directory, a drive or a server's share), or an address, which stays.
_PATH = re.compile(
    r"""(?:^ | (?<=[\s,;:=\[({"'`<>|@]))
    (?: (?P<address>(?!file:)[A-Za-z][\w+.-]+://(?!/)[^\s,]*)
      | /+(?=[^\s/]) | ~[\w.-]*[/\\] | \.{1,2}[/\\] | [A-Za-z]:[/\\] | \\\\(?=\w) )""",
    re.VERBOSE | re.MULTILINE,
)
# Who somebody is to a server, which is nobody else's business.
_USER = re.compile(r"//[^\s/?#]*@")


@dataclass(frozen=True)
class RowsOrigin:
    """Where a benchmark's test rows came from.

    Attributes:
        dataset: Hub id, or what else they are.
        metric: In a few words.
    """

    dataset: str
    split: str = ""
    config: str = ""
    revision: str = ""
    metric: str = ""


@dataclass(frozen=True)
class CardFacts:
    """What a card states.

    Attributes:
        paper: Of the method; may be empty.
        base: The base model as it was given: hub id, a folder's name, or `pocket`.
        base_id: Its hub id; empty for a local one.
        revision: Of a hub id; None: the one that was current.
        fingerprint: Of the base model, by content.
        dtype: Weights in memory while it was trained and measured.
        packed: How weights were packed meanwhile; None: they were not.
        asked: How it was asked meanwhile; empty: as its processor has it.
        merged: Type of the merged model's weights; empty for an adapter by itself.
        data: What it learnt from, a line each.
        departures: An ablation's settings that differ, as `axis=value`.
        stages: What it was trained by, the first first.
        table: The baseline and this model, by benchmark; None: nothing was measured.
        rows: Benchmark -> where its rows came from.
        versions: Package -> version that it was trained with.
        command: Of the run; empty if nobody knows.
    """

    name: str
    title: str
    method: str
    base: str
    paper: str = ""
    base_id: str = ""
    revision: str | None = None
    fingerprint: str = ""
    dtype: str = ""
    packed: str | None = None
    asked: str = ""
    merged: str = ""
    seed: int = 0
    data: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    departures: Sequence[str] = ()
    stages: Sequence[TrainedStage] = ()
    table: Table | None = None
    rows: Mapping[str, RowsOrigin] = field(default_factory=dict)
    versions: Mapping[str, str | None] = field(default_factory=dict)
    command: Sequence[str] = ()


def card(facts: CardFacts) -> str:
    """The whole README.md."""
    parts = [
        f"---\n{metadata(facts)}\n---",
        f"# {markdown(facts.name)}",
        _what(facts),
        "## Use\n\n" + _use(facts),
        "## Base model\n\n" + _base(facts),
        "## Training\n\n" + _training(facts),
        "## Evaluation\n\n" + _evaluation(facts),
        "## Provenance\n\n" + _provenance(facts),
    ]
    return "\n\n".join(parts) + "\n"


def metadata(facts: CardFacts) -> str:
    """The hub's metadata in YAML, with scores as its `model-index`."""
    from huggingface_hub import ModelCardData

    results = _results(facts)
    relation: dict[str, Any] = (
        {"base_model_relation": "finetune" if facts.merged else "adapter"} if facts.base_id else {}
    )
    data = ModelCardData(
        library_name="transformers" if facts.merged else "peft",
        pipeline_tag="image-text-to-text",
        tags=["stic-eval", one_line(facts.method), *([] if facts.merged else ["lora"])],
        base_model=facts.base_id or None,
        model_name=one_line(facts.name) if results else None,
        eval_results=results or None,
        **relation,
    )
    return data.to_yaml().strip()


def _results(facts: CardFacts) -> list[Any]:
    """Scores that are whole, of the model without describe-and-respond where there are any."""
    from huggingface_hub import EvalResult

    trained = _trained_rows(facts.table)
    row = next((row for row in trained if row.variant.solver.plain), trained[0] if trained else None)
    if row is None or facts.table is None:
        return []
    found = []
    for column in facts.table.columns:
        cell, rows = row.cells[column.name], facts.rows.get(column.name, RowsOrigin(column.name))
        metric = [
            rows.metric.partition(";")[0] or "score",
            *([column.grader] if column.grader else []),
            "percent",
        ]
        if cell.score is not None and cell.complete:
            found.append(
                EvalResult(
                    task_type="image-text-to-text",
                    dataset_type=one_line(public(rows.dataset)),
                    dataset_name=one_line(column.title),
                    dataset_config=rows.config or None,
                    dataset_split=rows.split or None,
                    dataset_revision=rows.revision or None,
                    metric_type="score",
                    metric_name=one_line(", ".join(metric)),
                    metric_value=round(cell.score, 2),
                )
            )
    return found


def _trained_rows(table: Table | None) -> list[TableRow]:
    return [row for row in table.rows if row.variant.method != "baseline"] if table else []


# ---------------------------------------------------------------- sections


def _what(facts: CardFacts) -> str:
    kind = "merged with the adapter that" if facts.merged else "for which this is the LoRA adapter that"
    paper = f" ({markdown(facts.paper)})" if facts.paper else ""
    return f"{_code(facts.base)}, {kind} {markdown(facts.title)}{paper} trained. Made with stic-eval."


def _use(facts: CardFacts) -> str:
    base, named = repr(one_line(facts.base_id or f"PATH_OF_{facts.base}")), ""
    if facts.base == "pocket":
        base, named = 'files("stic_eval.pocket") / "model"', "from importlib.resources import files\n\n"
    revision = f", revision={facts.revision!r}" if facts.revision else ""
    if facts.merged:
        lines = [
            "from transformers import AutoModelForImageTextToText, AutoProcessor",
            "",
            'model = AutoModelForImageTextToText.from_pretrained("PATH_OF_THIS_FOLDER", dtype="auto")',
            'processor = AutoProcessor.from_pretrained("PATH_OF_THIS_FOLDER")',
        ]
    else:
        lines = [
            f"{named}from peft import PeftModel",
            "from transformers import AutoModelForImageTextToText",
            "",
            f'base = AutoModelForImageTextToText.from_pretrained({base}{revision}, dtype="auto")',
            'model = PeftModel.from_pretrained(base, "PATH_OF_THIS_FOLDER")',
        ]
    return _fence("\n".join(lines), "python")


def _base(facts: CardFacts) -> str:
    revision = facts.revision or ("the one that was current" if facts.base_id else "a local folder")
    if facts.base == "pocket":
        revision = "built into stic-eval"
    lines = [f"- Model: {_code(facts.base)}", f"- Revision: {markdown(revision)}"]
    lines += (
        [f"- Content: `{facts.fingerprint[:16]}`, by stic-eval's fingerprint"] if facts.fingerprint else []
    )
    packed = f", packed in {facts.packed.replace('bit', ' bits')} by bitsandbytes" if facts.packed else ""
    lines += [f"- Weights while it was trained and measured: {facts.dtype}{packed}"] if facts.dtype else []
    lines += [f"- Asked, in training as well, as: {markdown(facts.asked)}"] if facts.asked else []
    if facts.merged:
        lines.append(
            f"- Weights of this model: {facts.merged}; the measurements used the base with a separate "
            "adapter; these weights differ from that by rounding."
        )
        if facts.packed:
            lines.append(
                "- The adapter was trained on packed weights and merged into the base's unpacked ones: its "
                "answers are not exactly those that were measured."
            )
    return "\n".join(lines)


def _training(facts: CardFacts) -> str:
    lines = [f"- Method: {markdown(facts.title)} ({_code(facts.method)})", f"- Seed: {facts.seed}"]
    lines += [f"- Paper: {markdown(facts.paper)}"] if facts.paper else []
    lines += [f"- Data: {markdown(line)}" for line in facts.data]
    parts = ["\n".join(lines)]
    if facts.stages:
        head = "| Stage | Responses asked for | Optimiser steps | Seconds | Content key |"
        body = [
            f"| {markdown(s.name)} | {s.generations:,} | {s.steps:,} | {s.seconds:.0f} | `{s.key[:16]}` |"
            if s.known
            else f"| {markdown(s.name)} | unknown | unknown | unknown | `{s.key[:16]}` |"
            for s in facts.stages
        ]
        parts.append("\n".join([head, "| --- | ---: | ---: | ---: | --- |", *body]))
    if facts.departures:
        listed = ", ".join(_code(public(item)) for item in facts.departures)
        parts.append(
            f"It is a cell of an ablation, whose default is below, and departs from that by {listed}."
        )
    options = yaml.safe_dump(public_values(facts.options), sort_keys=False, allow_unicode=True)
    parts.append("All settings of the method:\n\n" + _fence(options.rstrip(), "yaml"))
    return "\n\n".join(parts)


def _evaluation(facts: CardFacts) -> str:
    table = facts.table
    if table is None or not _trained_rows(table):
        return "It was not evaluated."
    rows = [row for row in table.rows if any(cell.score is not None for cell in row.cells.values())]
    head, line = ["Benchmark", "n"], ["---", "---:"]
    for row in rows:
        differs = any(cell.difference for cell in row.cells.values())
        head += [markdown(row.label), *(["Difference [95 %]"] if differs else [])]
        line += ["---:"] * (2 if differs else 1)
    lines = [head, line]
    for name, title in table.fields:
        cells = [row.cells[name] for row in rows]
        n = max((cell.n for cell in cells if cell.n is not None), default=None)
        texts = [markdown(title), "" if n is None else f"{n:,}"]
        for row, cell in zip(rows, cells, strict=True):
            texts.append(score_text(cell))
            if any(other.difference for other in row.cells.values()):
                texts.append(f"{delta_text(cell)} {interval_text(cell)}".strip().replace("*", r"\*"))
        lines.append([f"**{text}**" if name == AVERAGE and text else text for text in texts])
    notes = [f"- {markdown(note)}" for note in table.notes]
    return "\n".join([*("| " + " | ".join(parts) + " |" for parts in lines), "", *notes])


def _provenance(facts: CardFacts) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items() if version)
    lines = [f"- Versions: {markdown(versions)}"] if versions else []
    if facts.command:
        command = " ".join(public(part) for part in facts.command)
        lines.append(f"- Command: {_code('stic-eval ' + command)}")
    return "\n".join(lines) or "Unknown."


def public(text: str) -> str:
    """A text in which of paths on this machine the last part stands alone: `…/train2014`.

    Of an address, user name and password are left out.

    A path goes on to the next one, to the next address or to the end of the line: names of folders may hold
    whatever else could end it. So of what follows one, too much may go, but never too little.
    """
    marks = list(_PATH.finditer(text))
    bounds = [*(mark.start() for mark in marks), len(text)]
    shown = [text[: bounds[0]]]
    for mark, end in zip(marks, bounds[1:], strict=True):
        if mark["address"]:
            shown.append(_USER.sub("//", text[mark.start() : end]))
            continue
        path, line_break, rest = text[mark.start() : end].partition("\n")
        shown += ["…/", re.split(r"[/\\]", path.rstrip("/\\"))[-1], line_break, rest]
    return "".join(shown)


def public_values(value: Any) -> Any:
    """A value with all texts in it made `public`."""
    if isinstance(value, Mapping):
        return {name: public_values(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [public_values(inner) for inner in value]
    return public(value) if isinstance(value, str) else value


def _code(text: str) -> str:
    """A text as inline code, whatever backquotes it holds."""
    text = one_line(text)
    fence = "`" * (_longest(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def _fence(text: str, language: str) -> str:
    fence = "`" * max(3, _longest(text) + 1)
    return f"{fence}{language}\n{printable(text)}\n{fence}"


def _longest(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
