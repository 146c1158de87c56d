"""Instruction data and fine-tuning on it: what is read, what carries loss, what comes out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image
from safetensors.torch import load_file

from stic_eval.contracts.method import SFTItem, items_key
from stic_eval.errors import UserError
from stic_eval.image_sources import scan_images
from stic_eval.models import prompt_text
from stic_eval.models.conversation import encode, render, turn_end
from stic_eval.models.hf_model import HFModel
from stic_eval.models.prompt_text import control_tokens
from stic_eval.training import training_loop
from stic_eval.training.hyperparameters import Training
from stic_eval.training.instruction_data import infuse, items_of, read_items
from stic_eval.training.lora import LoraSettings
from stic_eval.training.sft import sft_collator, train_sft
from stic_eval.types import Generation, ImageRef, Message, Request

LORA = LoraSettings(r=4, alpha=8, dropout=0.3)
TRAINING = Training(learning_rate=5e-3, batch_size=4, epochs=3)


@pytest.fixture(scope="module")
def hf(tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm), device="cpu")


@pytest.fixture(scope="module")
def items(photos: Path) -> list[SFTItem]:
    found: list[SFTItem] = []
    for number, image in enumerate(scan_images(photos)[0]):
        turns = [("user", f"How many boxes, {number}?"), ("assistant", f"There are {number}.")]
        if number % 2:
            turns += [("user", "Sure?"), ("assistant", "Yes, über-sure.")]
        found.append(SFTItem(str(number), image, tuple(turns)))
    return found


# ---------------------------------------------------------------- reading


def talk(number: int, **row: Any) -> dict[str, Any]:
    turns = [
        {"from": "human", "value": f"<image>\nWhat is {number}?"},
        {"from": "gpt", "value": f"It is {number}."},
    ]
    return {"id": str(number), "conversations": turns, **row}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(6):
        Image.new("RGB", (8, 8), (number * 40, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def written(folder: Path, rows: list[Any], name: str = "data.json") -> str:
    text = json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_llava_json_is_read(name: str, folder: Path) -> None:
    words = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}]
    rows = [talk(i, image=f"images/{i}.png") for i in range(6)] + [talk(9, conversations=words)]
    items, skipped = read_items(written(folder, rows, name))
    assert skipped == []
    assert {item.id for item in items} == set("012345")
    for item in items:
        assert item.turns == (("user", f"What is {item.id}?"), ("assistant", f"It is {item.id}."))
        assert item.image.load().getpixel((0, 0)) == (int(item.id) * 40, 0, 0)


def test_the_order_is_by_content_and_a_limit_takes_its_front(folder: Path) -> None:
    rows = [talk(i, image=f"images/{i}.png") for i in range(6)]
    whole, _ = read_items(written(folder, rows))
    again, _ = read_items(written(folder, rows[::-1], "other.json"))
    assert [item.id for item in whole] == [item.id for item in again] != list("012345")
    assert items_key(whole) == items_key(again)
    assert [item.id for item in read_items(written(folder, rows), limit=4)[0]] == [i.id for i in whole[:4]]


def test_with_a_limit_no_more_images_are_looked_at_than_needed(folder: Path) -> None:
    rows = [talk(i, image=f"images/{i % 6}.png" if i < 6 else f"nowhere/{i}.png") for i in range(2000)]
    items, skipped = read_items(written(folder, rows), limit=3)
    everything, missing = read_items(written(folder, rows))
    assert (len(items), len(everything), len(missing)) == (3, 6, 1994)
    assert len(skipped) < 1994
    assert [item.id for item in items] == [item.id for item in everything[:3]]


def test_what_cannot_be_used_is_listed_with_its_reason(folder: Path) -> None:
    (folder / "images" / "empty.png").write_bytes(b"")
    whole = (folder / "images" / "1.png").read_bytes()
    (folder / "images" / "torn.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (8, 8)).save(folder.parent / "secret.png")
    names = ["images/0.png", "images/none.png", "images/empty.png", "images/torn.png", "../secret.png"]
    rows = [talk(i, image=name) for i, name in enumerate(names)]
    rows.append(talk(9, image=["images/0.png", "images/1.png"]))
    items, skipped = read_items(written(folder, rows))
    assert [item.id for item in items] == ["0"]
    reasons = {item.source: item.reason for item in skipped}
    assert "no such file" in reasons["images/none.png"]
    assert reasons["images/empty.png"] == "empty file"
    assert "lies outside" in reasons["../secret.png"]
    assert "2 images" in reasons["data.json#6"]
    assert len(reasons) == 5


def said(text: Any, **row: Any) -> dict[str, Any]:
    """An item that asks this."""
    return {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "ok"}], **row}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (said("<image>?", id="a"), "item a: has 0 images, but 1 <image> mark in its turns"),
        (said("What?", image="images/1.png"), "has 1 image, but 0 <image> marks in its turns"),
        (said("<image><image>?", id=7, image="images/1.png"), "item 7: has 1 image, but 2 <image> marks"),
        (said("<image>?", image=["images/1.png", "images/2.png"]), "has 2 images, but 1 <image> mark"),
        (said("<image><image>?", images=["images/1.png", "images/2.png"]), "2 images; one path is expected"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "image"}]},
                          {"role": "assistant", "content": "ok"}], "images": ["images/1.png"]},
            "has 1 image, but 2 <image> marks",
        ),
    ],
)  # fmt: skip
def test_an_item_that_has_not_as_many_images_as_marks_is_left_out(
    folder: Path, row: dict[str, Any], reason: str
) -> None:
    items, skipped = read_items(written(folder, [talk(0, image="images/0.png"), row]))
    assert [item.id for item in items] == ["0"]
    ((source, why),) = [(item.source, item.reason) for item in skipped]
    assert (source, reason in why) == ("data.json#2", True), why


def test_messages_of_the_hub_need_no_marks(folder: Path) -> None:
    talked = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "ok"}]
    rows = [{"messages": talked, "images": ["images/0.png"]}, {"messages": talked}]
    items, skipped = read_items(written(folder, rows))
    assert (len(items), skipped) == (1, [])


def test_image_root_is_where_paths_start(folder: Path) -> None:
    (folder / "lists").mkdir()
    path = written(folder / "lists", [talk(0, image="0.png")])
    assert read_items(path)[0] == []
    assert len(read_items(path, folder / "images")[0]) == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image": "a.png"}, "neither conversations nor messages"),
        ({"image": "a.png", "conversations": []}, "not a list of turns"),
        (
            {"image": "a.png", "conversations": [{"from": "cat", "value": "x"}]},
            "conversations[0]: from is 'cat'",
        ),
        ({"image": "a.png", "conversations": [{"from": ["human"], "value": "x"}]}, "from is ['human']"),
        ({"image": "a.png", "conversations": [{"from": {"a": 1}, "value": "x"}]}, "from is {'a': 1}"),
        ({"image": "a.png", "conversations": [{"from": "human", "value": "\ud800"}]}, "value is not text"),
        ({"image": "a.png", "conversations": [{"from": "human", "value": 3}]}, "value is not text"),
        ({"image": "a.png", "conversations": [{"from": "gpt", "value": "x"}]}, "human first"),
        ({"image": "a.png", "conversations": [{"from": "human", "value": "x"}]}, "human first"),
        ("text", "expected an object"),
    ],
)
def test_a_row_that_does_not_fit_is_named(row: Any, said: str, folder: Path) -> None:
    path = written(folder, [talk(0, image="images/0.png"), row])
    with pytest.raises(UserError) as caught:
        read_items(path)
    assert all(part in str(caught.value) for part in ("--sft-data", path, "row 2", said)), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "not valid JSON"),
        ("a.json", "{}", "expected a list"),
        ("a.json", '[{"id": 1, "conversations": []}]', "no item has an image"),
        ("a.jsonl", '{"id": 1}\nxx\n', "line 2"),
        ("a.jsonl", '{"id": 1}\n' + "[" * 5000, "line 2"),
        ("a.parquet", "xx", "cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_is_named(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        read_items(str(tmp_path / name))
    assert said in str(caught.value)
    assert name in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        read_items(str(tmp_path / "none.json"))


@pytest.mark.parametrize("whole", [True, False])
def test_a_table_of_other_content_is_read_again_however_old_it_looks(folder: Path, whole: bool) -> None:
    """`datasets` knows what it has read before by path and time alone."""
    path = folder / "set" / "items.parquet"
    path.parent.mkdir()
    for answer in ("one", "two"):
        turns = [{"from": "human", "value": "<image>\n?"}, {"from": "gpt", "value": answer}]
        Dataset.from_list([{"id": "1", "image": "images/0.png", "conversations": turns}]).to_parquet(path)
        os.utime(path, ns=(10**18, 10**18))
        ((item,), _) = read_items(str(path.parent if whole else path), folder)
        assert item.turns[-1] == ("assistant", answer)


@pytest.mark.parametrize("saved", ["folder", "parquet"])
def test_a_data_set_with_images_inside_is_read(saved: str, folder: Path) -> None:
    turn = {"role": Value("string"), "content": Value("string")}
    features = Features({"messages": List(turn), "images": List(ImageFeature())})
    rows = [
        {
            "messages": [{"role": "user", "content": f"<image>{i}?"}, {"role": "assistant", "content": "ok"}],
            "images": [{"bytes": (folder / "images" / f"{i}.png").read_bytes(), "path": None}],
        }
        for i in range(5)
    ]
    rows[4]["images"] = [{"bytes": b"no image", "path": None}]
    rows.append({**rows[0], "images": []})
    rows.append({**rows[0], "images": [rows[0]["images"][0], rows[1]["images"][0]]})
    table = Dataset.from_list(rows, features=features)
    path = folder / ("set" if saved == "folder" else "set.parquet")
    table.save_to_disk(path) if saved == "folder" else table.to_parquet(path)
    items, skipped = read_items(str(path))
    assert {item.source.partition("#")[2]: item.reason.split(":")[0] for item in skipped} == {
        "5": "not an image of a known format", "6": "has 0 images, but 1 <image> mark in its turns",
        "7": "has 2 images, but 1 <image> mark in its turns",
    }  # fmt: skip
    assert sorted(item.turns[0][1] for item in items) == ["0?", "1?", "2?", "3?"]
    for item in items:
        assert item.image.load().getpixel((0, 0)) == (int(item.turns[0][1][0]) * 40, 0, 0)


def test_rows_with_references_become_items_in_their_order() -> None:
    ref = ImageRef("a" * 64, "pocket:sft/0", partial(Image.new, "RGB", (8, 8)))
    items = items_of([talk(1, image=ref), talk(0, image=ref)])
    assert [(item.id, item.image, item.turns[0]) for item in items] == [
        ("1", ref, ("user", "What is 1?")), ("0", ref, ("user", "What is 0?")),
    ]  # fmt: skip
    with pytest.raises(UserError, match="row 2"):
        items_of([talk(1, image=ref), talk(0, image="a.png")])


def test_the_key_is_content_and_no_path(items: list[SFTItem]) -> None:
    first = items[0]
    moved = ImageRef(first.image.sha256, "elsewhere/x.png", first.image.load)
    assert items_key([first]) == items_key([SFTItem("other", moved, first.turns)])
    assert items_key([first]) != items_key([infuse(first, "d")])
    assert items_key(items) != items_key(items[::-1])


def test_the_description_stands_before_the_first_instruction(items: list[SFTItem]) -> None:
    turns = infuse(items[1], "A box.").turns
    assert turns[0] == ("user", "Image description:\nA box.\nHow many boxes, 1?")
    apart = infuse(items[1], "A box.", "\n\n").turns[0][1]
    assert apart == "Image description:\nA box.\n\nHow many boxes, 1?"
    assert turns[1:] == items[1].turns[1:]


# ---------------------------------------------------------------- what carries loss


def labelled(hf: HFModel, batch: dict[str, Any], row: int) -> str:
    kept = batch["labels"][row]
    return str(hf.processor.tokenizer.decode(kept[kept != -100]))


def test_only_answers_and_their_end_carry_loss(hf: HFModel, items: list[SFTItem]) -> None:
    batch = sft_collator(hf.processor, items, None)([{"row": 0}, {"row": 1}])
    assert labelled(hf, batch, 0) == " There are 0.</s>"
    assert labelled(hf, batch, 1) == " There are 1.</s> Yes, über-sure.</s>"
    assert batch["pixel_values"].shape[0] == 2
    text = hf.processor.tokenizer.decode(batch["input_ids"][1], skip_special_tokens=False)
    assert "USER: Sure? ASSISTANT: Yes, über-sure.</s>" in text


def test_the_prompt_is_tokenized_as_for_generation(hf: HFModel, items: list[SFTItem]) -> None:
    batch = sft_collator(hf.processor, items, None)([{"row": 0}])
    request = Request((Message("user", items[0].turns[0][1]),), (items[0].image,), Generation())
    (prompt,) = prompt_text.render_prompts(hf.processor, [request], control_tokens(hf.processor))
    asked = hf.processor(text=[prompt], images=[[items[0].image.load()]], return_tensors="pt")["input_ids"][0]
    assert torch.equal(batch["input_ids"][0][: len(asked)], asked)
    first = int((batch["labels"][0] != -100).nonzero()[0])
    assert first == len(asked)


def test_control_tokens_in_a_text_are_only_text(hf: HFModel, items: list[SFTItem]) -> None:
    turns = (("user", "Is this an <image>?"), ("assistant", "No</s> it <image> is not"))
    batch = sft_collator(hf.processor, [SFTItem("x", items[0].image, turns)], None)([{"row": 0}])
    assert labelled(hf, batch, 0) == " No< /s> it < image> is not</s>"
    places = int((batch["input_ids"] == hf.processor.tokenizer.convert_tokens_to_ids("<image>")).sum())
    plain = sft_collator(hf.processor, items, None)([{"row": 0}])
    assert places == int((plain["input_ids"] == hf.processor.image_token_id).sum())


def test_what_is_too_long_loses_its_end_and_never_the_image(hf: HFModel, items: list[SFTItem]) -> None:
    whole = sft_collator(hf.processor, items, None)([{"row": 1}])
    length = whole["input_ids"].shape[1]
    images = int((whole["input_ids"] == hf.processor.image_token_id).sum())
    assert images > 3
    cut = sft_collator(hf.processor, items, length - images - 8)([{"row": 1}])
    assert torch.equal(cut["input_ids"], whole["input_ids"][:, : length - 8])
    just = sft_collator(hf.processor, items, length - images)([{"row": 1}])
    assert torch.equal(just["input_ids"], whole["input_ids"])
    nothing = sft_collator(hf.processor, items, 3)([{"row": 1}])
    assert (nothing["labels"] == -100).all()
    assert (nothing["input_ids"] == hf.processor.image_token_id).sum() == (
        whole["input_ids"] == hf.processor.image_token_id
    ).sum()


def test_padding_carries_no_loss_and_changes_no_loss(hf: HFModel, items: list[SFTItem]) -> None:
    collate = sft_collator(hf.processor, items, None)
    both = collate([{"row": 0}, {"row": 1}])
    assert (both["labels"][both["attention_mask"] == 0] == -100).all()
    with torch.no_grad():
        together = hf.with_adapter(None).model(**both).logits
        alone = hf.with_adapter(None).model(**collate([{"row": 0}])).logits
    assert torch.allclose(together[0, : alone.shape[1]], alone[0], atol=1e-4)


TEMPLATES = {
    "no end": "{% for m in messages %}{{ m.role }}: {% for p in m.content %}"
    "{% if p.type == 'image' %}<image>{% else %}{{ p.text }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}",
    "chatml": "{% for m in messages %}<s>{{ m.role }}\n{% for p in m.content %}"
    "{% if p.type == 'image' %}<image>{% else %}{{ p.text }}{% endif %}{% endfor %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}",
}


@pytest.mark.parametrize(("kind", "first"), [("no end", " There are 1.</s>"), ("chatml", "There are 1.</s>")])
def test_other_templates_teach_where_to_stop(
    kind: str, first: str, hf: HFModel, items: list[SFTItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf.processor, "chat_template", TEMPLATES[kind])
    text, spans = render(hf.processor, items[1].turns, turn_end(hf.processor))
    assert text[slice(*spans[0])] == first
    assert text[slice(*spans[1])].strip() == "Yes, über-sure.</s>"
    batch = encode(hf.processor, [items[1].image.load()], [items[1].turns])
    kept = batch["input_ids"][0][batch["answer_mask"][0] == 1]
    assert hf.processor.tokenizer.decode(kept) == "".join(text[slice(*span)] for span in spans)


def test_a_template_that_rewrites_earlier_turns_is_refused(
    hf: HFModel, items: list[SFTItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf.processor, "chat_template", "{{ messages | length }}{{ messages[-1].content }}")
    with pytest.raises(UserError, match="chat template"):
        render(hf.processor, items[1].turns, "</s>")


# ---------------------------------------------------------------- training


def train(hf: HFModel, items: list[SFTItem], out: Path, **options: Any) -> dict[str, torch.Tensor]:
    train_sft(hf, items, out, **{"training": TRAINING, "lora": LORA, "seed": 1} | options)
    return load_file(out / "adapter" / "adapter_model.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    assert set(left) == set(right)
    return all(torch.allclose(left[name], right[name], rtol=0, atol=1e-6) for name in left)


def test_the_logged_loss_is_the_mean_over_the_batchs_answer_tokens(
    hf: HFModel, items: list[SFTItem], tmp_path: Path
) -> None:
    once = Training(learning_rate=1e-3, batch_size=len(items), warmup_ratio=0.0)
    train(hf, items, tmp_path, training=once)
    logged = json.loads((tmp_path / "log.jsonl").read_text())["loss"]
    batch = sft_collator(hf.processor, items, None)([{"row": i} for i in range(len(items))])
    with torch.no_grad():
        expected = hf.with_adapter(None).model(**batch).loss.item()
    assert logged == pytest.approx(expected, rel=1e-5)


def test_a_killed_training_goes_on_to_the_same_weights(
    hf: HFModel, items: list[SFTItem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = train(hf, items, tmp_path / "a")
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", 0.0)
    seen: list[int] = []

    def stop_at(step: int) -> Callable[[int, int], None]:
        def progress(done: int, total: int) -> None:
            seen.append(done)
            if done == step:
                raise KeyboardInterrupt

        return progress

    with pytest.raises(KeyboardInterrupt):
        train(hf, items, tmp_path / "b", progress=stop_at(4))
    seen.clear()
    # Dropout is on here, so the state of the random generators has to come back too.
    assert same(train(hf, items, tmp_path / "b", progress=stop_at(-1)), straight)
    assert (seen[0], seen[-1]) == (3, 6)
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"adapter", "log.jsonl"}


def test_it_goes_on_from_an_adapter_and_keeps_its_size(
    hf: HFModel, items: list[SFTItem], tmp_path: Path
) -> None:
    first = train(hf, items, tmp_path / "a")
    second = train(
        hf, items, tmp_path / "b", start=tmp_path / "a" / "adapter", lora=LoraSettings(r=2, alpha=2)
    )
    assert {name: value.shape for name, value in second.items()} == {
        name: value.shape for name, value in first.items()
    }
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in "ab"
    ]
    assert losses[1][0] < losses[0][0]
    assert not same(first, second)
    (_, answer), = hf.with_adapter(tmp_path / "b" / "adapter").generate(
        [Request((Message("user", "Sure?"),), (items[0].image,), Generation(max_new_tokens=4))]
    )  # fmt: skip
    assert answer.n_tokens > 0


def test_nothing_to_train_on_is_an_error(hf: HFModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--sft-data"):
        train(hf, [], tmp_path)
