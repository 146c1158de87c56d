"""Preference pairs on their way to other programs: one row as a value, and the formats it is written in.

`pairs.parquet` (see `train.preference_pairs`) is what TRL reads. LLaMA-Factory's format is that of its
`data/README.md`: ShareGPT turns, `chosen` and `rejected` as one turn each, `<image>` where the image goes.
ms-swift's is that of its "Custom dataset" page, OpenRLHF's what its preference data set reads with
`--apply_chat_template` and the keys `prompt`, `chosen` and `rejected`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stic_eval.dataset_messages import quiet_datasets
from stic_eval.durable_files import temporary_folder
from stic_eval.errors import UserError
from stic_eval.images import Decoding, bytes_ref, in_order
from stic_eval.printable import csv_cell
from stic_eval.training.preference_pairs import features, open_pairs

PairFormat = Literal["trl", "llama-factory", "ms-swift", "openrlhf", "hf-dataset", "csv"]
COLUMNS = ("prompt", "chosen", "rejected", "images", "image_sha256", "source", "negative", "seed")
# What LLaMA-Factory counts in every turn; more of them than there are images stop its training.
PLACEHOLDERS = ("<image>", "<video>", "<audio>")
_ROWS = 64  # held in memory
_NAME = "stic_eval_pairs"  # of the data set in dataset_info.json


@dataclass(frozen=True)
class PairRow:
    """A pair as the file has it.

    Attributes:
        image_sha256: What the image was known by when the pair was made.
        seed: Of what was drawn for it.
        history: Turns before the prompt, role and text; the image is shown with the first.
    """

    prompt: str
    chosen: str
    rejected: str
    image: bytes
    image_sha256: str
    source: str
    negative: str
    seed: int
    history: tuple[tuple[str, str], ...] = ()

    @property
    def asked(self) -> tuple[tuple[str, str], ...]:
        """All turns up to the answer, role and text."""
        return (*self.history, ("user", self.prompt))


@dataclass
class PairExport:
    """What was written.

    Attributes:
        images: Image files beside the rows; 0 where rows hold their images.
        left_out: Row (from 1 on) and why the format cannot hold it.
    """

    path: Path
    rows: int = 0
    images: int = 0
    left_out: list[tuple[int, str]] = field(default_factory=list)


def check(path: Path, flag: str, *, images: bool = False) -> int:
    """Makes sure that a file holds pairs as this program writes them; gives their number.

    Args:
        path: The file.
        flag: What names it in messages.
        images: Whether images are decoded, within the bounds that all others have; training does not ask.

    Raises:
        UserError: It is missing, of another kind, or empty, or an image cannot be used.
    """
    import pyarrow.parquet as pq
    from datasets import Features

    hint = "`stic-eval import pairs FILE` makes one of other formats"
    if not path.is_file():
        raise UserError(f"{flag} {path}: {'is a folder' if path.is_dir() else 'no such file'}; {hint}")
    try:
        found = Features.from_arrow_schema(pq.read_schema(path))
    except Exception as error:  # pyarrow's and datasets' own kinds
        raise UserError(f"{flag} {path}: not a parquet file of pairs; {hint}") from error
    for name, feature in features().items():
        if name not in found:
            raise UserError(f"{flag} {path}: has no column {name}; {hint}")
        # What training is given follows from it: an image that is not declared as one is not decoded.
        if found[name] != feature:
            raise UserError(f"{flag} {path}: its column {name} does not have the type of pairs; {hint}")
    count = sum(1 for _ in (_checked_rows if images else rows)(path, flag))
    if not count:
        raise UserError(f"{flag} {path}: holds no pairs")
    return count


def rows(path: Path, flag: str = "") -> Iterator[PairRow]:
    """The pairs of a file, a few in memory at a time; images are not decoded.

    Raises:
        UserError: A row has another shape than this program gives it; names it, from 1 on.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with open(path, "rb") as file, pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=_ROWS, columns=list(COLUMNS)):
                for row in batch.to_pylist():
                    number += 1
                    yield _row(row)
    except (KeyError, TypeError, ValueError, OSError, pa.ArrowException) as error:
        where = f"{flag} {path}".lstrip()
        raise UserError(f"{where}: row {number} cannot be used ({error}); import it again") from error


