"""A run's records as logs of Inspect (inspect_ai), one for each variant and benchmark, for its viewer.

The form is version 2 of `inspect_ai.log.EvalLog` in JSON. Images are named by the sha256 of their content and
are not in it; neither is a path of this machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from stic_eval.report.compared_variants import label
from stic_eval.report.model_card import public, public_values
from stic_eval.report.run_texts import RunOrigin, public_name, target_texts
from stic_eval.report.runs import Entry, Scores, records_of
from stic_eval.report.table_rows import Column
from stic_eval.store import content_key, file_name, read_jsonl

VERSION = 2


def write_logs(run: Path, scores: Scores, origin: RunOrigin, folder: Path) -> Iterator[tuple[Entry, str]]:
    """Writes the logs of a run.

    Args:
        run: Its folder.
        scores: What it came to.
        origin: When and with what it was made.
        folder: To write into, one level deep.

    Yields:
        Variant and benchmark of each log.

    Raises:
        UserError: Records are not what was written.
    """
    stamp = origin.started.replace(":", "-")
    for entry in scores.entries:
        for column in scores.columns:
            path = records_of(run, entry, column.name)
            if column.name not in entry.summaries or not path.is_file():
                continue
            key = content_key([scores.run, entry.folder, column.name, entry.keys.get(column.name, "")])
            name = f"{stamp}_{file_name(f'{column.name}-{entry.folder}')}_{key[:16]}.json"
            with (folder / name).open("w", encoding="utf-8", errors="backslashreplace") as file:
                _write(file, entry, column, scores, origin, path, key)
            yield entry, column.name


def _write(
    file: IO[str], entry: Entry, column: Column, scores: Scores, origin: RunOrigin, path: Path, key: str
) -> None:
    """Writes a log, a sample at a time: a benchmark may have many."""
    model = f"stic-eval/{public_name(scores.model)}"
    ids = [str(record.get("id")) for record in read_jsonl(path)]
    head = {
        "version": VERSION,
        "status": "success",
        "eval": _spec(entry, column, scores, origin, ids, key, model),
        "plan": {"name": "plan", "steps": [{"solver": entry.solver.name, "params": {}}], "config": {}},
        "results": _results(entry, column, len(ids)),
        "stats": {"started_at": origin.started, "completed_at": origin.started, "model_usage": {}},
    }
    file.write(json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}") + ',\n "samples": [\n')
    for number, record in enumerate(read_jsonl(path)):
        file.write(",\n" if number else "")
        file.write(json.dumps(_sample(record, model), ensure_ascii=False))
    file.write("\n]}\n")


def _spec(
    entry: Entry, column: Column, scores: Scores, origin: RunOrigin, ids: list[str], key: str, model: str
) -> dict[str, Any]:
    metadata = {
        "run": scores.run, "variant": label(entry), "method": entry.method, "seed": entry.seed,
        "benchmark": column.title, "protocol": column.protocol, "grader": column.grader,
        "key": entry.keys.get(column.name, ""),
        **{axis: str(value) for axis, value in entry.settings.items()},
    }  # fmt: skip
    return {
        "eval_id": key[:22],
        "run_id": content_key([scores.run])[:22],
        "created": origin.started,
        "task": column.name,
        "task_id": content_key([scores.run, column.name])[:22],
        "task_version": column.version,
        "task_display_name": f"{column.title}: {label(entry)}",
        "solver": entry.solver.name,
        "tags": ["stic-eval"],
        "dataset": {"name": column.title, "samples": len(ids), "sample_ids": ids, "shuffled": False},
        "model": model,
        "model_args": {"variant": entry.folder},
        "config": {"epochs": 1},
        "packages": dict(origin.versions),
        "metadata": metadata,
    }


def _results(entry: Entry, column: Column, samples: int) -> dict[str, Any]:
    """The score in percent, as tables have it: units may be groups of samples, or weighted."""
    summary = entry.summaries[column.name]
    metrics = (
        {}
        if summary.score is None
        else {"percent": {"name": "percent", "value": summary.score, "params": {}}}
    )
    score = {
        "name": "score", "scorer": column.grader or "rules", "params": {}, "metrics": metrics,
        "scored_samples": samples - summary.unscored if summary.n == samples else None,
        "unscored_samples": summary.unscored if summary.n == samples else None,
        "metadata": {"units": summary.n, "units_unscored": summary.unscored, **summary.breakdown},
    }  # fmt: skip
    return {"total_samples": samples, "completed_samples": samples, "scores": [score]}


def _sample(record: Mapping[str, Any], model: str) -> dict[str, Any]:
    question, response = str(record.get("question") or ""), str(record.get("response") or "")
    content: Any = response
    if record.get("thinking"):
        content = [{"type": "reasoning", "reasoning": str(record["thinking"])}]
        content += [{"type": "text", "text": response}]
    answer = {"role": "assistant", "content": content, "source": "generate", "model": model}
    asked = [{"role": "user", "content": question, "source": "input"}]
    stop = "max_tokens" if record.get("unclosed") else "stop"
    metadata = {
        name: public_values(record[name])
        for name in ("images", "group", "description", "meta", "judge", "seconds", "n_tokens")
        if record.get(name) not in (None, {}, [])
    }
    sample = {
        "id": str(record.get("id")),
        "epoch": 1,
        "input": asked,
        "target": target_texts(record.get("target")),
        "messages": [*asked, answer],
        "output": {
            "model": model, "choices": [{"message": answer, "stop_reason": stop}], "completion": response,
        },
        "metadata": metadata,
        "store": {}, "events": [], "model_usage": {}, "attachments": {},
    }  # fmt: skip
    if record.get("score") is None:
        metadata["unscored"] = public(str(record.get("why") or ""))
        return sample
    weight = record.get("weight", 1.0)
    score = {
        "value": record["score"],
        "answer": record.get("answer"),
        "explanation": public_values(record.get("why")),
        **({} if weight == 1 else {"metadata": {"weight": weight}}),
    }
    return sample | {"scores": {"score": score}}
