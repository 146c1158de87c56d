"""Data sets of `datasets` on disk: parquet, arrow, or a folder that `save_to_disk` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stic_eval.dataset_messages import quiet_datasets
from stic_eval.errors import UserError, first_line
from stic_eval.store import content_key, file_digests

if TYPE_CHECKING:
    from datasets import Dataset


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return (folder / "state.json").exists() or (folder / "dataset_dict.json").exists()


@quiet_datasets()
def open_dataset(source: Path, flag: str) -> Dataset:
    """The rows of a data set, mapped into memory; of several splits `train`, or the first.

    Args:
        source: A parquet or arrow file, a folder of parquet files, or a saved data set's.
        flag: What names it in messages, with its value.

    Raises:
        UserError: It cannot be read.
    """
    from datasets import Dataset, DatasetDict, load_from_disk

    try:
        if source.suffix == ".arrow":
            table = check_arrow(Dataset.from_file(str(source)))
        elif is_saved(source):
            table = load_from_disk(str(source))
            for one in table.values() if isinstance(table, DatasetDict) else (table,):
                check_arrow(one)
        else:
            files = [source] if source.is_file() else sorted(source.rglob("*.parquet"))
            if not files:
                raise UserError(f"{flag}: holds neither a saved data set nor parquet files")
            # By content: `datasets` knows what it has read before by path and time.
            name = f"items_{content_key(file_digests(files))[:16]}"
            table = Dataset.from_parquet([str(file) for file in files], dataset_name=name)
    except UserError:
        raise
    except Exception as error:  # pyarrow's and datasets' own kinds
        raise UserError(f"{flag}: cannot be read: {first_line(error.__cause__ or error)}") from error
    if isinstance(table, DatasetDict):
        table = table["train"] if "train" in table else next(iter(table.values()))
    return table


def check_arrow(dataset: Dataset) -> Dataset:
    """The same data set, looked through: to read beyond the end of a mapped file would end the process.

    Raises:
        pyarrow.ArrowInvalid: The file is damaged.
    """
    dataset.data.table.validate(full=True)
    return dataset
