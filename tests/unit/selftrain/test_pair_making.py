"""Pairs as a function of a method's own makes them: what it is given, what is in its stage's key."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from stic_eval import plugin_code
from stic_eval.contracts.method import Data, Stage
from stic_eval.errors import UserError
from stic_eval.models import clip
from stic_eval.selftrain import stages
from stic_eval.selftrain.pair_making import AnsweredPair, Making, fill, question, sentences
from stic_eval.selftrain.stage_runner import stage_key
from stic_eval.store import file_sha256
from stic_eval.training.hyperparameters import Describing, PairFilter, PreferenceTraining
from stic_eval.training.lora import LoraSettings
from stic_eval.training.preference_pairs import write_made
from stic_eval.types import Response
from tests.support.scripted import Lab, Quiet, Scripted, data_of, making, pictures, rows_of

PARTS = st.text(alphabet="ab {}\\x\n", max_size=8)


class Pairs(PairFilter, Describing):
    images: int = 100
    items: int = 100
    fraction: float = 1.0
    strength: float = Field(default=0.5)


class Everything(Pairs, PreferenceTraining):
    """As a method has it that keeps all of its settings in one place."""

    learning_rate: float = 1e-3
    batch_size: int = 4


def make(making: Making, how: Pairs) -> Iterator[AnsweredPair]:
    for image in making.images:
        yield AnsweredPair(image, "x", "good", "bad")


def stage(
    settings: Pairs | None = None,
    data: Data | None = None,
    function: Callable[[Making, Pairs], Any] = make,
    **more: Any,
) -> Stage:
    chosen = {"version": 1, "rows": 7, "generations": 20, "images": 3, **more}
    return stages.made_pairs(function, Pairs, settings or Pairs(), data or data_of(10, 10), **chosen)


def key(made: Stage, data: Data | None = None, seed: int = 0) -> str:
    return stage_key(made, data or data_of(10, 10), "base", seed)


def adapter_stage(folder: Path) -> Stage:
    """Stands in for training: an adapter with nothing in it."""

    def run(context: Any) -> None:
        (context.out / "adapter").mkdir()
        (context.out / "adapter" / "adapter_config.json").write_text("{}")

    return Stage("preference", 1, run, {"why": str(folder.name)})


# ---------------------------------------------------------------- the key


def test_settings_that_change_pairs_are_in_the_key_and_no_others() -> None:
    base = key(stage())
    counted = Pairs(images=5, items=5, fraction=0.5)  # how many are taken says `images=` and `items=`
    assert key(stage(counted)) == base
    assert key(stage(Everything(learning_rate=0.5, beta=9, epochs=7))) == base
    assert key(stage(Pairs(similarity=0.5, length_ratio=3))) == base  # no filter uses them
    assert key(stage(rows=99, generations=99)) == base
    near = Pairs(filter="near_duplicates")
    assert key(stage(near)) == key(stage(near.model_copy(update={"length_ratio": 9})))
    others = [
        stage(Pairs(strength=0.25)),
        stage(Pairs(temperature=1)),
        stage(Pairs(max_new_tokens=5)),
        stage(Pairs(filter="identical")),
        stage(near),
        stage(near.model_copy(update={"similarity": 0.5})),
        stage(Pairs(filter="length_balance")),
        stage(Pairs(filter="length_balance", length_ratio=9)),
        stage(version=2),
        stage(images=4),
        stage(images=None, items=3),
        stage(items=3),
        stage(iteration=2),
        stage(roles=("plain",)),
        stage(roles=("plain", "step_by_step")),
        stage(by=adapter_stage(Path("a"))),
        stage(by=adapter_stage(Path("b"))),
    ]
    assert len({base, *map(key, others)}) == len(others) + 1
    assert key(stage(), seed=1) != base


def test_prompts_count_by_the_roles_that_are_used() -> None:
    data = data_of(10, 10)
    other = replace(data, prompts=data.prompts.model_copy(update={"misleading": ("Lie.", "Invent.")}))
    assert key(stage(data=data, roles=("plain",))) == key(stage(data=other, roles=("plain",)))
    roles = ("plain", "misleading")
    assert key(stage(data=data, roles=roles)) != key(stage(data=other, roles=roles))


def test_only_what_is_read_counts_and_only_so_much_of_it() -> None:
    def of(there: int, told: int, **taken: Any) -> str:
        data = data_of(there, told)
        return key(stage(data=data, **taken), data)

    assert stage().reads == ("images",)
    assert stage(images=None, items=3).reads == ("sft",)
    assert stage(items=4).reads == ("images", "sft")
    assert of(3, 0) == of(9, 9) != of(2, 9)
    assert of(0, 3, images=None, items=3) == of(9, 9, images=None, items=3) != of(9, 2, images=None, items=3)
    assert of(3, 3, items=3) == of(9, 9, items=3) != of(9, 2, items=3)


SOURCE = """
from stic_eval.selftrain.pair_making import AnsweredPair
MARK = {mark!r}
def make(making, how):
    return [AnsweredPair(image, "x", MARK, "bad") for image in making.images]
