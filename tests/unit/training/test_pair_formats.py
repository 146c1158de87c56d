"""Preference pairs to other programs and back, and pairs that others have made."""

from __future__ import annotations

import csv
import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stic_eval import config
from stic_eval.cli.app import invoke
from stic_eval.errors import UserError
from stic_eval.experiment.artifacts import RunArtifacts, all_of
from stic_eval.images import image_ref
from stic_eval.printable import csv_cell
from stic_eval.report.runs import Entry, TrainedStage
from stic_eval.store import read_jsonl
from stic_eval.training import pair_formats, preference_pairs
from stic_eval.training.foreign_pairs import open_pairs
from stic_eval.training.hyperparameters import PairFilter
from stic_eval.training.preference_pairs import AnsweredPair, write_made
from stic_eval.types import DIRECT

FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# What texts of models hold that some format gives a meaning to.
NASTY = st.sampled_from([
    "", "<image>", "<image>\nWhat?", "\nWhat?", "=1+1", "\n=1", "\ufeff=1", "\u200b=1", " =1", "＝1",
    "\u3000－1", "@x", "-1", "\t=1", "\r\n", "a,b\n\"c\"", "\u2028",
    "\x00", "\x1b[2J", "<video>", "</s>", "naïve 图 😀", "'", " ", "{}", "[]", "null",
])  # fmt: skip
SIGNS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
TEXT = NASTY | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
BACK = ("trl", "llama-factory", "hf-dataset")


def content(row: pair_formats.PairRow) -> tuple[Any, ...]:
    """A row by content, its image by the bytes' hash."""
    image = hashlib.sha256(row.image).hexdigest()
    named = (row.image_sha256, row.source, row.negative, row.seed)
    return (row.prompt, row.chosen, row.rejected, image, *named)


def written(folder: Path, photos: Path, texts: list[tuple[str, str, str]]) -> Path:
    """A file of pairs; images in turn, one of them under another name than its file's hash."""
    names = sorted(path.name for path in photos.iterdir())
    pairs = []
    for number, (prompt, chosen, rejected) in enumerate(texts):
        ref = image_ref(names[number % len(names)], photos)
        pairs.append(
            AnsweredPair(ref, prompt, chosen, rejected, ("misleading", "jitter")[number % 2], number)
        )
    write_made(pairs, folder / "ours.parquet", PairFilter())
    return folder / "ours.parquet"


def imported(path: Path, root: Path | None = None) -> tuple[list[pair_formats.PairRow], list[str]]:
    """What comes of importing: rows, and reasons of what was left out."""
    opened = open_pairs(path, root)
    with tempfile.TemporaryDirectory() as folder:
        write_made(opened.pairs, Path(folder) / "in.parquet", PairFilter())
        rows = list(pair_formats.rows(Path(folder) / "in.parquet"))
    return rows, [problem.reason for problem in opened.problems]


# ---------------------------------------------------------------- there and back