def _checked_rows(path: Path, flag: str) -> Iterator[PairRow]:
    """As `rows`, images decoded, each content once.

    Raises:
        UserError: As of `rows`, or names a row whose image cannot be used.
    """
    decoding = Decoding()

    def look(row: PairRow) -> tuple[PairRow, str]:
        return row, decoding.fault(bytes_ref(lambda: row.image, row.source, row.image))

    with ThreadPoolExecutor(max_workers=8) as pool:
        for number, (row, reason) in enumerate(in_order(pool, look, rows(path, flag)), start=1):
            if reason:
                raise UserError(f"{flag} {path}: row {number}: its image cannot be used: {reason}")
            yield row


def _row(row: Mapping[str, Any]) -> PairRow:
    *history, (_, prompt) = _asked(row)
    chosen, rejected = _answer(row, "chosen"), _answer(row, "rejected")
    images = [(image or {}).get("bytes") for image in row["images"] or ()]
    if len(images) != 1 or images[0] is None:
        raise ValueError("images: one, with its bytes in the file, is expected")
    for name in ("image_sha256", "source", "negative", "seed"):
        if row[name] is None:
            raise ValueError(f"{name} is missing")
    rest = (row["image_sha256"], row["source"], row["negative"], row["seed"])
    return PairRow(prompt, chosen, rejected, images[0], *rest, tuple(history))


