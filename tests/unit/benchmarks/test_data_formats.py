"""The seven benchmarks' rows as each data set has them, in every format that it is handed out in."""

from __future__ import annotations

import base64
import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stic_eval import registry
from stic_eval.contracts.benchmark import Benchmark, FolderLayout
from stic_eval.errors import UserError
from stic_eval.evals.sources import samples
from stic_eval.types import Sample


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (level, 7, 7)).save(buffer, "PNG")
    return buffer.getvalue()


_ABOUT = {
    "category": "math-targeted-vqa", "context": "table", "grade": "high school", "img_height": 5,
    "img_width": 6, "language": "english", "skills": ["arithmetic reasoning", "logical reasoning"],
    "source": "x", "split": "testmini", "task": "textbook question answering",
}  # fmt: skip

# The columns of the data sets on the hub. An `image` is filled in; MathVista's is a name beside the image.
ROWS: dict[str, list[dict[str, Any]]] = {
    "scienceqa": [
        {"question": "Which is a pushing force?", "choices": ["a door", "a magnet"], "answer": 1,
         "hint": "Read.", "task": "closed choice", "grade": "grade2", "subject": "natural science",
         "topic": "physics",
         "category": "Force", "skill": "x", "lecture": "", "solution": ""},
        {"question": "Which month?", "choices": ["May", "June", "July"], "answer": 0, "hint": "",
         "task": "closed choice", "grade": "grade11", "subject": "social science", "topic": "geography",
         "category": "Time", "skill": "x", "lecture": "", "solution": ""},
    ],
    "textvqa": [
        {"image_id": "a", "question_id": 34602, "question": "what is the brand?", "question_tokens": ["what"],
         "image_width": 6, "image_height": 5, "answers": ["nokia"] * 9 + ["dakota"], "image_classes": ["x"],
         "set_name": "val", "ocr_tokens": ["DAKOTA", "NOKIA"]},
        {"image_id": "b", "question_id": 34603, "question": "what number?", "question_tokens": ["what"],
         "image_width": 6, "image_height": 5, "answers": ["1", "2"] * 5, "image_classes": [],
         "set_name": "val", "ocr_tokens": []},
    ],
    "chartqa": [
        {"type": "human_test", "question": "How many bars?", "answer": "14"},
        {"type": "augmented_test", "question": "What is the share?", "answer": "57%"},
    ],
    "llava_bench": [
        {"question_id": 0, "question": "What is the place?", "category": "llava_bench_conv",
         "image_id": "001", "caption": "A volcano.", "gpt_answer": "Diamond Head.", "gpt_answer_id": "x"},
        {"question_id": 1, "question": "Describe it.", "category": "llava_bench_detail", "image_id": "001",
         "caption": "A volcano by the sea.", "gpt_answer": "An island.", "gpt_answer_id": "y"},
    ],
    "mmbench": [
        {"index": 241, "question": "Which?", "hint": "nan", "answer": "B", "A": "red", "B": "blue",
         "C": "nan", "D": "nan", "category": "color", "source": "x",
         "L2-category": "finegrained_perception (instance-level)", "comment": "nan", "split": "dev"},
        {"index": 1_000_241, "question": "Which?", "hint": "nan", "answer": "A", "A": "blue", "B": "red",
         "C": "nan", "D": "nan", "category": "color", "source": "x",
         "L2-category": "finegrained_perception (instance-level)", "comment": "nan", "split": "dev"},
    ],
    "mmvet": [
        {"question_id": "v1_0", "question": "What is x?", "answer": "-1<AND>-5", "image_source": "web",
         "capability": "ocr,math"},
        {"question_id": "v1_1", "question": "What is it?", "answer": "a cat<OR>a kitten",
         "image_source": "web", "capability": "rec"},
    ],
    "mathvista": [
        {"pid": "1", "question": "How far?", "image": "images/1.jpg", "choices": None, "unit": None,
         "precision": 1.0, "answer": "1.2", "question_type": "free_form", "answer_type": "float",
         "metadata": _ABOUT,
         "query": "Hint: Please answer.\nQuestion: How far?"},
        {"pid": "2", "question": "Which?", "image": "images/2.jpg", "choices": ["(A) 1", "(B) 2"],
         "unit": None, "precision": None, "answer": "(B) 2", "question_type": "multi_choice",
         "answer_type": "text",
         "metadata": _ABOUT, "query": "Hint: Please choose.\nQuestion: Which?"},
    ],
}  # fmt: skip


def bench(name: str) -> Benchmark:
    return registry.benchmarks().get(name)


def image_column(name: str) -> str:
    return "decoded_image" if name == "mathvista" else "image"


