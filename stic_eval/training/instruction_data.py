"""Instruction data: items in LLaVA's format, from JSON, from a data set, or drawn by the pocket world."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.contracts.method import SFTItem, Turns
from stic_eval.documents import from_json, read_text
from stic_eval.errors import UserError, count_of, quote, shorten
from stic_eval.images import Decoding, ImageError, Skipped, image_ref, load_bytes
from stic_eval.saved_datasets import open_dataset
from stic_eval.store import content_key
from stic_eval.types import ImageRef

if TYPE_CHECKING:
    from PIL.Image import Image

_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system",
}  # fmt: skip
_WINDOW = 64  # images looked at together


def infuse(item: SFTItem, description: str, separator: str = "\n") -> SFTItem:
    """The item with a description in front of its first instruction, worded as in Deng et al. 2024.

    Args:
        separator: Between the two: the one that describe-and-respond asks with. The paper has one newline,
            the released code two.
    """
    turns = list(item.turns)
    first = next(index for index, (role, _) in enumerate(turns) if role == "user")
    turns[first] = ("user", f"Image description:\n{description}{separator}{turns[first][1]}")
    return replace(item, turns=tuple(turns))


def items_of(rows: Iterable[Mapping[str, Any]]) -> list[SFTItem]:
    """Items of rows in LLaVA's format whose `image` is an `ImageRef`, in their order.

    Raises:
        UserError: A row does not fit; it is named by its number.
    """
    items: list[SFTItem] = []
    for number, row in enumerate(rows, 1):
        where = f"instruction data, row {number}"
        if not isinstance(row.get("image"), ImageRef):
            raise UserError(f"{where}: image is not an image reference")
        items.append(SFTItem(str(row.get("id", number)), row["image"], _turns(row, where)))
    return items


def read_items(
    path: str, image_root: Path | None = None, limit: int | None = None
) -> tuple[list[SFTItem], list[Skipped]]:
    """Reads instruction data: LLaVA-format JSON or JSONL, a parquet file, or a saved data set's folder.

    Items come in an order that depends on their content alone (by the hash of their row), so that the
    first n are a random sample and a larger n contains a smaller one's. Images are looked at in that
    order until `limit` items are usable: of a list with 665,000 items, only as many as are trained on.

    Args:
        image_root: Folder that image paths start at and must stay in; None: that of `path`.
        limit: How many items are wanted; None: all.

    Returns:
        The items, and what was left out because its image is missing, damaged or outside of
        `image_root`, or because it has not as many images as `<image>` marks. Items without an image, and
        without a mark, are no part of either.

    Raises:
        UserError: The file cannot be read, a row does not fit (it is named), or no row has an image.
    """
    source = Path(path).expanduser()
    if not source.exists():
        raise UserError(f"--sft-data {path}: no such file or folder")
    root = image_root or (source if source.is_dir() else source.parent)
    rows, cell, count = _open(source, path)
    found: list[tuple[str, int, Turns]] = []
    unlike: dict[int, str] = {}
    for index, row in enumerate(rows):
        where = f"--sft-data {path}, row {index + 1}"
        if not isinstance(row, Mapping):
            raise UserError(f"{where}: expected an object with image and conversations")
        marks = _marks(row)
        if not _images(row) and not marks:
            continue
        turns = _turns(row, where)
        found.append((_order(row, turns), index, turns))
        if marks is not None and marks != count(index):
            unlike[index] = _unlike(row, count(index), marks)
    if all(index in unlike and not _images(rows[index]) for _, index, _ in found):
        raise UserError(f"--sft-data {path}: no item has an image; give data with an `image` on its items")
    found.sort()
    decoding = Decoding()

    def look(entry: tuple[str, int, Turns]) -> SFTItem | Skipped:
        _, index, turns = entry
        name = f"{source.name}#{index + 1}"
        if index in unlike:
            return Skipped(name, unlike[index])
        try:
            ref = cell(index, name, root)
        except ImageError as error:
            return Skipped(error.source, error.reason)
        if reason := decoding.fault(ref):  # a damaged file is found now and not in the middle of training
            return Skipped(ref.source, reason)
        return SFTItem(str(rows[index].get("id", index)), ref, turns)

    items: list[SFTItem] = []
    skipped: list[Skipped] = []
    remaining = iter(found)
    with ThreadPoolExecutor(max_workers=8) as pool:
        while limit is None or len(items) < limit:
            wanted = _WINDOW if limit is None else min(_WINDOW, limit - len(items))
            window = list(islice(remaining, wanted))
            if not window:
                break
            for result in pool.map(look, window):
                (skipped if isinstance(result, Skipped) else items).append(result)  # type: ignore[arg-type]
    return items, skipped


def _order(row: Mapping[str, Any], turns: Turns) -> str:
    """What items are sorted by: a hash of id, image name (where the row has one) and turns."""
    named = row.get("image") or row.get("images")
    parts = [value if isinstance(value, (str, int)) else repr(value) for value in (row.get("id"), named)]
    return content_key([*parts, turns])


def _marks(row: Mapping[str, Any]) -> int | None:
    """How many images a row's turns say that they are about; None where the format does not say.

    LLaVA's `conversations` mark the place of each by `<image>`. In the hub's `messages` parts may do so, or
    marks, or nothing.
    """
    given = row.get("conversations")
    if given is None:
        given = row.get("messages")
    count = 0
    for turn in given if isinstance(given, list) else ():
        text = turn.get("value", turn.get("content")) if isinstance(turn, Mapping) else None
        for part in text if isinstance(text, list) else [text]:
            count += isinstance(part, Mapping) and part.get("type") == "image"
            said = part.get("text") if isinstance(part, Mapping) else part
            count += said.count("<image>") if isinstance(said, str) else 0
    return count if count or row.get("conversations") is not None else None


def _unlike(row: Mapping[str, Any], images: int, marks: int) -> str:
    item = f"item {shorten(str(row['id']))}: " if row.get("id") is not None else ""
    return f"{item}has {count_of(images, 'image')}, but {count_of(marks, '<image> mark')} in its turns"


# ---------------------------------------------------------------- conversations


def _turns(row: Mapping[str, Any], where: str) -> Turns:
    """The turns of a row: LLaVA's `conversations` or the hub's `messages`."""
    column = next((name for name in ("conversations", "messages") if row.get(name) is not None), None)
    if column is None:
        raise UserError(f"{where}: has neither conversations nor messages")
    given = row[column]
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise UserError(f"{where}: {column} is not a list of turns")
    turns = [_turn(turn, f"{where}: {column}[{number}]") for number, turn in enumerate(given)]
    while turns and turns[-1][0] != "assistant":
        turns.pop()  # nothing can be learnt from a question without an answer
    talk = turns[1:] if turns and turns[0][0] == "system" else turns
    if not talk or [role for role, _ in talk] != ["user", "assistant"] * (len(talk) // 2):
        raise UserError(f"{where}: {column}: human and gpt do not take turns, human first")
    return tuple(turns)


def _turn(turn: Any, where: str) -> tuple[str, str]:
    if not isinstance(turn, Mapping):
        raise UserError(f"{where}: not an object")
    role = turn.get("from", turn.get("role"))
    text = turn.get("value", turn.get("content"))
    if isinstance(text, Sequence) and not isinstance(text, str):
        parts = [part for part in text if isinstance(part, Mapping)]
        text = "\n".join(str(part["text"]) for part in parts if part.get("text"))
    if not isinstance(role, str) or role not in _ROLES:
        raise UserError(f"{where}: from is {quote(role)}, not human or gpt")
    if not isinstance(text, str) or not _is_text(text):
        raise UserError(f"{where}: value is not text")
    # LLaVA marks the image's place in the first question; the chat template has its own.
    return _ROLES[role], text.replace("<image>", "").strip()


def _is_text(text: str) -> bool:
    """Whether it can be written: half of a surrogate pair, which JSON may hold, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# ---------------------------------------------------------------- where rows and their images lie

