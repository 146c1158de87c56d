"""A run's scores as lm-evaluation-harness writes them: `results_*.json` and `samples_*.jsonl`.

The form is `lm_eval.result_schema.EvalResults` of version 0.4.13. Scores are shares of 1 there. Their
standard error is "N/A": ours are of pairs and of clusters of rows, for which that form has no place. Images
are named by the sha256 of their content.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from stic_eval.report.compared_variants import label
from stic_eval.report.model_card import public_values
from stic_eval.report.run_texts import RunOrigin, public_name, target_texts
from stic_eval.report.runs import Entry, Scores, records_of
from stic_eval.report.table_rows import Column
from stic_eval.store import file_name, read_jsonl

_METRIC, _FILTER = "score", "none"


def write_results(run: Path, scores: Scores, origin: RunOrigin, folder: Path) -> Iterator[tuple[Entry, str]]:
    """Writes a folder for each variant that was evaluated on anything.

    Args:
        run: The run's folder.
        scores: What it came to.
        origin: When and with what it was made.
        folder: To write into.

    Yields:
        Variant and benchmark, as far as they are written.

    Raises:
        UserError: Records are not what was written.
    """
    stamp = origin.started.replace(":", "-")
    for entry in scores.entries:
        columns = [column for column in scores.columns if column.name in entry.summaries]
        if not columns:
            continue
        name = f"{public_name(scores.model)},variant={entry.folder}"
        own = folder / _sanitized(name)
        own.mkdir()
        hashes = {}
        for column in columns:
            path = records_of(run, entry, column.name)
            if path.is_file():
                hashes[column.name] = _write_samples(
                    path, own / f"samples_{file_name(column.name)}_{stamp}.jsonl"
                )
            yield entry, column.name
        data = _results(entry, columns, scores, origin) | {"task_hashes": hashes} | _model(name, origin)
        text = json.dumps(data, indent=2, ensure_ascii=False)
        (own / f"results_{stamp}.json").write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def _results(entry: Entry, columns: list[Column], scores: Scores, origin: RunOrigin) -> dict[str, Any]:
    results, configs, samples = {}, {}, {}
    for column in columns:
        summary = entry.summaries[column.name]
        value: float | str = "N/A" if summary.score is None else summary.score / 100
        results[column.name] = {
            "name": column.name, "alias": column.name, "sample_len": summary.n,
            f"{_METRIC},{_FILTER}": value, f"{_METRIC}_stderr,{_FILTER}": "N/A",
        }  # fmt: skip
        configs[column.name] = {
            "task": column.name,
            "output_type": "generate_until",
            "num_fewshot": 0,
            "repeats": 1,
            "metric_list": [{"metric": _METRIC, "aggregation": "mean", "higher_is_better": True}],
            "metadata": {
                "version": column.version, "title": column.title, "protocol": column.protocol,
                "grader": column.grader, "unscored": summary.unscored, "breakdown_percent": summary.breakdown,
            },
        }  # fmt: skip
        samples[column.name] = {"original": summary.n, "effective": summary.n - summary.unscored}
    names = [column.name for column in columns]
    return {
        "results": results,
        "group_subtasks": {},
        "configs": configs,
        "versions": {column.name: column.version for column in columns},
        "n-shot": dict.fromkeys(names, 0),
        "higher_is_better": {name: {_METRIC: True} for name in names},
        "n-samples": samples,
        "config": {
            "model": "stic_eval",
            "model_args": {
                "pretrained": public_name(scores.model), "variant": entry.folder, "label": label(entry),
                "method": entry.method, "solver": entry.solver.name, "seed": entry.seed, "run": scores.run,
            },
            "batch_size": None, "batch_sizes": [], "device": None, "use_cache": None, "limit": None,
            "bootstrap_iters": 0, "gen_kwargs": {},
        },
        "date": datetime.fromisoformat(origin.started).timestamp(),
        "pretty_env_info": ", ".join(f"{name} {version}" for name, version in origin.versions.items()),
        "transformers_version": origin.versions.get("transformers", "N/A"),
        "upper_git_hash": None,
    }  # fmt: skip


def _sanitized(name: str) -> str:
    """A model's name as a folder, as the harness has it."""
    return re.sub(r'["<>:/|\\?*\[\]]+', "__", name)


def _model(name: str, origin: RunOrigin) -> dict[str, Any]:
    return {
        "model_source": "stic_eval",
        "model_name": name,
        "model_name_sanitized": _sanitized(name),
        "system_instruction": None, "system_instruction_sha": None, "fewshot_as_multiturn": None,
        "chat_template": None, "chat_template_sha": None,
        "total_evaluation_time_seconds": str(origin.seconds),
    }  # fmt: skip


def _write_samples(path: Path, to: Path) -> str:
    """Writes a line for each record; gives the digest of them all, as the harness has it."""
    hashes = []
    with to.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for number, record in enumerate(read_jsonl(path)):
            sample = _sample(number, record)
            hashes.append(sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"])
            file.write(json.dumps(sample, ensure_ascii=False) + "\n")
    return _hash("".join(hashes))


def _sample(number: int, record: Mapping[str, Any]) -> dict[str, Any]:
    question, target = str(record.get("question") or ""), target_texts(record.get("target"))
    response = str(record.get("response") or "")
    doc = {name: record.get(name) for name in ("id", "question", "images", "group", "target")}
    right = target if isinstance(target, str) else json.dumps(target, ensure_ascii=False)
    return {
        "doc_id": number,
        "doc": doc,
        "target": right,
        "arguments": {"gen_args_0": {"arg_0": question, "arg_1": {}}},
        "resps": [[response]],
        "filtered_resps": [record.get("answer") or response],
        "filter": _FILTER,
        "metrics": [_METRIC],
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(question),
        "target_hash": _hash(right),
        _METRIC: record.get("score"),
        "why": public_values(record.get("why")),
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