def table(name: str) -> Any:
    from datasets import Dataset
    from datasets import Image as ImageFeature

    column = image_column(name)
    rows = [{**row, column: {"bytes": png(i), "path": f"{i}.png"}} for i, row in enumerate(ROWS[name])]
    return Dataset.from_list(rows).cast_column(column, ImageFeature())


def save_jsonl(name: str, folder: Path) -> Path:
    column = image_column(name)
    (folder / "pictures").mkdir()
    lines = []
    for i, row in enumerate(ROWS[name]):
        (folder / "pictures" / f"{i}.png").write_bytes(png(i))
        lines.append(json.dumps({**row, column: f"pictures/{i}.png"}))
    (folder / f"{bench(name).source.split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def shape(sample: Sample) -> Any:
    return sample.id, sample.question, sample.target, sample.choices, dict(sample.group), dict(sample.meta)


@pytest.mark.parametrize("name", ROWS)
def test_the_real_schema_is_read_from_every_format(name: str, tmp_path: Path) -> None:
    split, config = bench(name).source.split, bench(name).source.name
    hub, saved, plain = tmp_path / "hub", tmp_path / "saved", tmp_path / "plain"
    (hub / (config or "data")).mkdir(parents=True)
    plain.mkdir()
    table(name).to_parquet(hub / (config or "data") / f"{split}-00000-of-00001.parquet")
    table(name).save_to_disk(saved)
    found = [samples(bench(name), folder) for folder in (hub, saved, save_jsonl(name, plain))]
    assert len(found[0]) == len(ROWS[name])
    assert [shape(s) for s in found[0]] == [shape(s) for s in found[1]] == [shape(s) for s in found[2]]
    for read in found:
        assert [s.images[0].load().getpixel((0, 0)) for s in read] == [(i, 7, 7) for i in range(len(read))]
    hashes = [[s.images[0].sha256 for s in read] for read in found]
    assert hashes[0] == hashes[1] == hashes[2]


@pytest.mark.parametrize("name", ROWS)
def test_rows_to_score_by_need_no_images(name: str, tmp_path: Path) -> None:
    table(name).to_parquet(tmp_path / "whole.parquet")
    lines = [json.dumps({k: v for k, v in row.items() if k != "image"}) for row in ROWS[name]]
    (tmp_path / "bare.jsonl").write_text("\n".join(lines))
    (tmp_path / "named.jsonl").write_text(
        "\n".join(json.dumps({**row, "image": "no/such.png"}) for row in ROWS[name])
    )
    whole, bare, named = (
        samples(bench(name), tmp_path / file, images=False)
        for file in ("whole.parquet", "bare.jsonl", "named.jsonl")
    )
    assert [shape(s) for s in whole] == [shape(s) for s in bare] == [shape(s) for s in named]
    assert [shape(s) for s in whole] == [shape(s) for s in samples(bench(name), tmp_path / "whole.parquet")]
    assert all(s.images[0].sha256 == "" for s in (*whole, *named))
    with pytest.raises(UserError, match="come without images"):
        whole[0].images[0].load()


@pytest.mark.parametrize("name", ROWS)
def test_a_row_without_its_image_is_named(name: str, tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "image"} for row in ROWS[name]]
    (tmp_path / "bare.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=r'row 1: column "image" is missing'):
        samples(bench(name), tmp_path / "bare.jsonl")


# ---------------------------------------------------------------- VLMEvalKit


TSV: dict[str, list[dict[str, str]]] = {
    "mmbench": [
        {"index": "241", "question": "Which?", "hint": "", "A": "red", "B": "blue", "C": "", "D": "",
         "answer": "B", "category": "color", "l2-category": "coarse_perception", "split": "dev"},
        {"index": "1000241", "question": "Which?", "hint": "", "A": "blue", "B": "red", "C": "", "D": "",
         "answer": "A", "category": "color", "l2-category": "coarse_perception", "split": "dev"},
    ],
    "scienceqa": [
        {"index": "5", "question": "Which is a\npushing force?", "hint": "", "A": "a door", "B": "a magnet",
         "C": "", "D": "", "E": "", "answer": "B", "category": "Force", "split": "test"},
    ],
}  # fmt: skip


def save_tsv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", TSV)
def test_vlmevals_file_is_found_where_it_keeps_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMUData", str(tmp_path))
    with pytest.raises(UserError, match=rf"{name}: .* holds no {bench(name).vlmeval}: put .*LMUData"):
        samples(bench(name), "vlmeval")
    image = base64.b64encode(png(3)).decode()
    rows = [{**row, "image": image} for row in TSV[name]]
    save_tsv(tmp_path / bench(name).vlmeval, rows)
    found = samples(bench(name), "vlmeval")
    assert [s.id for s in found] == [row["index"] for row in rows]
    assert [s.target for s in found] == [row["answer"] for row in rows]
    assert found[0].images[0].load().getpixel((0, 0)) == (3, 7, 7)


def test_a_benchmark_that_vlmeval_does_not_have_says_so() -> None:
    with pytest.raises(UserError, match="VLMEvalKit has no file"):
        samples(replace(bench("mmbench"), vlmeval=""), "vlmeval")


def test_a_tsv_may_name_files(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for i in range(2):
        (tmp_path / "pictures" / f"{i}.png").write_bytes(png(i))
    first, second = TSV["mmbench"]
    rows = [first | {"image_path": "pictures/0.png"}, second | {"image_path": "['pictures/1.png']"}]
    found = samples(bench("mmbench"), save_tsv(tmp_path / "a.tsv", rows))
    assert [s.images[0].load().getpixel((0, 0)) for s in found] == [(0, 7, 7), (1, 7, 7)]
    bad = [first | {"image_path": "../x.png"}, second | {"image_path": "['a.png', 'b.png']"}]
    with pytest.raises(UserError, match=r'row 1: column "image": \.\./x\.png: lies outside of'):
        samples(bench("mmbench"), save_tsv(tmp_path / "b.tsv", bad))
    with pytest.raises(UserError, match=r"row 1: .*names 2 images"):
        samples(bench("mmbench"), save_tsv(tmp_path / "c.tsv", bad[1:]))


def test_the_authors_own_tsv_is_read(tmp_path: Path) -> None:
    import os

    chosen = Path(os.environ.get("STIC_EVAL_REAL_DATA", "nowhere")) / "mmbench" / "MMBench_samples.tsv"
    if not chosen.is_file():
        pytest.skip("the real rows are not at hand (STIC_EVAL_REAL_DATA)")
    found = samples(bench("mmbench"), chosen)
    assert len(found) == 10
    assert all(min(s.images[0].load().size) > 50 for s in found)
    assert all(s.target in "ABCD" and len(s.choices) >= 2 for s in found)


# ---------------------------------------------------------------- layouts


def test_scienceqas_own_files_are_joined(tmp_path: Path) -> None:
    problem = ROWS["scienceqa"][0] | {"image": "image.png", "split": "test"}
    problems = {"7": problem, "8": problem | {"image": None}, "9": problem | {"split": "train"}}
    (tmp_path / "problems.json").write_text(json.dumps(problems))
    (tmp_path / "images" / "test" / "7").mkdir(parents=True)
    (tmp_path / "images" / "test" / "7" / "image.png").write_bytes(png(9))
    (found,) = samples(bench("scienceqa"), tmp_path)
    assert (found.id, found.target) == ("7", "B")
    assert found.images[0].load().getpixel((0, 0)) == (9, 7, 7)


def test_mathvistas_own_file_is_read(tmp_path: Path) -> None:
    row = {key: value for key, value in ROWS["mathvista"][0].items() if key != "query"}
    (tmp_path / "testmini.json").write_text(json.dumps({"1": row}))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_bytes(png(9))
    (found,) = samples(bench("mathvista"), tmp_path)
    assert found.images[0].load().getpixel((0, 0)) == (9, 7, 7)


def _join(tables: Any) -> list[dict[str, Any]]:
    answers = {row["question_id"]: row["answer"] for row in tables["answers"]}
    return [
        {
            "type": "human_test",
            "question": row["text"],
            "answer": answers[row["question_id"]],
            "image": row["image"],
        }
        for row in tables["questions"]
    ]


def layout_of(folder: Path, **image: str) -> Benchmark:
    """ChartQA in a made-up layout, one row of it in a folder."""
    layout = FolderLayout(
        "the made-up layout", {"questions": "q*.jsonl", "answers": "answers.json"}, "pictures", _join
    )
    (folder / "questions.jsonl").write_text(json.dumps({"question_id": "a", "text": "Why?", **image}))
    (folder / "answers.json").write_text(json.dumps({"data": [{"question_id": "a", "answer": "so"}]}))
    (folder / "pictures").mkdir(exist_ok=True)
    (folder / "pictures" / "x.png").write_bytes(png(4))
    return replace(bench("chartqa"), layouts=(layout,))


def test_a_layout_is_joined_and_its_images_start_at_its_own_folder(tmp_path: Path) -> None:
    (found,) = samples(layout_of(tmp_path, image="x.png"), tmp_path)
    assert found.target == "so"
    assert found.images[0].load().getpixel((0, 0)) == (4, 7, 7)


@pytest.mark.parametrize("name", ["../out.png", "/etc/hostname", "link.png", "sub/../../out.png"])
def test_a_layouts_images_cannot_leave_their_folder(name: str, tmp_path: Path) -> None:
    made = layout_of(tmp_path, image=name)
    (tmp_path / "out.png").write_bytes(png(1))
    (tmp_path / "pictures" / "link.png").symlink_to(tmp_path / "out.png")
    with pytest.raises(UserError, match=r'row 1: column "image": .*lies outside of'):
        samples(made, tmp_path)


def test_the_folder_of_images_may_be_a_link_itself(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    made = layout_of(tmp_path / "data", image="x.png")
    (tmp_path / "data" / "pictures").rename(tmp_path / "elsewhere")
    (tmp_path / "data" / "pictures").symlink_to(tmp_path / "elsewhere")
    assert samples(made, tmp_path / "data")[0].images[0].load().size == (6, 5)


def test_a_layout_that_does_not_join_is_one_line(tmp_path: Path) -> None:
    made = layout_of(tmp_path)
    with pytest.raises(UserError, match=r'made-up layout\): cannot be joined: column "image" is missing$'):
        samples(made, tmp_path)
    (tmp_path / "answers.json").unlink()
    (tmp_path / "questions.jsonl").unlink()
    with pytest.raises(UserError, match=r"nor the made-up layout \(q\*\.jsonl, answers\.json\)$"):
        samples(made, tmp_path)


# ---------------------------------------------------------------- image cells


@pytest.mark.parametrize("dressed", ["data:image/png;base64,{}", "DATA:image/png;BASE64,{}", "{}"])
def test_an_image_may_be_base64_in_json(dressed: str, tmp_path: Path) -> None:
    cell = dressed.format(base64.b64encode(png(3)).decode())
    (tmp_path / "a.jsonl").write_text(json.dumps({**ROWS["chartqa"][0], "image": cell}))
    (found,) = samples(bench("chartqa"), tmp_path / "a.jsonl")
    assert found.images[0].load().getpixel((0, 0)) == (3, 7, 7)


@pytest.mark.parametrize("kind", ["string", "binary", "struct", "base64"])
def test_parquet_may_hold_images_without_saying_so(kind: str, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "x.png").write_bytes(png(3))
    cell = {
        "string": "x.png",
        "binary": png(3),
        "struct": {"bytes": None, "path": "x.png"},
        "base64": base64.b64encode(png(3)).decode(),
    }[kind]
    row = {**ROWS["chartqa"][0], "image": cell}
    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "test.parquet")
    (found,) = samples(bench("chartqa"), tmp_path)
    assert found.images[0].load().getpixel((0, 0)) == (3, 7, 7)


@pytest.mark.parametrize("kind", ["string", "struct"])
@pytest.mark.parametrize("path", ["../x.png", "/etc/passwd", "link.png"])
def test_paths_in_parquet_cannot_leave_its_folder(kind: str, path: str, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "x.png").write_bytes(png(3))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "x.png")
    row = {**ROWS["chartqa"][0], "image": path if kind == "string" else {"bytes": None, "path": path}}
    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "data" / "test.parquet")
    with pytest.raises(UserError, match=r'row 1: column "image": .*lies outside of'):
        samples(bench("chartqa"), tmp_path / "data")


