"""Answers that were given elsewhere, in the formats that evaluation tools write.

This program's records, plain JSONL, lmms-eval's logged samples, VLMEvalKit's xlsx, TSV and JSON, LLaVA's
answer files and summaries, OpenCompass's predictions, logs of Inspect. Answers find their rows by id;
lmms-eval's and OpenCompass's by the number of the row.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

from stic_eval.documents import from_json, open_regular, read_lines, read_text
from stic_eval.errors import UserError, first_line, quote
from stic_eval.evals import answer_summaries, inspect_logs
from stic_eval.evals.image_cells import is_image_column
from stic_eval.evals.json_files import HALF
from stic_eval.types import Sample

Row = Mapping[str, Any]

_IDS = ("id", "question_id", "pid", "index")
_TEXTS = ("response", "text", "prediction")
IDS_SHOWN = 3
# What a spreadsheet's cell holds at most: writers of xlsx (VLMEvalKit's is one) cut longer texts here, and
# tables that were made of such a file are cut as well.
CELL_LIMIT = 32_767


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer.

    Attributes:
        id: As the file has it; with `by_number` the row's number from 0.
        file: The file.
        place: What names the row in it, or the number of a line.
        extraction: The answer that somebody extracted from the response, if the file has one.
        prompt: What was asked, if the file tells.
        by_number: Whether `id` counts rows.
        thinking: What was thought before, if the file has it apart.
        unclosed: Whether it was cut while the model was thinking; None: the file does not say, and what was
            thought may be part of the response.
        cut: Column of the answer's row whose text fills a spreadsheet's cell, so that it was cut; else empty.
    """

    id: str
    response: str
    file: Path
    place: str | int  # a number takes a third of the memory of its text
    extraction: str | None = None
    prompt: str | None = None
    by_number: bool = False
    thinking: str = ""
    unclosed: bool | None = None
    cut: str = ""

    @property
    def where(self) -> str:
        """File and row."""
        return place_in(self.file, self.place)


def place_in(file: Path, place: str | int) -> str:
    """A row of a file in messages."""
    return f"{file}, {place if isinstance(place, str) else f'line {place}'}"


@dataclass(frozen=True)
class Predictions:
    """The answers of a file.

    Attributes:
        rows: The benchmark's rows, without images, where the file brings them (VLMEvalKit, some logs).
        source: Where the rows were read from, if the file tells: `pocket`; else empty.
    """

    items: tuple[Prediction, ...]
    rows: tuple[Row, ...] = ()
    source: str = ""


def read_predictions(path: Path) -> Predictions:
    """Reads a file of answers; its format is told by its suffix and its columns.

    Raises:
        UserError: The file cannot be read, or a row has no id or no answer.
    """
    if not path.is_file():
        what = "is a folder; give a file" if path.is_dir() else "no such file"
        raise UserError(f"--predictions {path}: {what}")
    table = path.suffix in (".xlsx", ".tsv", ".csv")
    first: Row | None = None
    items: list[Prediction] = []
    own: list[Row] | None = []  # None: not every row brings the benchmark's
    for place, row in _read(path):
        first = row if first is None else first
        item = _prediction(row, path, place, _full_column(row) if table else "")
        items += [] if item is None else [item]
        whole = "question" in first and (table or {"index", "prediction"} <= first.keys())
        if own is not None:
            if whole:  # VLMEvalKit's, whose tables are all text
                own.append(row if table else {name: _cell_text(cell) for name, cell in row.items()})
            elif isinstance(row.get("doc"), dict):
                own.append(_document(row))
            else:
                own = None
    if first is None:
        raise UserError(f"--predictions {path}: holds no answers")
    meta = first.get("meta")
    source = meta.get("rows", "") if isinstance(meta, dict) else ""
    return Predictions(tuple(items), tuple(own or ()), str(source))