_Cell = Callable[[int, str, Path], ImageRef]  # (row, its name, image root)
_Count = Callable[[int], int]  # row -> how many images it has


def _open(source: Path, flag: str) -> tuple[Sequence[Any], _Cell, _Count]:
    if source.is_dir() or source.suffix in (".parquet", ".arrow"):
        return _table(source, flag)
    rows = _json_rows(source, flag)

    def count(index: int) -> int:
        return len(_images(rows[index]))

    def cell(index: int, name: str, root: Path) -> ImageRef:
        images = _images(rows[index])
        if len(images) != 1 or not isinstance(images[0], str):
            raise ImageError(name, f"has {len(images)} images; one path is expected")
        return image_ref(images[0], root, "--image-root")

    return rows, cell, count


def _images(row: Mapping[str, Any]) -> list[Any]:
    """What a row has in its column of images."""
    found = row.get("image") or row.get("images")
    return found if isinstance(found, list) else [found] if found else []


def _json_rows(source: Path, flag: str) -> list[Any]:
    try:
        text = read_text(source)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise UserError(f"--sft-data {flag}: cannot be read: {reason}") from error
    if source.suffix == ".jsonl":
        rows: list[Any] = []
        for number, line in enumerate(text.split("\n"), 1):  # not splitlines: strings hold U+2028
            if line.strip():
                try:
                    rows.append(from_json(line))
                except ValueError as error:
                    raise UserError(
                        f"--sft-data {flag}, line {number}: is not valid JSON: {error}"
                    ) from error
        return rows
    try:
        data = from_json(text)
    except ValueError as error:
        raise UserError(f"--sft-data {flag}: is not valid JSON: {error}") from error
    if not isinstance(data, list):
        raise UserError(f"--sft-data {flag}: expected a list of items, found a {type(data).__name__}")
    return data


