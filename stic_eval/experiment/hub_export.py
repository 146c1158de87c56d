"""What a run has made as repositories of the Hugging Face hub: a model's, and a data set's of its pairs.

Scores stand in the card's `model-index`, and those on whole data sets of the hub in `.eval_results/*.yaml` as
well, by which the hub lists them beside a benchmark (https://huggingface.co/docs/hub/eval-results).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from stic_eval.errors import UserError, first_line, shorten
from stic_eval.experiment import artifacts, cardfacts
from stic_eval.report.cell_text import markdown, one_line
from stic_eval.report.model_card import card, public
from stic_eval.report.run_texts import origin_of
from stic_eval.report.table_formats import to_csv, to_markdown
from stic_eval.store import file_name

if TYPE_CHECKING:
    from stic_eval.experiment.artifacts import RunArtifacts, StageArtifact

MODEL, PAIRS = "model", "pairs"  # folders of the two repositories
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def write_model(run: RunArtifacts, picked: StageArtifact, name: str, folder: Path) -> list[str]:
    """Writes an adapter with its card, its evaluation results and the run's table.

    Args:
        run: The run.
        picked: Its adapter.
        name: What the card calls it.
        folder: To write into.

    Returns:
        Titles of benchmarks that are in no file of `.eval_results`, each with the reason.

    Raises:
        UserError: The adapter is not in the cache any more, or damaged.
    """
    source = run.adapter(picked)
    folder.mkdir()
    for file in ADAPTER_FILES:
        shutil.copyfile(source / file, folder / file)
    facts = cardfacts.facts(run, picked, name)
    (folder / "README.md").write_text(card(facts), encoding="utf-8")
    if facts.table is not None:
        (folder / "table.md").write_text(public(to_markdown(facts.table)), encoding="utf-8")
        (folder / "table.csv").write_text(public(to_csv(facts.table)), encoding="utf-8")
    return _write_eval_results(run, picked, folder / ".eval_results")


def _write_eval_results(run: RunArtifacts, picked: StageArtifact, folder: Path) -> list[str]:
    """Writes a file for each benchmark and solver, as the hub wants variants of one score apart."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    if run.scores is None:
        return []
    left_out = dict[str, str]()
    date = origin_of(run.folder).started
    for column in run.scores.columns:
        rows = cardfacts.rows_of(run, column.name)
        for entry in picked.entries:
            summary = entry.summaries.get(column.name)
            if run.config.rows_of(column.name) != "hub" or "/" not in rows.dataset:
                why = "its rows are no data set of the hub"
            elif run.config.limit is not None:
                why = "it was not evaluated on all rows (--limit)"
            elif summary is None or summary.score is None or summary.unscored:
                why = "not all of its rows are scored"
            else:
                notes = [f"With {entry.solver.name.replace('_', ' ')}"] if not entry.solver.plain else []
                notes += [f"protocol {column.protocol}"] if column.protocol else []
                notes += [f"graded by {column.grader}"] if column.grader else []
                result = EvalResultEntry(
                    dataset_id=rows.dataset,
                    task_id=rows.config or "default",
                    value=round(summary.score, 2),
                    dataset_revision=rows.revision or None,
                    date=date,
                    notes=one_line(public("; ".join(notes))) or None,
                )
                folder.mkdir(exist_ok=True)
                suffix = "" if entry.solver.plain else f"_{file_name(entry.solver.suffix)}"
                text = yaml.safe_dump(eval_result_entries_to_yaml([result]), sort_keys=False)
                (folder / f"{file_name(column.name)}{suffix}.yaml").write_text(text, encoding="utf-8")
                continue
            left_out[column.title] = why
    return [f"{title}: {why}" for title, why in left_out.items()]