"""


def plug_in(path: Path, mark: str, name: str = "a_method") -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SOURCE.format(mark=mark))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make


def test_a_plug_ins_file_is_in_the_key_by_content_and_not_by_path(tmp_path: Path) -> None:
    one = stage(function=plug_in(tmp_path / "a" / "one.py", "good"))
    same = stage(function=plug_in(tmp_path / "b" / "two.py", "good", "another_name"))
    other = stage(function=plug_in(tmp_path / "c" / "one.py", "better"))
    assert key(one) == key(same) != key(other)
    assert str(tmp_path) not in json.dumps(dict(one.params))
    # And through a partial, by which a method may hand constants on.
    assert key(stage(function=partial(plug_in(tmp_path / "d" / "one.py", "good"))), None) != key(
        stage(function=partial(plug_in(tmp_path / "e" / "one.py", "better")))
    )


def test_a_constant_that_a_partial_hands_on_is_in_the_key() -> None:
    def marked(making: Making, how: Pairs, mark: str = "") -> list[AnsweredPair]:
        return [AnsweredPair(image, "x", mark, "bad") for image in making.images]

    one, same, other = (stage(function=partial(marked, mark=mark)) for mark in ("a", "a", "b"))
    assert key(one) == key(same) != key(other)


def test_a_function_without_a_file_has_a_key_that_lasts() -> None:
    def typed(text: str) -> Any:
        names: dict[str, Any] = {"AnsweredPair": AnsweredPair}
        exec(text, names)
        return names["make"]

    text = "def make(making, how):\n    return [AnsweredPair(i, 'x', {0!r}, 'b') for i in making.images]"
    one, same, other = (typed(text.format(mark)) for mark in ("good", "good", "better"))
    assert key(stage(function=one)) == key(stage(function=same)) != key(stage(function=other))


def test_an_object_that_is_called_has_a_key_that_lasts() -> None:
    class Maker:
        def __call__(self, making: Making, how: Pairs) -> Iterator[AnsweredPair]:
            return make(making, how)

    assert key(stage(function=Maker())) == key(stage(function=Maker()))


def test_what_is_built_in_has_a_version_and_its_files_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from stic_eval.methods import csr, rlaif_v_lite, seva, sima

    def no_file(path: Any) -> str:
        raise AssertionError(f"read {path}")

    monkeypatch.setattr(plugin_code, "file_sha256", no_file)
    found = {stage_key(stage(function=module.make_pairs), data_of(10), "base", 0)  # type: ignore[attr-defined]
             for module in (seva, sima, csr, rlaif_v_lite)}  # fmt: skip
    assert len(found) == 4


# ---------------------------------------------------------------- what it is given, what comes of it


def test_the_function_gets_what_was_asked_for(tmp_path: Path) -> None:
    seen: list[tuple[Making, Pairs]] = []

    def looks(making: Making, how: Pairs) -> list[AnsweredPair]:
        seen.append((making, how))
        return [AnsweredPair(data.images[0], "x", "good", "bad")]

    data = data_of(10, 10)
    lab = Lab(tmp_path, Scripted())
    before = adapter_stage(tmp_path)
    settings = Everything(strength=0.25, images=9, learning_rate=0.5)
    lab.run(stage(settings, data, looks, images=3, items=2, roles=("plain", "step_by_step")), data)
    lab.run(stage(settings, data, looks, images=None, items=20, by=before, iteration=2), data)
    (first, how), (second, _) = seen
    assert type(how) is Pairs
    assert (how.strength, how.images) == (0.25, 9)
    assert (first.images, first.items) == (data.images[:3], data.sft_items[:2])
    assert first.prompts == {
        "plain": tuple(data.prompts.plain), "step_by_step": (data.prompts.step_by_step,),
    }  # fmt: skip
    assert (first.iteration, first.folder) == (1, None)
    assert (tuple(second.images), second.items, second.prompts) == ((), data.sft_items, {})
    assert second.iteration == 2
    assert second.folder is not None
    assert (second.folder / "adapter_config.json").is_file()
    assert second.folder.parent == lab.store.done("preference", key(before, data))


def test_pairs_are_filtered_written_and_counted(tmp_path: Path) -> None:
    def some(making: Making, how: Pairs) -> Iterator[AnsweredPair]:
        making.dropped["on a Monday"] += 2
        for number, image in enumerate(making.images):
            yield AnsweredPair(
                image, f"prompt {number}", "good", "bad" if number else "good", "odd" if number else ""
            )
        making.dropped["that were blue"] += 1

    data = data_of(4)
    lab = Lab(tmp_path, Scripted())
    folder = lab.run(stage(Pairs(filter="identical"), data, some, images=4), data)
    rows = rows_of(folder)
    assert [row["prompt"][0]["content"] for row in rows] == ["prompt 1", "prompt 2", "prompt 3"]
    assert {row["rejected"][0]["content"] for row in rows} == {"bad"}
    assert [row["image_sha256"] for row in rows] == [image.sha256 for image in data.images[1:]]
    assert any(
        "3 pairs (3 odd); 1 with equal answers, 1 dropped (filter identical); "
        "2 on a Monday; 1 that were blue" in line
        for line in lab.report.lines
    )


def test_where_no_pair_is_left_it_says_what_became_of_them(tmp_path: Path) -> None:
    def none(making: Making, how: Pairs) -> Iterator[AnsweredPair]:
        making.dropped["without a readable verdict"] += 4
        yield from (AnsweredPair(image, "x", "same", "same") for image in making.images)

    data = data_of(4)
    lab = Lab(tmp_path, Scripted())
    made = stage(Pairs(filter="identical"), data, none)
    with pytest.raises(UserError) as caught:
        lab.run(made, data)
    assert str(caught.value).startswith(
        "test_pair_making: no pair is left to train on: 3 with equal answers, 3 dropped (filter identical); "
        "4 without a readable verdict; give more data, or change"
    )
    assert "\n" not in str(caught.value)
    assert lab.store.done("pairs", key(made, data)) is None  # it is made anew when something has changed


def test_what_a_stage_asks_is_kept_and_counted_each_time(tmp_path: Path) -> None:
    def asks(making: Making, how: Pairs) -> Iterator[AnsweredPair]:
        requests = [question(f"{n % 4}?", image, how) for n, image in enumerate(making.images * 2)]
        answers = making.answers(requests, "ask")
        assert [a.text for a in answers] == [r.messages[0].text.upper() for r in requests]
        scored = making.likelihoods([(r, "yes") for r in requests] + [(requests[0], "no")])
        assert [s.logp for s in scored] == [-1.0] * 10 + [-2.0]
        if fail:
            raise RuntimeError("pulled the plug")
        yield AnsweredPair(making.images[0], "x", "a", "b")

    def said(request: Any) -> Response:
        return Response(request.messages[0].text.upper(), 3, "length")

    data, fail = data_of(5), True
    model = Scripted(said, lambda request, answer: -1.0 if answer == "yes" else -2.0)
    lab = Lab(tmp_path, model)
    asking = stage(None, data, asks, images=5)
    with pytest.raises(RuntimeError, match="plug"):
        lab.run(asking, data)
    assert (len(model.asked), len(model.scored)) == (10, 11)  # all are different: 4 questions, 5 images
    fail = False
    folder = lab.run(asking, data)
    assert (len(model.asked), len(model.scored)) == (10, 11)  # known by now
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["asked"] == {"generations": 10, "scored": 11}
    assert ("ask", 10, 10, 10) in lab.report.updates
    assert ("score", 11, 11, 11) in lab.report.updates


def test_equal_questions_are_answered_each(tmp_path: Path) -> None:
    how = Pairs(temperature=0)
    asked = [question(text, image, how) for text in "ab" for image in (*pictures(2), pictures(1)[0])]
    model = Scripted(lambda request: f"{request.messages[0].text} {request.images[0].source}")
    found = making(model, tmp_path).answers(asked)
    assert [a.text for a in found] == ["a 0.png", "a 1.png", "a 0.png", "b 0.png", "b 1.png", "b 0.png"]


def test_draws_depend_on_what_is_named_on_seed_and_on_iteration(tmp_path: Path) -> None:
    def draw(*parts: Any, **more: Any) -> int:
        return making(Scripted(), tmp_path, **more).random(*parts).getrandbits(64)

    assert draw("a", 1) == draw("a", 1) == draw("a", 1, images=pictures(3))
    different = [draw("a", 1), draw("a", 2), draw("b", 1), draw("a", 1, seed=1), draw("a", 1, iteration=2)]
    assert len({*different, draw("a", 1, iteration=3), draw("a", 1, iteration=2, seed=1)}) == 7


# ---------------------------------------------------------------- pairs that are given


def given_pairs(folder: Path) -> Path:
    path = folder / "given.parquet"
    write_made([AnsweredPair(image, "x", "mine", "yours") for image in pictures(2)], path, PairFilter())
    return path


def test_given_pairs_take_the_place_of_the_first_ones_alone(tmp_path: Path) -> None:
    path = given_pairs(tmp_path)
    plain = data_of(10)
    data = replace(plain, pairs=path, pairs_key=file_sha256(path), pairs_rows=2)
    first = stage(data=data)
    assert (first.rows, first.generations, first.reads) == (2, 0, ())
    lab = Lab(tmp_path, Scripted())
    assert (lab.run(first, data) / "pairs.parquet").read_bytes() == path.read_bytes()
    assert key(first, data) == key(stage(Pairs(strength=0.1), data, images=9), data)
    assert key(first, data) != key(first := stage(data=replace(data, pairs_key="other")), data)
    # A later iteration's are made, by what was trained on them.
    before = adapter_stage(tmp_path)
    later = stage(data=data, by=before, iteration=2)
    assert key(later, data) == key(stage(data=plain, by=before, iteration=2), plain)
    assert [row["chosen"][0]["content"] for row in rows_of(lab.run(later, data))] == ["good"] * 3


def test_steps_are_planned_by_the_pairs_that_there_can_be() -> None:
    loss = Everything(batch_size=4, epochs=3)
    for made, steps in ((stage(rows=9), 9), (stage(rows=0, generations=16), 6)):
        trained = stages.preference(made, loss=loss, training=loss, lora=LoraSettings())
        assert trained.steps == steps


# ---------------------------------------------------------------- image and text


def test_how_a_text_fits_is_what_seeing_adds_to_its_tokens(tmp_path: Path) -> None:
    def score(request: Any, answer: str) -> float:
        assert request.messages[0].text == "Look closely."
        return -2.0 * len(answer.split()) if request.images else -5.0 * len(answer.split()) - 1

    model = Scripted(score=score)
    given = making(model, tmp_path, prompts={"step_by_step": ("Look closely.",)})
    shown = [(image, text) for image in pictures(2) for text in ("a red box", "", "a red box")]
    assert given.image_text(shown) == pytest.approx([10 / 3, 1, 10 / 3] * 2)
    assert len(model.scored) == 4 + 2  # of two texts: seen with two images, and guessed without any


def test_a_clip_model_compares_in_the_stages_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def load(model: str, device: Any) -> Any:
        seen.append((model, str(device)))
        return lambda part: [len(text) / 10 for _, text in part]

    monkeypatch.setattr(clip, "load_clip", load)
    report = Quiet()
    given = making(Scripted(), tmp_path, report=report)
    shown = [(image, text) for image in pictures(2) for text in ("one", "three")]
    assert given.image_text(shown, "some/clip") == [0.3, 0.5, 0.3, 0.5]
    assert given.image_text(shown[:1], "some/clip") == [0.3]
    assert (seen, (tmp_path / "clip.jsonl").is_file()) == ([("some/clip", "cpu")], True)  # loaded once
    assert [update[2:] for update in report.updates] == [(4, 4)]


# ---------------------------------------------------------------- prompts and sentences


@settings(deadline=None)
@given(
    pieces=st.lists(st.sampled_from(["{a}", "{b}", "{other}", "text", "{}", " { ", " } ", "\\1"])),
    a=PARTS,
    b=PARTS,
)
def test_a_template_is_filled_once(pieces: list[str], a: str, b: str) -> None:
    """Braces in what is put in mean nothing, and names that nothing is known of stay."""
    wanted = "".join({"{a}": a, "{b}": b}.get(piece, piece) for piece in pieces)
    assert fill("".join(pieces), a=a, b=b) == wanted


@settings(deadline=None)
@given(text=st.text(alphabet="aB1 .!?\n", max_size=60))
def test_sentences_are_all_of_a_text_and_have_ends(text: str) -> None:
    found = sentences(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(one and one == one.strip() for one in found)
    assert all(one[-1] in ".!?" for one in found[:-1])
    assert all(sentences(one) == [one] for one in found)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        (" \n ", []),
        ("No end", ["No end"]),
        ("A box. A disc!  Is it red?\nYes.", ["A box.", "A disc!", "Is it red?", "Yes."]),
        ("It is 3.5 m wide. J. Smith made it.", ["It is 3.5 m wide.", "J. Smith made it."]),
        ("Wait... What?! No.", ["Wait...", "What?!", "No."]),
        (
            "1. A box.\n2. A disc. It is red.\n12. More.",
            ["1. A box.", "2. A disc.", "It is red.", "12. More."],
        ),
        ("There are 3. They are red.", ["There are 3.", "They are red."]),
    ],
)
def test_where_sentences_end(text: str, wanted: list[str]) -> None:
    assert sentences(text) == wanted


def test_a_question_may_have_an_answer_that_has_begun() -> None:
    (image,) = pictures(1)
    how = Pairs(temperature=0.5, top_p=0.9, max_new_tokens=7)
    asked = question("What?", image, how, 3, "A red")
    assert [(m.role, m.text) for m in asked.messages] == [("user", "What?"), ("assistant", "A red")]
    assert (asked.generation.seed, asked.generation.top_p, asked.images) == (3, 0.9, (image,))
    bare = question("What?", None, Pairs(temperature=0), 3)
    assert (len(bare.messages), bare.images, bare.generation.seed) == (1, (), 0)