def _table(source: Path, flag: str) -> tuple[Sequence[Any], _Cell, _Count]:
    import pyarrow.compute as pc
    from datasets import Image as ImageFeature
    from datasets import List

    table = open_dataset(source, f"--sft-data {flag}")
    light = table
    counts: list[int] | None = None
    for name, feature in table.features.items():
        if isinstance(feature, ImageFeature):
            table = table.cast_column(name, ImageFeature(decode=False))
            there = numbers = pc.is_valid(table.data.column(name))
        elif isinstance(feature, List) and isinstance(feature.feature, ImageFeature):
            table = table.cast_column(name, List(ImageFeature(decode=False)))
            numbers = pc.fill_null(pc.list_value_length(table.data.column(name)), 0)
            there = pc.greater(numbers, 0)
        else:
            continue
        own = [int(number) for number in numbers.to_pylist()]
        counts = own if counts is None else [a or b for a, b in zip(counts, own, strict=True)]
        # All rows are looked through for conversations; of images only whether there are any.
        light = light.remove_columns(name)
        if "image" not in light.column_names:
            light = light.add_column("image", there.to_pylist())

    def count(index: int) -> int:
        return len(_images(light[index])) if counts is None else counts[index]

    def cell(index: int, name: str, root: Path) -> ImageRef:
        images = _images(table[index])
        if len(images) != 1:
            raise ImageError(name, f"has {len(images)} images; one is expected")
        image = images[0]
        if isinstance(image, str):
            return image_ref(image, root, "--image-root")
        if not image.get("bytes"):
            return image_ref(str(image.get("path")), root, "--image-root")
        return ImageRef(hashlib.sha256(image["bytes"]).hexdigest(), name, partial(load, index, name))

    def load(index: int, name: str) -> Image:
        return load_bytes(_images(table[index])[0]["bytes"], name)

    return light, cell, count