def _asked(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The turns of the prompt: of user and assistant in turn, the last one the user's."""
    turns = _turns(row, "prompt")
    expected = [*["user", "assistant"] * (len(turns) // 2), "user"]
    if [role for role, _ in turns] != expected or any(text is None for _, text in turns):
        raise ValueError("prompt: one turn of the user, with its text, or several that end so, is expected")
    return turns


def _answer(row: Mapping[str, Any], name: str) -> str:
    """The text of a column that has one turn of the assistant."""
    turns = _turns(row, name)
    if len(turns) != 1 or turns[0][0] != "assistant" or turns[0][1] is None:
        raise ValueError(f"{name}: one turn of the assistant, with its text, is expected")
    return str(turns[0][1])


def _turns(row: Mapping[str, Any], name: str) -> list[tuple[Any, Any]]:
    return [((turn or {}).get("role"), (turn or {}).get("content")) for turn in row[name] or ()]


def export(pairs: Path, to: PairFormat, output: Path) -> PairExport:
    """Writes pairs in another program's format.

    Args:
        pairs: `pairs.parquet`.
        output: Folder to write into, empty; for `trl` it may be the name of a parquet file.

    Raises:
        UserError: The pairs cannot be read.
        OSError: Nothing can be written there.
    """
    return _WRITERS[to](pairs, output)


def _trl(pairs: Path, output: Path) -> PairExport:
    """Pairs as they are: TRL finds the columns that it knows, and ignores the others."""
    target = output if output.suffix == ".parquet" else output / "train.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    count = sum(1 for _ in rows(pairs))
    shutil.copyfile(pairs, target)
    return PairExport(target, count)


def _hf_dataset(pairs: Path, output: Path) -> PairExport:
    with temporary_folder(output) as cache, quiet_datasets():
        table = open_pairs(pairs, cache)
        table.save_to_disk(str(output))
        return PairExport(output, table.num_rows)


def _llama_factory(pairs: Path, output: Path) -> PairExport:
    done, images = PairExport(output), _Images(output)
    with open(output / "pairs.json", "w", encoding="utf-8") as file:
        file.write("[")
        for row in _without_placeholders(pairs, done):
            roles = {"user": "human", "assistant": "gpt"}
            data = {
                "conversations": [{"from": roles[role], "value": text} for role, text in _marked(row)],
                "chosen": {"from": "gpt", "value": row.chosen},
                "rejected": {"from": "gpt", "value": row.rejected},
                "images": [images.path(row.image)],
                # Of no use there, but so that nothing is lost on the way back.
                **{name: getattr(row, name) for name in COLUMNS[4:]},
            }
            file.write(("\n" if not done.rows else ",\n") + json.dumps(data, ensure_ascii=False))
            done.rows += 1
        file.write("\n]\n")
    columns = {"messages": "conversations", **{name: name for name in ("chosen", "rejected", "images")}}
    info = {"file_name": "pairs.json", "formatting": "sharegpt", "ranking": True, "columns": columns}
    (output / "dataset_info.json").write_text(json.dumps({_NAME: info}, indent=2) + "\n", encoding="utf-8")
    done.images = images.count
    return done


def _swift(pairs: Path, output: Path) -> PairExport:
    def line(row: PairRow, image: str) -> dict[str, Any]:
        talk = [*_marked(row), ("assistant", row.chosen)]
        return {"messages": _messages(talk), "rejected_response": row.rejected, "images": [image]}

    return _lines(pairs, output, line)


def _openrlhf(pairs: Path, output: Path) -> PairExport:
    def line(row: PairRow, image: str) -> dict[str, Any]:
        answers = {"chosen": row.chosen, "rejected": row.rejected}
        talks = {name: _messages([("assistant", text)]) for name, text in answers.items()}
        return {"prompt": _messages(_marked(row)), **talks, "images": [image]}

    return _lines(pairs, output, line)


def _lines(pairs: Path, output: Path, line: Callable[[PairRow, str], dict[str, Any]]) -> PairExport:
    """Writes pairs.jsonl, one object of a row and its image's path a line."""
    done, images = PairExport(output / "pairs.jsonl"), _Images(output)
    with open(output / "pairs.jsonl", "w", encoding="utf-8") as file:
        for row in _without_placeholders(pairs, done):
            file.write(json.dumps(line(row, images.path(row.image)), ensure_ascii=False) + "\n")
            done.rows += 1
    done.images = images.count
    return done


def _messages(turns: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in turns]


def _marked(row: PairRow) -> list[tuple[str, str]]:
    """The turns up to the answer, with the mark of the image's place in front."""
    (role, first), *rest = row.asked
    return [(role, f"<image>\n{first}"), *rest]


def _without_placeholders(pairs: Path, done: PairExport) -> Iterator[PairRow]:
    """The rows whose texts hold no mark that stands for a file; the others are listed as left out."""
    for number, row in enumerate(rows(pairs), 1):
        texts = [row.chosen, row.rejected, *(text for _, text in row.asked)]
        if found := next((mark for mark in PLACEHOLDERS for text in texts if mark in text), ""):
            done.left_out.append((number, f"holds the text {found}, which stands for a file there"))
        else:
            yield row


def _csv(pairs: Path, output: Path) -> PairExport:
    done, images = PairExport(output), _Images(output)
    with open(output / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["prompt", "chosen", "rejected", "image", "source", "negative", "seed"])
        for number, row in enumerate(rows(pairs), 1):
            if row.history:
                done.left_out.append((number, "has earlier turns, which a table has no column for"))
                continue
            texts: Sequence[str] = (row.prompt, row.chosen, row.rejected)
            image = images.path(row.image)
            writer.writerow(
                [*map(csv_cell, texts), image, csv_cell(row.source), csv_cell(row.negative), row.seed]
            )
            done.rows += 1
    done.images = images.count
    return done


_WRITERS: Mapping[PairFormat, Callable[[Path, Path], PairExport]] = {
    "trl": _trl, "llama-factory": _llama_factory, "ms-swift": _swift, "openrlhf": _openrlhf,
    "hf-dataset": _hf_dataset, "csv": _csv,
}  # fmt: skip


class _Images:
    """Image files in `images/`, one for each content, in the encoding they came in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, str] = {}
        (folder / "images").mkdir(parents=True, exist_ok=True)

    @property
    def count(self) -> int:
        return len(self._known)

    def path(self, data: bytes) -> str:
        """Relative path of an image's file, which is written if it is new."""
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._known:
            self._known[digest] = f"images/{digest}.{_extension(data)}"
            (self._folder / self._known[digest]).write_bytes(data)
        return self._known[digest]


def _extension(data: bytes) -> str:
    from PIL import Image

    from stic_eval.images import FORMATS

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            name = (image.format or "bin").lower()
    except Exception:  # decoders raise anything on damaged data; whoever reads the file will say so
        return "bin"
    return {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif"}.get(name, name)