def test_a_light_row_shows_which_images_are_there(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    cells = [
        {"bytes": png(1), "path": None},
        None,
        {"bytes": None, "path": "no.png"},
        {"bytes": b"", "path": ""},
    ]
    rows = [{**ROWS["chartqa"][0], "image": cell} for cell in cells]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    pictured = replace(bench("chartqa"), keep=lambda row: row["image"] is not None)
    assert [s.id for s in samples(pictured, tmp_path, images=False)] == ["0", "2"]
    nothing = replace(pictured, keep=lambda row: False, variant="none")
    with pytest.raises(UserError, match='none of the 4 rows is one of its variant "none"'):
        samples(nothing, tmp_path, images=False)


def test_a_limit_counts_what_is_kept(tmp_path: Path) -> None:
    rows = [{**ROWS["chartqa"][0], "image": "x.png", "kind": i % 2} for i in range(20)]
    (tmp_path / "x.png").write_bytes(png(1))
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    odd = replace(bench("chartqa"), keep=lambda row: row["kind"] == 1)
    assert len(samples(odd, tmp_path)) == 10
    half = samples(odd, tmp_path, limit=0.5)
    assert len(half) == 5
    assert all(int(s.id) % 2 for s in half)


def test_a_part_that_was_not_downloaded_is_named(tmp_path: Path) -> None:
    table("chartqa").to_parquet(tmp_path / "test-00001-of-00003.parquet")
    with pytest.raises(UserError, match=r"test-00000-of-00003 is missing: copy all 3 files"):
        samples(bench("chartqa"), tmp_path)