def write_pairs(run: RunArtifacts, picked: Sequence[StageArtifact], folder: Path) -> int:
    """Writes sets of pairs as a data set with a card, a split for each round; gives the number of pairs.

    Of where an image came from, the file's name alone goes out.

    Raises:
        UserError: Pairs are not in the cache any more, or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "data").mkdir(parents=True)
    counts = dict[str, int]()
    for output in picked:
        split = "train" if len(picked) == 1 else f"round_{output.iteration}"
        with pq.ParquetFile(run.path(output) / "pairs.parquet") as file:
            at = file.schema_arrow.get_field_index("source")
            to = folder / "data" / f"{split}-00000-of-00001.parquet"
            with pq.ParquetWriter(to, file.schema_arrow) as writer:
                for batch in file.iter_batches(64):
                    names = [_name_of(str(source)) for source in batch.column(at).to_pylist()]
                    columns = [*batch.columns]
                    columns[at] = pa.array(names, file.schema_arrow.field(at).type)
                    writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=file.schema_arrow))
                counts[split] = file.metadata.num_rows
    (folder / "README.md").write_text(_pairs_card(run, picked, counts), encoding="utf-8")
    return sum(counts.values())


def _name_of(source: str) -> str:
    """An image's source without folders of this machine; addresses stay."""
    if "://" in source and not source.startswith("file:"):
        return public(source)
    return source.replace("\\", "/").rpartition("/")[2]


def _pairs_card(run: RunArtifacts, picked: Sequence[StageArtifact], counts: dict[str, int]) -> str:
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(
        tags=["stic-eval", "preference", "dpo", "vision-language"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in counts],
            }
        ],
    )
    facts = cardfacts.facts(run, picked[0], "")
    lines = [f"- {split}: {count:,} pairs" for split, count in counts.items()]
    return "\n".join(
        [
            f"---\n{data.to_yaml().strip()}\n---",
            "",
            "# Preference pairs",
            "",
            f"Made by stic-eval for {markdown(facts.title)} on {markdown(facts.base)}, seed {facts.seed}.",
            "",
            *lines,
            "",
            "Columns are those that TRL reads (`prompt`, `chosen`, `rejected`, `images`), `image_sha256`,",
            "`source` (the file's name), `negative` (how the dispreferred answer was obtained) and `seed`.",
            "Answers are a model's own and unchecked.",
            "",
        ]
    )


# ---------------------------------------------------------------- sending it there


def push(folder: Path, repository: str) -> list[str]:
    """Uploads a folder's `model/` and `pairs/`; repositories that do not exist are created, private.

    Args:
        folder: What `write_model` and `write_pairs` have filled.
        repository: The model's, as OWNER/NAME; that of the pairs is OWNER/NAME-pairs.

    Returns:
        Addresses of the commits.

    Raises:
        UserError: The name is none, nobody is logged in, or the hub refuses.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api, found = HfApi(library_name="stic-eval"), []
    sent = {MODEL: ("model", repository), PAIRS: ("dataset", f"{repository}-pairs")}
    try:
        for part, (kind, name) in sent.items():
            if not (folder / part).is_dir():
                continue
            api.create_repo(name, repo_type=kind, private=True, exist_ok=True)
            done = api.upload_folder(
                repo_id=name, repo_type=kind, folder_path=folder / part, commit_message="Export by stic-eval"
            )
            found.append(str(done.commit_url))
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx2.HTTPError, OSError) as error:
        raise UserError(
            f"--push {repository}: {first_line(error)}; `hf auth login` or HF_TOKEN says who you are"
        ) from error
    return found


def check_repository(repository: str) -> None:
    """Refuses a name that can be no repository, before anything is written.

    Raises:
        UserError: It is none.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise UserError(
            f"--push {shorten(repository)}: give OWNER/NAME, of letters, digits, '-', '_' and '.'"
        )


def pairs_of(run: RunArtifacts, picked: StageArtifact) -> list[StageArtifact]:
    """The sets of pairs that an adapter learnt from, the first first."""
    keys = {stage.key for stage in picked.entries[0].stages if stage.kind == "pairs"}
    return [output for output in artifacts.all_of(run, "pairs") if output.key in keys]
