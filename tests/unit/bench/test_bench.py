"""The benches measure what they say. That it is fast, `make bench` shows."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench import __main__ as main
from bench import generation, memory, pocket
from bench.ratio import Ratio
from bench.rivals import plain, side, works
from stic_eval.types import ImageRef


def python(code: str, folder: Path) -> tuple[float, float, str]:
    return pocket.watched([sys.executable, "-S", "-c", code], folder, os.environ)


def test_memory_is_that_of_the_command_and_not_of_one_before_it(tmp_path: Path) -> None:
    # In a process of its own: until it starts its program, a child counts its parent's memory as its own.
    code = """
import os, sys
from pathlib import Path
from bench.pocket import watched
def run(code): return watched([sys.executable, "-S", "-c", code], Path(sys.argv[1]), os.environ)
_, large, said = run("import os; data = b'x' * 300_000_000; print(os.getcwd())")
_, small, _ = run("")
assert said.strip() == sys.argv[1], said
assert 0.3 < large < 0.4, large
assert small < large - 0.2, small
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_command_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    python("raise SystemExit(3)", tmp_path)  # rows are unscored
    with pytest.raises(RuntimeError, match="exit code 1\nout of luck"):
        python("raise SystemExit('out of luck')", tmp_path)


def test_a_ratio_is_written_with_the_versions_it_was_measured_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = [Ratio("12 cells, Ray, 1 worker", "local, 1 worker", 0.8, (10.0,), (12.5,))]
    monkeypatch.setitem(main.BENCHES, "cluster", lambda: measured)
    monkeypatch.setattr(main, "RESULTS", tmp_path / "results")
    main.main(["cluster"])
    found = json.loads((tmp_path / "results" / "cluster.json").read_text())
    (ratio,) = found["ratios"]
    assert (ratio["rival"], ratio["ratio"], ratio["our_times"]) == ("local, 1 worker", 0.8, [12.5])
    assert {"stic-eval", "torch", "transformers", "ray"} <= set(found["machine"]["versions"])


def test_a_ceiling_is_an_upper_bound() -> None:
    assert pocket.Measured("work", "s", 9.9, 10).as_dict()["below"] is True
    assert pocket.Measured("work", "s", 10, 10).as_dict()["below"] is False


# ---------------------------------------------------------------- sides


TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few questions about two pictures, and a tiny model that answers them."""
    folder = tmp_path_factory.mktemp("bench")
    model = works.larger_model(folder / "model", TINY, TINY, image=28)
    works.lay_out(folder / "work", model, list(works.larger_parts(2, 2, 3)))
    return folder / "work"


@pytest.mark.campaign  # minutes
def test_plain_batches_and_this_program_give_the_same_answers_by_turns(work: Path) -> None:
    found = generation.against(
        "four questions", "plain, batch {batch_size}", 2.0, work, ("plain", "direct", "1", "--trial")
    )
    assert found.answers == found.equal == 4
    assert found.rival == f"plain, batch {found.facts['batch_size']}"
    assert set(found.facts["seconds_a_question_in_trial"]) == {"1"}  # half of the rows is the largest batch
    assert found.rival_seconds > 0 and found.our_seconds > 0
    assert found.as_dict()["equal"] == 4


@pytest.mark.campaign  # minutes
def test_lmms_eval_is_asked_the_same_tokens_and_answers_the_same(work: Path) -> None:
    pytest.importorskip("lmms_eval")
    asked = side.alone("ours", work, "prompts").prompts
    found = generation.against("four questions", "lmms-eval", 2.0, work, ("lmms",), asked=asked)
    assert found.answers == found.equal == 4
    assert found.facts["prompts_compared"] == len(asked) == 4
    from transformers import AutoTokenizer

    image = AutoTokenizer.from_pretrained(work.parent / "model").convert_tokens_to_ids("<image>")
    assert {ids.count(image) for ids in asked.values()} == {(28 // works.PATCH) ** 2}


@pytest.mark.campaign  # half a minute
def test_a_side_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    side.Work(str(tmp_path / "nowhere"), {}).save(tmp_path)
    with pytest.raises(RuntimeError, match=r"bench.rivals.plain direct 1: exit code 1\n(?s:.*)nowhere"):
        side.alone("plain", tmp_path, "direct", "1")


def done(answers: dict[str, str], prompts: dict[str, list[int]] | None = None) -> side.Done:
    return side.Done(0.0, 1.0, 1.0, answers, prompts or {}, {}, 1.0)


@pytest.mark.parametrize(
    ("theirs", "complaint"),
    [
        (done({"a": "yes"}, {"a": [1, 2]}), "different questions"),
        (done({"a": "yes", "b": "no"}, {"a": [1, 3]}), "a: the two sides were given different prompts"),
    ],
)
def test_what_was_not_asked_alike_is_not_compared(
    theirs: side.Done, complaint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(side, "in_turn", lambda *_: (theirs, done({"a": "yes", "b": "yes"})))
    with pytest.raises(RuntimeError, match=complaint):
        generation.against("w", "r", 1.0, tmp_path, ("plain",), asked={"a": [1, 2]})


@given(st.lists(st.floats(0, 100), min_size=2, max_size=20), st.floats(0, 100), st.floats(0, 100))
def test_a_side_s_seconds_are_those_of_its_turns(marks: list[float], one: float, other: float) -> None:
    began, ended = sorted((one, other))
    turns = list(itertools.pairwise(sorted(marks)))
    ours, theirs = turns[::2], turns[1::2]
    inside = max(0.0, min(ended, max(marks)) - max(began, min(marks)))
    both = side.overlap((began, ended), ours) + side.overlap((began, ended), theirs)
    assert both == pytest.approx(inside)


@given(
    st.lists(st.tuples(st.text("ab", max_size=9), st.sampled_from((3, 5))), max_size=30), st.integers(1, 7)
)
def test_batches_hold_every_question_once_and_one_bound(rows: list[tuple[str, int]], size: int) -> None:
    asks = [plain.Ask(str(n), prompt, b"", most) for n, (prompt, most) in enumerate(rows)]
    tokenizer = SimpleNamespace(encode=lambda text, add_special_tokens: list(text))
    loaded = plain.Model(None, SimpleNamespace(tokenizer=tokenizer))
    batches = list(plain.batches(loaded, asks, size))
    assert sorted(ask.key for batch in batches for ask in batch) == sorted(ask.key for ask in asks)
    assert all(0 < len(batch) <= size and len({ask.most for ask in batch}) == 1 for batch in batches)
    for batch in batches:
        lengths = [len(ask.prompt) for ask in batch]
        assert lengths == sorted(lengths, reverse=True)


def test_few_requests_have_seen_every_image_and_no_two_are_alike() -> None:
    images = [ImageRef(str(number), "", lambda: Image.new("RGB", (1, 1))) for number in range(memory.IMAGES)]
    few = list(memory.requests(images, memory.FEW))
    assert {request.images[0] for request in few} == set(images)
    assert len(set(few)) == memory.FEW


@pytest.mark.campaign  # half a minute
def test_memory_is_measured_while_answers_come(tmp_path: Path) -> None:
    works.larger_model(tmp_path / "model", TINY, TINY, image=28)
    (tmp_path / "images").mkdir()
    works.photograph(0, (64, 48)).save(tmp_path / "images" / "0.jpg")
    assert 100 < memory.peak(tmp_path, 5) < 5_000  # torch alone takes more than a hundred