@FEW
@given(texts=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=6))
def test_pairs_come_back_as_they_were(texts: list[tuple[str, str, str]], photos: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = written(folder, photos, texts)
        before = [content(row) for row in pair_formats.rows(ours)]
        for to in BACK:
            (folder / to).mkdir()
            done = pair_formats.export(ours, to, folder / to)
            held = [row for row in before if to != "llama-factory" or not marked(row)]
            assert done.rows == len(held)
            assert len(done.left_out) == len(before) - len(held)
            after, problems = imported(folder / to)
            assert [content(row) for row in after] == held
            assert problems == []


def marked(row: tuple[Any, ...]) -> bool:
    return any(mark in text for mark in pair_formats.PLACEHOLDERS for text in row[:3])


def test_a_picture_keeps_the_name_that_its_corruption_was_drawn_by(photos: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    ref = image_ref("0.png", photos)
    drawn = replace(ref, sha256="a" * 64, load=lambda: ref.load().copy())
    write_made([AnsweredPair(drawn, "x", "y", "z", "jitter", 7)], tmp_path / "p.parquet", PairFilter())
    for to in BACK:
        (tmp_path / to).mkdir()
        pair_formats.export(tmp_path / "p.parquet", to, tmp_path / to)
        (row,), _ = imported(tmp_path / to)
        assert (row.image_sha256, row.negative, row.seed) == ("a" * 64, "jitter", 7)


def test_two_pictures_never_share_a_name(photos: Path, tmp_path: Path) -> None:
    rows = [
        {"conversations": [{"from": "human", "value": "What?"}], "images": [name], "image_sha256": "b" * 64,
         "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}}
        for name in ("0.png", "1.jpg")
    ]  # fmt: skip
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    found, _ = imported(tmp_path / "rows.json", photos)
    assert found[0].image_sha256 == "b" * 64
    assert found[1].image_sha256 == hashlib.sha256((photos / "1.jpg").read_bytes()).hexdigest()


@FEW
@given(texts=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=6))
def test_no_cell_of_a_csv_is_a_formula_or_drives_a_terminal(
    texts: list[tuple[str, str, str]], photos: Path
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = written(folder, photos, texts)
        (folder / "csv").mkdir()
        pair_formats.export(ours, "csv", folder / "csv")
        with open(folder / "csv" / "pairs.csv", encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        assert head == ["prompt", "chosen", "rejected", "image", "source", "negative", "seed"]
        assert len(rows) == len(texts)
        for row, given_texts in zip(rows, texts, strict=True):
            # What a spreadsheet may see first: no sign, whatever invisible things are in front of it.
            assert not any(cell.strip("\ufeff\u200b\u3000 \n").startswith(SIGNS) for cell in row)
            assert not any(ord(sign) < 32 and sign not in "\t\n" for cell in row for sign in cell)
            assert (folder / "csv" / row[3]).is_file()
            if given_texts[1].isalnum():
                assert row[1] == given_texts[1]


def test_images_are_written_once_and_as_they_were(photos: Path, tmp_path: Path) -> None:
    ours = written(tmp_path, photos, [("a", "b", "c")] * 20)
    (tmp_path / "out").mkdir()
    done = pair_formats.export(ours, "llama-factory", tmp_path / "out")
    files = sorted((tmp_path / "out" / "images").iterdir())
    assert done.images == len(files) == len(list(photos.iterdir()))
    assert {path.read_bytes() for path in files} == {path.read_bytes() for path in photos.iterdir()}
    assert {path.suffix for path in files} == {".jpg", ".png"}


def test_trl_trains_on_the_export_as_it_is(photos: Path, tiny_vlm: Path, tmp_path: Path) -> None:
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import DPOConfig, DPOTrainer

    ours = written(tmp_path, photos, [("What is it?", "A box.", "A cat.")] * 2)
    pair_formats.export(ours, "trl", tmp_path / "trl.parquet")
    table = load_dataset(
        "parquet", data_files=str(tmp_path / "trl.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert table[0]["images"][0].size == (40, 64)  # decoded: the file says that they are images
    trainer = DPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(tiny_vlm),
        args=DPOConfig(
            output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=2, max_length=None,
            report_to=[], use_cpu=True, save_strategy="no", gradient_checkpointing=False, bf16=False,
        ),
        train_dataset=table,
        processing_class=AutoProcessor.from_pretrained(tiny_vlm),
        peft_config=LoraConfig(r=2, target_modules=r".*language_model.*q_proj"),
    )  # fmt: skip
    assert trainer.train().training_loss > 0


def turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "＝", "＋", "－", "＠", "﹣"])
@pytest.mark.parametrize(
    "front", ["", " ", "\n", "\t", "\ufeff", "\u200b", "\u200b\n ", "\u2060", "\xa0", "\u3000"]
)
def test_a_formula_is_marked_whatever_hides_it(front: str, sign: str) -> None:
    assert csv_cell(f"{front}{sign}1") == f"'{front}{sign}1"


@pytest.mark.parametrize("text", ["", " ", "\u200b", "a=1", " a -1", "\u200ba+1", "図＝1", "\na"])
def test_what_is_no_formula_is_not_marked(text: str) -> None:
    assert csv_cell(text) == text


def changed(ours: Path, name: str, value: Any, row: int = 1) -> Path:
    """A copy of a file of pairs with another value in one row, its types as they were."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(ours)
    rows = table.to_pylist()
    rows[row][name] = value
    path = ours.with_name("changed.parquet")
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    return path


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("images", [{"bytes": None, "path": "0.png"}], "images: one, with its bytes in the file"),
        ("images", [], "images: one"),
        ("images", None, "images: one"),
        ("images", [None], "images: one"),
        ("prompt", [], "prompt: one turn of the user"),
        ("prompt", [turn("assistant", "x")], "prompt: one turn of the user"),
        ("chosen", [turn("assistant", "x")] * 2, "chosen: one turn of the assistant"),
        (
            "rejected",
            [{"role": "assistant", "content": None}],
            "rejected: one turn of the assistant, with its text",
        ),
        ("rejected", [None], "rejected: one turn"),
        ("seed", None, "seed is missing"),
        ("image_sha256", None, "image_sha256 is missing"),
    ],
)
def test_a_row_that_training_cannot_use_is_named(
    name: str, value: Any, reason: str, photos: Path, tmp_path: Path
) -> None:
    ours = changed(written(tmp_path, photos, [("a", "b", "c")] * 3), name, value)
    with pytest.raises(UserError) as error:
        pair_formats.check(ours, "--pairs")
    assert str(error.value).startswith(f"--pairs {ours}: row 2 cannot be used ({reason}")
    for to in (*BACK, "csv"):
        if to != "hf-dataset":  # which gives rows as they are
            with pytest.raises(UserError, match="row 2 cannot be used"):
                pair_formats.export(ours, to, tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["strings", "paths", "undeclared", "numbers", "no seed"])
def test_columns_of_other_types_are_refused(kind: str, photos: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ours = written(tmp_path, photos, [("a", "b", "c")] * 3)
    table = pq.read_table(ours)
    texts = {name: pa.array(["x"] * 3) for name in pair_formats.COLUMNS if name != "seed"}
    other, column = {
        "strings": (pa.table({**texts, "seed": pa.array([1] * 3)}), "prompt"),
        "paths": (
            table.set_column(3, "images", pa.array([["0.png"]] * 3)).replace_schema_metadata(),
            "images",
        ),
        "undeclared": (table.replace_schema_metadata(), "images"),  # bytes, which nobody would decode
        "numbers": (table.set_column(5, "source", pa.array([1] * 3)).replace_schema_metadata(), "source"),
        "no seed": (table.drop_columns(["seed"]), "seed"),
    }[kind]
    pq.write_table(other, tmp_path / "other.parquet")
    with pytest.raises(UserError, match=r"column \w+") as error:
        pair_formats.check(tmp_path / "other.parquet", "--pairs")
    assert "import pairs" in str(error.value)
    if kind != "numbers":  # where the images, declared nowhere any more, are found first
        assert f"column {column}" in str(error.value)


def test_what_is_written_is_what_is_checked_for(photos: Path, tmp_path: Path) -> None:
    from datasets import Features
    from pyarrow.parquet import read_schema

    ours = written(tmp_path, photos, [("a", "b", "c")] * 3)
    assert Features.from_arrow_schema(read_schema(ours)) == preference_pairs.features()
    assert tuple(preference_pairs.features()) == pair_formats.COLUMNS
    assert pair_formats.check(ours, "--pairs") == 3


# ---------------------------------------------------------------- what others have made


def said(who: str, text: str) -> dict[str, str]:
    return {"from": who, "value": text}


def talk(answer: str) -> list[dict[str, str]]:
    return [turn("user", "Interpret the scene."), turn("assistant", answer)]


STIC = {"image": "0.png", "image_corruption": False, "hallu_prompt": "Imagine things.",
        "chosen": talk("A box."), "rejected": talk("A box and a dragon.")}  # fmt: skip
ANSWERS = {"chosen": "A box.", "rejected": "A cat."}
FOREIGN: dict[str, tuple[dict[str, Any], str]] = {
    "STIC": (STIC, "Interpret the scene."),
    "ShareGPT": (
        {"conversations": [said("human", "<image>What is it?")], "images": ["0.png"],
         "chosen": said("gpt", "A box."), "rejected": said("gpt", "A cat.")},
        "What is it?",
    ),
    "OpenAI's words": (
        {"messages": [turn("user", "Look: <image>\nWhat?")], "images": "0.png",
         "chosen": turn("assistant", "A box."), "rejected": turn("assistant", "A cat.")},
        "Look: What?",
    ),
    "Alpaca": ({"instruction": "Name it.", "input": "In a word.", "images": ["0.png"], **ANSWERS},
               "Name it.\nIn a word."),
    "standard": ({"prompt": "What is it?", "image": "0.png", **ANSWERS}, "What is it?"),
    "conversational": (
        {"prompt": [turn("user", "What is it?")], "images": ["0.png"],
         "chosen": [turn("assistant", "A box.")], "rejected": [turn("assistant", "A cat.")]},
        "What is it?",
    ),
    "parts": (
        {"prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}],
         "images": ["0.png"], "chosen": [turn("assistant", "A box.")], "rejected": [turn("assistant", "")]},
        "What?",
    ),
    "implicit": ({"images": ["0.png"], "chosen": talk("A box."), "rejected": talk("A cat.")},
                 "Interpret the scene."),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("lines", [False, True])
def test_each_format_is_told_by_its_rows(name: str, lines: bool, photos: Path, tmp_path: Path) -> None:
    row, prompt = FOREIGN[name]
    text = "".join(json.dumps(item) + "\n" for item in [row, row]) if lines else json.dumps([row, row])
    (tmp_path / "rows.json").write_text(text)
    rows, problems = imported(tmp_path / "rows.json", photos)
    assert problems == []
    assert [(row.prompt, row.chosen) for row in rows] == [(prompt, "A box.")] * 2
    assert rows[0].image == (photos / "0.png").read_bytes()
    assert rows[0].source == "0.png"


def test_how_stic_s_rows_were_spoilt_is_kept(photos: Path, tmp_path: Path) -> None:
    other = {**STIC, "image_corruption": True, "hallu_prompt": ""}
    (tmp_path / "pref.jsonl").write_text(json.dumps(STIC) + "\n" + json.dumps(other) + "\n")
    rows, _ = imported(tmp_path / "pref.jsonl", photos)
    assert [row.negative for row in rows] == ["misleading", "corrupted"]


SHAREGPT = FOREIGN["ShareGPT"][0]
BAD: dict[str, tuple[Any, str]] = {
    "list": ([1], "is a list, not an object"),
    "no chosen": ({"prompt": "x", "rejected": "y"}, "has no chosen"),
    "no prompt": ({**ANSWERS, "image": "0.png"}, "has no prompt"),
    "nothing known": ({"chosen": 1, "rejected": 2}, "has neither prompt"),
    "no image": ({"prompt": "x", **ANSWERS}, "has 0 images"),
    "two images": ({**SHAREGPT, "images": ["0.png", "1.jpg"]}, "has 2 images"),
    "two places": ({**SHAREGPT, "conversations": [said("human", "<image><image>What?")]}, "2 places"),
    "missing": ({**STIC, "image": "nothing.png"}, "no such file"),
    "outside": ({**STIC, "image": "../secret.png"}, "lies outside"),
    "address": ({**STIC, "image": "https://example.org/0.png"}, "fetch it first"),
    "damaged": ({**STIC, "image": "damaged.png"}, "damaged"),
    "system": (
        {**SHAREGPT, "conversations": [said("system", "Be brief."), said("human", "What?")]},
        "has the turns system, user",
    ),
    "rounds": ({**STIC, "chosen": [*talk("a"), *talk("b")]}, "answer different questions"),
    "two answers": ({**STIC, "chosen": [*talk("a"), turn("assistant", "b")]}, "in turn are expected"),
    "other question": (
        {**STIC, "rejected": [turn("user", "Another?"), turn("assistant", "x")]},
        "answer different questions",
    ),
    "no text": ({**SHAREGPT, "chosen": said("gpt", 3)}, "has no text"),  # type: ignore[arg-type]
    "role list": ({**SHAREGPT, "conversations": [{"from": ["human"], "value": "x"}]}, "role"),
    "role object": ({**SHAREGPT, "conversations": [{"from": {"a": 1}, "value": "x"}]}, "role"),
    "circle": ({**STIC, "image": "circle.png"}, "circle"),
    "history": ({**FOREIGN["Alpaca"][0], "history": [["a"]]}, "history"),
    "surrogate": ({"prompt": "\ud83d", "image": "0.png", **ANSWERS}, "surrogate"),
}  # fmt: skip


@pytest.fixture
def pictures(photos: Path, tmp_path: Path) -> Path:
    """Pictures, a damaged one among them, and one outside of the folder."""
    import shutil

    shutil.copytree(photos, tmp_path / "root" / "images")
    folder = tmp_path / "root" / "images"
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "damaged.png").write_bytes((folder / "0.png").read_bytes()[:60])
    shutil.copyfile(folder / "0.png", tmp_path / "root" / "secret.png")
    return folder


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_left_out_with_its_reason(name: str, pictures: Path, tmp_path: Path) -> None:
    row, reason = BAD[name]
    (tmp_path / "rows.json").write_text(json.dumps([STIC, row, STIC]))
    rows, problems = imported(tmp_path / "rows.json", pictures)
    assert len(rows) == 2
    assert len(problems) == 1
    assert reason in problems[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.just("0.png"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([
                "prompt", "chosen", "rejected", "image", "images", "conversations", "messages", "from",
                "value", "role", "content", "instruction", "input", "hallu_prompt", "text", "bytes", "path",
                "image_sha256", "source", "negative", "seed",
            ]),
            inner, max_size=6,
        )
    ),
    max_leaves=20,
)  # fmt: skip


@settings(FEW, max_examples=200)
@given(rows=st.lists(JSON, min_size=1, max_size=4))
def test_whatever_rows_hold_they_are_read_or_left_out(rows: list[Any], photos: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        path.write_text(json.dumps(rows))
        found, problems = imported(path, photos)
        assert len(found) + len(problems) == len(rows)


# ---------------------------------------------------------------- by the command


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    monkeypatch.chdir(tmp_path)

    def run(*argv: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = invoke([str(arg) for arg in argv])
        return (code, *capsys.readouterr())

    return run


def test_import_says_what_it_took_and_lists_what_it_left(say: Say, pictures: Path, tmp_path: Path) -> None:
    rows = [STIC, {**STIC, "image": "nothing\x1b[2J.png"}, STIC]
    (tmp_path / "pref.json").write_text(json.dumps(rows))
    code, out, _ = say("import", "pairs", "pref.json", "--image-root", pictures, "-q")
    assert code == 3
    assert "the STIC authors' preference data (2 rows)" in out
    assert "row 2: image nothing\\x1b[2J.png: no such file" in out
    assert "2 pairs of 1 image: pairs.parquet" in out
    assert [row["row"] for row in read_jsonl(tmp_path / "pairs.skipped.jsonl")] == [2]
    assert pair_formats.check(tmp_path / "pairs.parquet", "x") == 2
    code, _, err = say("import", "pairs", "pref.json", "--image-root", pictures, "-q")
    assert (code, "already exists" in err) == (2, True)
    (tmp_path / "pref.json").write_text(json.dumps([STIC]))
    assert say("import", "pairs", "pref.json", "--image-root", pictures, "-q", "--force")[0] == 0
    assert not (tmp_path / "pairs.skipped.jsonl").exists()


def test_import_of_nothing_usable_writes_nothing(say: Say, tmp_path: Path) -> None:
    (tmp_path / "pref.json").write_text(json.dumps([STIC, STIC]))
    code, _, err = say("import", "pairs", "pref.json", "-q")
    assert code == 2
    assert "no row can be used (row 1: image 0.png: no such file: " in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pref.json"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1,", "is not valid JSON"),
        ("", "there are no rows"),
        ("\x00\x01", "is not valid JSON"),
        ("[]", "there are no rows"),
        (json.dumps({"data": [STIC]}, indent=1), "rows.json: holds one object, not rows; give"),
        (json.dumps([{"image": "0.png", "conversations": [said("human", "What?"), said("gpt", "A cat.")]}]),
         "row 1: is instruction data, not a pair: give the file with --sft-data"),
    ],
)  # fmt: skip
def test_import_of_what_is_none(say: Say, tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    code, _, err = say("import", "pairs", "rows.json", "-q")
    assert (code, reason in err, err.count("\n")) == (2, True, 1)


def test_import_of_binary_files(say: Say, tmp_path: Path, photos: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but nothing behind it")
    for path, reason in (
        (tmp_path / "x.parquet", "as parquet"),
        (photos / "1.jpg", "neither JSON nor parquet"),
        (photos, "holds neither"),
        (tmp_path / "no", "no such file"),
    ):
        code, _, err = say("import", "pairs", path, "-q")
        assert (code, reason in err, err.count("\n")) == (2, True, 1)


def test_a_folder_of_llama_factory_names_its_file(say: Say, tmp_path: Path) -> None:
    info = {"a": {"file_name": "../x.json", "ranking": True}}
    (tmp_path / "lf").mkdir()
    (tmp_path / "lf" / "dataset_info.json").write_text(json.dumps(info))
    (tmp_path / "x.json").write_text("[]")
    assert "not a file in this folder" in say("import", "pairs", "lf", "-q")[2]
    info["b"] = info["a"]
    (tmp_path / "lf" / "dataset_info.json").write_text(json.dumps(info))
    assert "describes 2 files of pairs (a, b)" in say("import", "pairs", "lf", "-q")[2]


def test_a_file_of_pairs_is_exported_without_a_run(say: Say, photos: Path, tmp_path: Path) -> None:
    written(tmp_path, photos, [("<image>", "b", "c"), ("a", "b", "c")])
    code, out, _ = say("export", "pairs", "ours.parquet", "--to", "llama-factory", "--output", "lf")
    assert code == 3
    assert out.splitlines()[0].startswith("row 1: holds the text <image>")
    assert "1 pair of 1 image: lf" in out
    info = json.loads((tmp_path / "lf" / "dataset_info.json").read_text())
    assert next(iter(info.values()))["ranking"] is True
    code, _, err = say("export", "pairs", "ours.parquet", "--to", "csv", "--output", "lf")
    assert (code, "is not empty" in err) == (2, True)
    assert say("export", "pairs", "ours.parquet", "--to", "csv", "--output", "lf", "--force")[0] == 0
    assert say("export", "pairs", "ours.parquet", "--to", "trl", "--output", "t.parquet")[0] == 0
    assert (tmp_path / "t.parquet").read_bytes() == (tmp_path / "ours.parquet").read_bytes()
    (tmp_path / "other.parquet").write_bytes(b"x")
    assert "not a parquet file of pairs" in say("export", "pairs", "other.parquet", "--to", "csv")[2]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_by_force_a_model_s_weights_are_replaced_and_nobody_else_s(tmp_path: Path) -> None:
    from stic_eval.cli.export import staged_output

    old = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
           "model.safetensors.index.json")  # fmt: skip
    others = (
        "my_other_adapter.safetensors",
        "model_mine.safetensors",
        "adapter_model.safetensors",
        "notes.md",
    )
    target = tmp_path / "out"
    target.mkdir()
    for name in (*old, *others, "config.json"):
        (target / name).write_text("old")
    with staged_output(target, force=True) as folder:
        for name in ("README.md", "config.json"):
            (folder / name).write_text("new")
    assert {path.name for path in target.iterdir()} == {*old, *others, "config.json", "README.md"}
    with staged_output(target, force=True) as folder:
        for name in ("model.safetensors", "config.json"):
            (folder / name).write_text("new")
    assert {path.name for path in target.iterdir() if path.read_text() == "old"} == set(others)
    assert {path.name for path in target.iterdir()} == {
        *others, "model.safetensors", "config.json", "README.md",
    }  # fmt: skip


def test_pairs_of_a_run_are_known_by_what_a_stage_is_and_not_by_its_name(tmp_path: Path) -> None:
    stages = [
        TrainedStage("drawn", "a" * 64, 0.0, 1, 0, kind="pairs"),
        TrainedStage("learned", "b" * 64, 0.0, 0, 1),
    ]
    entry = Entry("mine", "mine", "Mine", DIRECT, 0, stages=stages)
    run = RunArtifacts(tmp_path, config.load(), None, [entry], tmp_path)
    assert [found.stage for found in all_of(run, "pairs")] == ["drawn"]
    assert [found.stage for found in all_of(run, "adapter")] == ["learned"]