def _read(path: Path) -> Iterator[tuple[str | int, dict[str, Any]]]:
    """The rows of a file, with where they stand in it.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        yield from _rows(path)
    except UserError:
        raise
    except Exception as error:  # what parsers of JSON, CSV and xlsx raise on damaged files
        raise UserError(f"--predictions {path}: cannot be read: {first_line(error)}") from error


def match(samples: Sequence[Sample], predictions: Predictions, *, own: bool = False) -> dict[str, Prediction]:
    """Sample id -> answer. Samples without an answer are left out.

    An answer that is filed under the image (LLaVA's on TextVQA) or under the number in the question's
    name (LLaVA's on MM-Vet: 12 for `v1_12`) is found by image and question, or by number.

    Args:
        own: The samples are of the rows that the answers brought.

    Raises:
        UserError: An answer fits no row, or two fit the same.
    """
    by_id = {sample.id: sample for sample in samples}
    by_image: dict[tuple[str, str], list[Sample]] | None = None  # until an answer is not under its row's id
    counted = not own and any(item.by_number for item in predictions.items)
    rare = _rare_lines(samples) if counted else {}
    found: dict[str, Prediction] = {}
    unknown: list[Prediction] = []
    for item in predictions.items:
        sample = _sample_at(item, samples, rare) if counted and item.by_number else by_id.get(item.id)
        if sample is None and not item.by_number:
            # The same may have been asked of an image twice: in the files' order.
            by_image = _by_image(samples) if by_image is None else by_image
            same = by_image.get((item.id, _question_in(item.prompt or "")), [])
            sample = by_id.get(f"v1_{item.id}") or next((s for s in same if s.id not in found), None)
        if sample is None:
            unknown.append(item)
        elif sample.id in found:
            raise UserError(f"{item.where}: answers {sample.id}, as does {found[sample.id].where}")
        else:
            found[sample.id] = item
    if unknown:
        raise fit_no_row(unknown, len(predictions.items), by_id)
    return found


def fit_no_row(items: Collection[Prediction], total: int, ids: Iterable[str]) -> UserError:
    """What is wrong with answers, of so many in all, that rows with these ids do not have."""
    shown = list(islice(items, IDS_SHOWN))
    names = ", ".join(item.id for item in shown) + (", ..." if len(items) > len(shown) else "")
    return UserError(
        f"{shown[0].where}: {len(items)} of {total} answers fit no row ({names}); "
        f"rows have ids such as {', '.join(islice(ids, IDS_SHOWN))}: give the right ones with --rows"
    )


def _by_image(samples: Sequence[Sample]) -> dict[tuple[str, str], list[Sample]]:
    """(image, question) -> the rows that ask it, of those that name their image."""
    found: dict[tuple[str, str], list[Sample]] = {}
    for row in samples:
        if "image_id" in row.meta:
            found.setdefault((str(row.meta["image_id"]), _question_in(row.question)), []).append(row)
    return found


def _question_in(prompt: str) -> str:
    return prompt.removeprefix("<image>\n").split("\n")[0].strip().lower()


def _rare_lines(samples: Sequence[Sample]) -> dict[str, list[str]]:
    """Sample id -> the lines of its question that few others have: what tells it from them."""
    lines = {sample.id: [_normalise(line) for line in sample.question.split("\n")] for sample in samples}
    counts = Counter(line for own in lines.values() for line in set(own) if line)
    few = max(1, len(samples) // 50)
    rare = {}
    for name, own in lines.items():
        least = min((counts[line] for line in own if line), default=0)
        rare[name] = [line for line in own if line and counts[line] <= max(few, least)]
    return rare


def _normalise(line: str) -> str:
    return " ".join(line.lower().split()).removeprefix("question: ")


def _sample_at(
    item: Prediction, samples: Sequence[Sample], rare: Mapping[str, Sequence[str]]
) -> Sample | None:
    number = int(item.id)
    if number >= len(samples):
        return None
    sample = samples[number]
    # Other rows, or the same in another order, would give each answer the wrong target.
    if item.prompt is not None and not any(line in _normalise(item.prompt) for line in rare[sample.id]):
        raise UserError(
            f"{item.where}: was asked something other than row {number + 1}; give the rows that were asked, "
            "in their order, with --rows"
        )
    return sample


# ---------------------------------------------------------------- the formats


def _rows(path: Path) -> Iterator[tuple[str | int, dict[str, Any]]]:
    if path.suffix == ".xlsx":
        yield from _workbook(path)
    elif path.suffix in (".tsv", ".csv"):
        old = csv.field_size_limit(1 << 30)  # a cell may hold a whole image
        try:
            with TextIOWrapper(open_regular(path), "utf-8-sig", newline="") as file:
                delimiter = "\t" if path.suffix == ".tsv" else ","
                for number, row in enumerate(csv.DictReader(file, delimiter=delimiter), start=2):
                    if None in row or None in row.values():
                        raise UserError(f"{path}, row {number}: has more or fewer cells than columns")
                    yield f"row {number}", _no_empty_extraction(row)
        finally:
            csv.field_size_limit(old)
    elif path.suffix == ".eval":
        yield from inspect_logs.zipped_rows(path)
    elif path.suffix == ".json":
        text = read_text(path)
        data = _text_only(from_json(text)) if HALF.search(text) else from_json(text)
        for is_of, read in _OBJECTS:
            if is_of(data):
                yield from read(data)
                return
        if isinstance(data, dict) and isinstance(data.get("logs"), list):
            data = data["logs"]
        pairs = data.items() if isinstance(data, dict) else enumerate(data, start=1)
        for key, value in pairs:
            if not isinstance(data, dict) and not isinstance(value, dict):
                raise UserError(
                    f"{path}, entry {key}: {quote(value)} is no answer; give objects with id and response"
                )
            row = value if isinstance(value, dict) else {"id": key, "response": value}
            yield f"entry {key}", {"id": key, **row} if isinstance(data, dict) else row
    else:
        for number, line in enumerate(read_lines(path), start=1):
            if line.strip():
                try:
                    row = from_json(line)
                except ValueError as error:
                    raise UserError(f"{path}, line {number}: is not valid JSON: {error}") from error
                if not isinstance(row, dict):
                    raise UserError(f"{path}, line {number}: not a JSON object")
                yield number, _text_only(row) if HALF.search(line) else row


_OBJECTS: Sequence[tuple[Callable[[Any], bool], Callable[[Any], Iterator[tuple[str, dict[str, Any]]]]]] = (
    (inspect_logs.is_log, inspect_logs.log_rows),
    (answer_summaries.is_llava_summary, answer_summaries.llava_summary_rows),
    (answer_summaries.is_opencompass, answer_summaries.opencompass_rows),
)


def _text_only(value: Any) -> Any:
    """A value with the replacement character for halves of surrogate pairs, which no file can hold."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_text_only(name): _text_only(part) for name, part in value.items()}
    return [_text_only(part) for part in value] if isinstance(value, list) else value


def _workbook(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import openpyxl
    except ImportError:
        raise UserError(f"{path}: reading a workbook needs openpyxl: pip install 'stic-eval[xlsx]'") from None

    sheet = openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0]
    rows: Iterable[tuple[Any, ...]] = sheet.iter_rows(values_only=True)
    head: list[str] | None = None
    for number, cells in enumerate(rows, start=1):
        if head is None:
            head = ["" if cell is None else str(cell) for cell in cells]
        elif any(cell is not None for cell in cells):
            # As in the TSV: all text, and nothing for a missing cell.
            texts = ("" if cell is None else str(cell) for cell in cells)
            yield f"row {number}", _no_empty_extraction(dict(zip(head, texts, strict=False)))


def _cell_text(cell: Any) -> str:
    return "" if cell is None else cell if isinstance(cell, str) else str(cell)


def _no_empty_extraction(row: dict[str, Any]) -> dict[str, Any]:
    """A table's row: an empty cell means that nothing was extracted; in JSON only null does."""
    return {name: cell for name, cell in row.items() if name != "extraction" or cell != ""}


def _document(row: Mapping[str, Any]) -> Row:
    """A row as lmms-eval logs it, without what is no JSON (images), and with an id if it has none."""
    doc = {key: value for key, value in row["doc"].items() if key not in ("image", "decoded_image")}
    return doc if any(name in doc for name in _IDS) else {"id": str(row.get("doc_id")), **doc}


def _full_column(row: Mapping[str, Any]) -> str:
    """The first column, of those that hold no image, whose text fills a cell; empty: none does."""
    return next((str(name) for name, cell in row.items() if not is_image_column(name) and _fills(cell)), "")


def _fills(cell: Any) -> bool:
    # Python's writers count characters, spreadsheet programs count units of UTF-16.
    if not isinstance(cell, str) or len(cell) < CELL_LIMIT // 2:
        return False
    return len(cell) == CELL_LIMIT or len(cell.encode("utf-16-le", "surrogatepass")) // 2 == CELL_LIMIT


def _prediction(row: Mapping[str, Any], file: Path, place: str | int, cut: str) -> Prediction | None:
    """A row's answer; None where the row itself says that it has none (null)."""
    if "doc_id" in row and ("filtered_resps" in row or "resps" in row):
        response = _unwrap(row.get("filtered_resps", row.get("resps")))
        if not isinstance(response, str):
            raise UserError(f"{place_in(file, place)}: filtered_resps holds no text")
        asked = row.get("input")
        doc = row.get("doc")
        if isinstance(doc, dict) and any(name in doc for name in _IDS):
            return Prediction(_identity(doc, file, place, _IDS), response, file, place)
        name = _identity(row, file, place, ("doc_id",))
        if not name.isdecimal():
            raise UserError(f"{place_in(file, place)}: doc_id {name} is not the number of a row")
        prompt = asked if isinstance(asked, str) else None
        return Prediction(name, response, file, place, prompt=prompt, by_number=True)
    extraction = row.get("extraction")
    column = next((column for column in _TEXTS if column in row), None)
    if column is None and extraction is None:
        raise UserError(
            f"{place_in(file, place)}: has no answer (column {', '.join(_TEXTS[:-1])} or {_TEXTS[-1]})"
        )
    response = row[column] if column is not None else ""
    if isinstance(response, float) and response != response:  # NaN is what pandas makes of null
        response = None
    if response is None and extraction is None:
        return None
    if not isinstance(response, (str, int, float, type(None))):
        raise UserError(
            f"{place_in(file, place)}: column {column} is {json.dumps(response)[:40]}, not a text"
        )
    prompt, thinking, unclosed = row.get("prompt"), row.get("thinking"), row.get("unclosed")
    return Prediction(
        _identity(row, file, place, _IDS),
        # A judge is asked about the response: of an extraction alone, that is all there is.
        str(extraction if response is None or column is None else response),
        file,
        place,
        None if extraction is None else str(extraction),
        prompt if isinstance(prompt, str) else None,
        thinking=thinking if isinstance(thinking, str) else "",
        unclosed=unclosed if isinstance(unclosed, bool) else None,
        cut=cut,
    )


def _unwrap(value: Any) -> Any:
    while isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    return value


def _identity(row: Mapping[str, Any], file: Path, place: str | int, columns: Sequence[str]) -> str:
    for column in columns:
        value = row.get(column)
        if value is not None and value != "" and not isinstance(value, (bool, dict, list)):
            # Spreadsheets store whole numbers as floats.
            whole = isinstance(value, float) and value.is_integer()
            return str(int(value) if whole else value)
    where = place_in(file, place)
    raise UserError(f"{where}: has no id (column {', '.join(columns[:-1]) or columns[0]} or {columns[-1]})")
