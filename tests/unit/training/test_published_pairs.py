"""Preference sets as they are published, written by hand to the schemas of their cards and loaders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stic_eval.cli.app import invoke
from stic_eval.training import pair_formats
from stic_eval.training.foreign_pairs import open_pairs
from stic_eval.training.hyperparameters import PairFilter
from stic_eval.training.preference_pairs import write_made

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. USER: <image>\nWhat is it? ASSISTANT:"
)
ASKED = {"from": "human", "value": "<image>\nWhat is it?"}
TALK = [{"role": "user", "content": "<image>What is it?"}, {"role": "assistant", "content": "A box."}]


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def rating(*points: str) -> dict[str, Any]:
    names = ("Helpfulness", "Visual Faithfulness", "Ethical Considerations")
    return {name: {"Rating": p, "Rationale": "..."} for name, p in zip(names, points, strict=True)}


def feedback(*answers: tuple[str, tuple[str, str, str]]) -> list[dict[str, Any]]:
    return [{"annotations": rating(*p), "idx": 0, "model": "m", "response": text} for text, p in answers]


RATED = feedback(("So so.", ("3", "3", "5")), ("A box.", ("5", "5", "5")), ("A cat.", ("1", "1", "5")))
SETS: dict[str, tuple[str, dict[str, Any]]] = {
    "RLAIF-V": ("RLAIF-V's", {
        "ds_name": "RLAIF-V", "image": "0.png", "question": "What is it?", "chosen": "A box.",
        "rejected": "A cat.", "origin_dataset": "LCS-558K", "origin_split": {}, "idx": 0, "image_path": "x",
    }),
    "RLHF-V": ("RLHF-V's", {
        "ds_name": "RLHF-V", "image": "0.png", "idx": 0, "image_path": "x", "origin_split": "{}",
        "text": json.dumps({"question": "What is it?", "chosen": "A box.", "rejected": "A cat."}),
    }),
    "POVID": ("POVID's", {
        "id": "1", "image": "0.png", "conversations": [ASKED, gpt("A box.")],
        "rejected_conversations": [ASKED, gpt("A cat.")],
    }),
    "mDPO": ("mDPO's", {"img_path": "0.png", "prompt": VICUNA, "chosen": "A box.", "rejected": "A cat."}),
    "ms-swift": ("ms-swift's", {"messages": TALK, "rejected_response": "A cat.", "images": ["0.png"]}),
    "ms-swift, images": ("ms-swift's", {
        "messages": TALK, "images": ["0.png"], "rejected_images": ["0.png"],
        "rejected_messages": [TALK[0], {"role": "assistant", "content": "A cat."}],
    }),
    "LLaVA-RLHF": ("LLaVA-RLHF's", {
        "id": "1", "image": "0.png", "conversations": [ASKED, gpt("")], "preference": 2,
        "output_1": {"from": "llava", "value": "A cat."}, "output_2": {"from": "llava", "value": "A box."},
    }),
    "VLFeedback": ("VLFeedback's", {
        "id": "1", "prompt": "What is it?", "models": ["m"], "img_path": "0.png", "completions": RATED,
    }),
    "VLFeedback, columns": ("VLFeedback's", {
        "prompt": "What is it?", "img_path": "0.png",
        "completions": {name: [answer[name] for answer in RATED] for name in ("annotations", "response")},
    }),
    "TRL": ("TRL's, conversational", {
        "images": ["0.png"], "prompt": [{"role": "user", "content": [{"text": None, "type": "image"},
                                                                   {"text": "What is it?", "type": "text"}]}],
        "chosen": [{"role": "assistant", "content": [{"text": "A box.", "type": "text"}]}],
        "rejected": [{"role": "assistant", "content": [{"text": "A cat.", "type": "text"}]}],
    }),
}  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (16, 12), "red").save(tmp_path / "photos" / "0.png")
    Image.new("RGB", (16, 12), "blue").save(tmp_path / "photos" / "1.png")
    return tmp_path / "photos"


def read(
    rows: list[Any], photos: Path, folder: Path
) -> tuple[list[pair_formats.PairRow], list[str], list[str]]:
    (folder / "set.json").write_text(json.dumps(rows))
    opened = open_pairs(folder / "set.json", photos)
    write_made(opened.pairs, folder / "ours.parquet", PairFilter())
    pairs = list(pair_formats.rows(folder / "ours.parquet"))
    return pairs, [item.reason for item in opened.problems], [*opened.formats]


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_read_as_it_is_published(name: str, photos: Path, tmp_path: Path) -> None:
    known, row = SETS[name]
    (pair,), problems, formats = read([row], photos, tmp_path)
    assert (problems, formats) == ([], [known])
    assert (pair.prompt, pair.chosen, pair.rejected) == ("What is it?", "A box.", "A cat.")
    assert pair.image == (photos / "0.png").read_bytes()


def test_a_parquet_file_holds_its_images(photos: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    cell = {"bytes": (photos / "0.png").read_bytes(), "path": "0.png"}
    pq.write_table(
        pa.Table.from_pylist([{**SETS["RLAIF-V"][1], "origin_split": "{}", "image": cell}]),
        tmp_path / "set.parquet",
    )
    opened = open_pairs(tmp_path / "set.parquet")
    (pair,) = opened.pairs
    assert (pair.prompt, pair.image.source) == ("What is it?", "0.png")


SWIFT = SETS["ms-swift"][1]
UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "another image": ({**SWIFT, "rejected_images": ["1.png"]}, "about another image"),
    "images alone": (
        {"messages": TALK, "images": ["0.png"], "rejected_images": ["1.png"]}, "one answer about two",
    ),
    "no preference": ({**SETS["LLaVA-RLHF"][1], "preference": -1}, "nobody preferred"),
    "all the same": ({**SETS["VLFeedback"][1], "completions": [RATED[0], RATED[0]]}, "rated the same"),
    "not rated": (
        {**SETS["VLFeedback"][1], "completions": feedback(("x", ("N/A", "1", "1")), ("y", ("1", "1", "1")))},
        "1 of 2 answers are rated",
    ),
    "bad text": ({**SETS["RLHF-V"][1], "text": "{"}, "text is not valid JSON"),
    "several turns in one text": (
        {**SETS["mDPO"][1], "prompt": "USER: <image>\na ASSISTANT: b USER: c ASSISTANT:"}, "several turns",
    ),
    "later image": (
        {**SWIFT, "messages": [{**TALK[0], "content": "Hi."}, TALK[1], *TALK]}, "in a later turn",
    ),
    "system": (
        {**SWIFT, "messages": [{"role": "system", "content": "Be brief."}, *TALK]}, "in turn are expected",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_says_why(name: str, photos: Path, tmp_path: Path) -> None:
    row, reason = UNUSABLE[name]
    pairs, (problem,), _ = read([SETS["mDPO"][1], row], photos, tmp_path)
    assert len(pairs) == 1
    assert reason in problem
    assert len(problem) < 600


EARLIER = [
    {"role": "user", "content": "<image>Hello."}, {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A box."},
]  # fmt: skip


@pytest.mark.parametrize("to", ["trl", "llama-factory", "ms-swift", "openrlhf", "hf-dataset"])
def test_several_turns_go_out_and_come_back(
    to: pair_formats.PairFormat, photos: Path, tmp_path: Path
) -> None:
    (pair,), problems, _ = read([{**SWIFT, "messages": EARLIER}], photos, tmp_path)
    assert problems == []
    assert pair.asked == (("user", "Hello."), ("assistant", "Hi."), ("user", "What is it?"))
    (tmp_path / "out").mkdir()
    done = pair_formats.export(tmp_path / "ours.parquet", to, tmp_path / "out")
    assert (done.rows, done.left_out) == (1, [])
    opened = open_pairs(done.path, tmp_path / "out")
    write_made(opened.pairs, tmp_path / "back.parquet", PairFilter())
    assert opened.problems == []
    (back,) = pair_formats.rows(tmp_path / "back.parquet")
    assert (back.asked, back.chosen, back.rejected, back.image) == (
        pair.asked,
        "A box.",
        "A cat.",
        pair.image,
    )


def test_exports_are_what_their_programs_document(photos: Path, tmp_path: Path) -> None:
    read([SWIFT], photos, tmp_path)
    wanted = {"ms-swift": ["messages", "rejected_response", "images"],
              "openrlhf": ["prompt", "chosen", "rejected", "images"]}  # fmt: skip
    for to, columns in wanted.items():
        assert (
            invoke(
                [
                    "export",
                    "pairs",
                    str(tmp_path / "ours.parquet"),
                    "--to",
                    to,
                    "--output",
                    str(tmp_path / to),
                ]
            )
            == 0
        )
        (line,) = (tmp_path / to / "pairs.jsonl").read_text().splitlines()
        row = json.loads(line)
        assert list(row) == columns
        assert (tmp_path / to / row["images"][0]).is_file()
        first = row[columns[0]][0]
        assert first == {"role": "user", "content": "<image>\nWhat is it?"}


def test_a_table_has_no_column_for_earlier_turns(photos: Path, tmp_path: Path) -> None:
    read([{**SWIFT, "messages": EARLIER}, SWIFT], photos, tmp_path)
    (tmp_path / "csv").mkdir()
    done = pair_formats.export(tmp_path / "ours.parquet", "csv", tmp_path / "csv")
    assert (done.rows, len(done.left_out)) == (1, 1)


def test_mdpo_s_own_sample(tmp_path: Path) -> None:
    real = Path(os.environ.get("STIC_EVAL_REAL_DATA", "nowhere"), "pairs", "mdpo_sample.json")
    if not real.is_file():
        pytest.skip("mDPO's sample is not at hand (STIC_EVAL_REAL_DATA)")
    rows = json.loads(real.read_text())
    for number, row in enumerate(rows):
        (tmp_path / row["img_path"]).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9 + number, 8)).save(tmp_path / row["img_path"], "JPEG")
    opened = open_pairs(real, tmp_path)
    pairs = list(opened.pairs)
    assert (len(pairs), opened.problems) == (len(rows), [])
    assert all("USER:" not in pair.prompt and "<image>" not in pair.prompt for pair in pairs)
