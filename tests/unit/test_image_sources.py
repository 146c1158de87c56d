"""Unlabeled images in all the places where people have them."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stic_eval import images
from stic_eval.errors import UserError
from stic_eval.image_sources import keeps_order, scan_images


def encoded(seed: int, kind: str = "PNG") -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def folder_of(path: Path, count: int = 3) -> Path:
    path.mkdir(parents=True)
    for number in range(count):
        (path / f"{number}.png").write_bytes(encoded(number))
    return path


def shard_of(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as shard:  # type: ignore[call-overload]
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            shard.addfile(entry, io.BytesIO(data))
    return path


def saved(path: Path, folder: Path) -> Path:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    cells = [{"bytes": file.read_bytes(), "path": None} for file in sorted(folder.glob("*.png"))]
    features = Features({"caption": Value("string"), "image": ImageFeature()})
    table = Dataset.from_dict({"caption": ["a"] * len(cells), "image": cells}, features)
    if path.suffix:
        table.to_parquet(str(path))
    else:
        table.save_to_disk(str(path))
    return path


def shard(folder: Path, at: Path) -> Path:
    members = {f"{file.stem}.{end}": file.read_bytes() for file in folder.glob("*.png") for end in ["png"]}
    return shard_of(at / "shard-000.tar", {**members, "0.txt": b"a caption", "0.json": b"{}", "0.cls": b"1"})


def shards(folder: Path, at: Path) -> Path:
    (at / "shards").mkdir()
    for file in folder.glob("*.png"):
        shard_of(at / "shards" / f"{file.stem}.tar", {"x.png": file.read_bytes(), "x.txt": b"a caption"})
    return at / "shards"


def parquet_folder(folder: Path, at: Path) -> Path:
    (at / "hub" / "data").mkdir(parents=True)
    (at / "hub" / "README.md").write_text("a card")
    saved(at / "hub" / "data" / "train-00000.parquet", folder)
    return at / "hub"


def names_json(folder: Path, at: Path) -> Path:
    (at / "names.json").write_text(json.dumps([file.name for file in folder.glob("*.png")]))
    return at / "names.json"


def names_text(folder: Path, at: Path) -> Path:
    (at / "names.txt").write_text("# mine\n\n" + "\n".join(file.name for file in folder.glob("*.png")))
    return at / "names.txt"


def items_json(folder: Path, at: Path) -> Path:
    (at / "items.json").write_text(json.dumps([{"id": 1, "image": f.name} for f in folder.glob("*.png")]))
    return at / "items.json"


def items_jsonl(folder: Path, at: Path) -> Path:
    lines = [json.dumps({"file_name": f.name}) for f in folder.glob("*.png")]
    (at / "items.jsonl").write_text("\n".join(lines) + "\n")
    return at / "items.jsonl"


def coco(folder: Path, at: Path) -> Path:
    (at / "coco.json").write_text(json.dumps({"images": [{"file_name": f.name} for f in folder.glob("*")]}))
    return at / "coco.json"


PLACES: list[Callable[[Path, Path], Path]] = [
    lambda folder, at: folder, shard, shards, parquet_folder, names_json, names_text, items_json, items_jsonl,
    coco, lambda folder, at: saved(at / "saved", folder),
    lambda folder, at: saved(at / "one.parquet", folder),
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_the_same_images_wherever_they_lie(place: Callable[[Path, Path], Path], tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos")
    (tmp_path / "at").mkdir()
    where = place(folder, tmp_path / "at")
    found, skipped = scan_images(where, root=folder)
    assert not [item for item in skipped if item.fault]
    expected, _ = scan_images(folder)
    assert {ref.sha256 for ref in found} == {ref.sha256 for ref in expected}
    assert keeps_order(where) == (where.suffix in (".json", ".jsonl", ".txt"))
    for ref in found:
        assert ref.load().size == (32, 24)
        assert images.encoded_bytes(ref) in {file.read_bytes() for file in folder.glob("*.png")}


def test_a_note_beside_images_is_no_fault_and_a_broken_image_is(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos")
    (folder / "notes.txt").write_text("mine")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "._0.png").write_bytes(b"\0\5\26\7")
    (folder / "empty").write_bytes(b"")
    (folder / "page.jpg").write_bytes(b"<html>")
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    found, skipped = scan_images(folder)
    assert len(found) == 3
    assert {item.source for item in skipped if item.fault} == {"page.jpg", "phone.heic"}
    assert {item.source for item in skipped if not item.fault} == {
        "notes.txt", ".DS_Store", "._0.png", "empty",
    }  # fmt: skip


def test_a_name_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", 1)
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(["0.png", "gone.png", "0.png", str(folder / "0.png")]))
    found, skipped = scan_images(listed, root=folder)
    assert [ref.source for ref in found] == ["0.png"]
    gone, again, same = skipped
    assert f"{folder / 'gone.png'} or {tmp_path / 'gone.png'}" in gone.reason
    assert "--image-root" in gone.reason
    assert (again.reason, again.fault) == ("named before", False)
    assert same.reason == "same content as 0.png"  # by an absolute path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}', "holds no list"), ("[1]", "entry 1: is not the name of an image"),
        ("[", "is not valid JSON"),
        ('[{"caption": "x"}]', "objects with one of image"),
    ],
)  # fmt: skip
def test_what_is_no_list_is_refused_in_a_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        scan_images(tmp_path / "list.json")
    assert len(str(caught.value)) < 300


def test_damaged_and_packed_shards_say_so(tmp_path: Path) -> None:
    whole = shard_of(tmp_path / "a.tar", {"0.png": encoded(0), "1.png": encoded(1)})
    whole.write_bytes(whole.read_bytes()[:4000])
    (found, skipped), _ = scan_images(whole), shard_of(tmp_path / "b.tar.gz", {"0.png": encoded(0)}, "w:gz")
    assert len(found) == 1
    assert skipped
    assert all(item.fault for item in skipped)
    _, skipped = scan_images(tmp_path / "b.tar.gz")
    assert "unpack it" in skipped[0].reason


def test_a_data_set_without_images_says_what_it_has(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_dict({"text": ["a"]}).to_parquet(str(tmp_path / "t.parquet"))
    _, skipped = scan_images(tmp_path / "t.parquet")
    assert "there is text" in skipped[0].reason


def test_the_authors_list_is_read(tmp_path: Path) -> None:
    real = Path(os.environ.get("STIC_EVAL_REAL_DATA", "nowhere"), "stic", "6k_coco_names.json")
    if not real.is_file():
        pytest.skip("the authors' list is not at hand (STIC_EVAL_REAL_DATA)")
    names = json.loads(real.read_text())
    folder = tmp_path / "train2014"
    folder.mkdir()
    for number, name in enumerate(names[:3]):
        (folder / name).write_bytes(encoded(number))
    found, skipped = scan_images(real, root=folder)
    assert [ref.source for ref in found] == names[:3]
    assert len(skipped) == len(names) - 3
    assert sum(not item.fault for item in skipped) == 6275 - 6099
