"""CSR: what its search asks, what it goes on with, and the pair at the end of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stic_eval.methods import csr

from stic_eval.models import clip
from stic_eval.selftrain.pair_making import AnsweredPair
from stic_eval.types import Request, Response
from tests.support.scripted import Scripted, making, pictures


def prompt_of(request: Request) -> str:
    return request.messages[0].text


def begun(request: Request) -> str:
    return request.messages[-1].text if request.messages[-1].role == "assistant" else ""


Tree = dict[str, list[str | Response]]


def grown(
    tree: Tree, logps: dict[str, float], monkeypatch: pytest.MonkeyPatch, images: int = 1,
    fits: dict[str, float] | None = None, **how: Any
) -> tuple[list[AnsweredPair], Scripted, list[list[str]]]:  # fmt: skip
    """CSR's pairs where what goes on from a beginning, what it is worth and how it fits are written down.

    Returns:
        Pairs, the model, and what CLIP was shown call by call.
    """
    given_out: dict[Any, int] = defaultdict(int)

    def answer(request: Request) -> str | Response:
        key = (request.images[0].source, begun(request))
        given_out[key] += 1
        return tree[begun(request)][given_out[key] - 1]

    shown: list[list[str]] = []

    def compare(part: list[Any]) -> list[float]:
        shown.append([text for _, text in part])
        return [(fits or {}).get(text, 0.0) for _, text in part]

    monkeypatch.setattr(clip, "load_clip", lambda model, device: compare)
    model = Scripted(answer, lambda request, said: logps[said.strip()])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stic_eval.models.clip.append_jsonl", lambda *_: None)
        settings = csr.Pairs(**{"candidates": 2, "keep_worst": 1, "weight": 0.0, **how})
        made = list(csr.make_pairs(making(model, Path("/nowhere"), images=pictures(images)), settings))
    return made, model, shown


# Each of them would go on: what follows the first sentence is left for the next step.
TREE: Tree = {
    "": ["Al. And more.", "Bo. And more."],
    "Al.": ["Cy. And more.", "Di. And more."],
    "Bo.": ["Ed. And more.", "Fi. And more."],
}
LOGPS = {"Al.": -1.0, "Bo.": -2.0, "Cy.": -1.0, "Di.": -5.0, "Ed.": -2.0, "Fi.": -3.0}


def test_csr_goes_on_with_the_likeliest_and_the_least_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    made, model, _ = grown(TREE, LOGPS, monkeypatch, sentences=2)
    # Al 1/2, Bo 1; Cy and Ed then 1/2, Di and Fi 1. By three: Al Cy 1/3, Al Di and Bo Ed 1/2, Bo Fi 2/3.
    assert [(pair.chosen, pair.rejected, pair.negative) for pair in made] == [
        ("Al. Cy.", "Bo. Fi.", "worst path")
    ]
    assert Counter(begun(request) for request in model.asked) == {"": 2, "Al.": 2, "Bo.": 2}
    assert len({request.generation.seed for request in model.asked}) == 6
    # What is scored is the sentence behind its path, with the blank between them.
    assert {(begun(request), said) for request, said in model.scored} == {
        ("", "Al."), ("", "Bo."), ("Al.", " Cy."), ("Al.", " Di."), ("Bo.", " Ed."), ("Bo.", " Fi."),
    }  # fmt: skip
    assert {prompt_of(request) for request in model.asked} == {"Describe."}


def test_csrs_weight_is_that_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = {"Al.": 0.1, "Bo.": 0.2, "Cy.": 0.3, "Di.": 0.1, "Ed.": 0.2, "Fi.": 0.4}

    def ends(weight: float) -> tuple[str, str]:
        ((pair, *_), _, _) = grown(TREE, LOGPS, monkeypatch, fits=fits, sentences=2, weight=weight)
        return pair.chosen, pair.rejected

    assert ends(0.0) == ("Al. Cy.", "Bo. Fi.")
    # By the fit: Bo 1/2, Al 1; Fi and Cy 1/2, Ed and Di 1.
    assert ends(1.0) == ("Bo. Fi.", "Al. Di.")
    # In between: Al and Bo 3/4; Cy 1/2, Di 1, Ed and Fi 3/4.
    assert ends(0.5) == ("Al. Cy.", "Al. Di.")


def test_csr_shows_clip_sentences_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, shown = grown(TREE, LOGPS, monkeypatch, sentences=2, weight=0.9)
    assert [sorted(texts) for texts in shown] == [["Al.", "Bo."], ["Cy.", "Di.", "Ed.", "Fi."]]


def test_csr_stops_at_so_many_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    made, model, _ = grown(TREE, LOGPS, monkeypatch, sentences=1)
    assert [(pair.chosen, pair.rejected) for pair in made] == [("Al.", "Bo.")]
    assert len(model.asked) == 2


def test_csr_leaves_paths_that_have_ended_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bo was all that was said, and Al was not."""
    tree: Tree = {"": ["Al. And more.", "Bo."], "Al.": ["Cy.", "Di."]}
    made, model, _ = grown(tree, LOGPS, monkeypatch, sentences=8)
    assert Counter(begun(request) for request in model.asked) == {"": 2, "Al.": 2}
    # Al Cy (1/2 + 1/2) / 3, Al Di (1/2 + 1) / 3, Bo 1 / 2.
    assert [(pair.chosen, pair.rejected) for pair in made] == [("Al. Cy.", "Bo.")]


def test_csr_takes_no_sentence_that_was_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound on tokens has cut it in the middle; a whole sentence before a cut one is one."""
    cut, later = Response("Bo and", 3, "length"), Response("Al. Bo and", 5, "length")
    tree: Tree = {"": [cut, later, "Ed."], "Al.": [cut, cut, cut]}
    made, model, _ = grown(tree, LOGPS, monkeypatch, sentences=8, candidates=3)
    assert sorted(said for _, said in model.scored) == ["Al.", "Ed."]
    assert Counter(begun(request) for request in model.asked) == {"": 3, "Al.": 3}
    assert [(pair.chosen, pair.rejected) for pair in made] == [("Al.", "Ed.")]


def test_csr_ends_a_path_behind_which_nothing_is_said_and_takes_it_for_no_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree: Tree = {"": ["Al. And more.", "Bo. And more."], "Al.": ["", "Cy."], "Bo.": ["", "Fi."]}
    made, model, shown = grown(
        tree, LOGPS, monkeypatch, sentences=8, weight=0.5, fits={"Bo.": 0.0, "Al.": 1.0}
    )
    # Al 1/2 and Bo 1, by two; Cy and Fi are the only ones of their path: Al Cy (1/2 + 1) / 3, Bo Fi 2 / 3.
    assert [(pair.chosen, pair.rejected) for pair in made] == [("Al.", "Bo. Fi.")]
    assert not [said for _, said in model.scored if not said.strip()]
    assert not [text for texts in shown for text in texts if not text]


@pytest.mark.parametrize("said", [["", ""], ["", "Fi."], ["Fi.", "Fi."]])
def test_csr_makes_no_pair_of_empty_or_equal_answers(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, model, _ = grown({"": list(said)}, LOGPS, monkeypatch, sentences=8)
    assert (made, len(model.asked)) == ([], 2)
    assert len(model.scored) == len({text for text in said if text})


def test_csr_ranks_by_image_and_not_across_them(monkeypatch: pytest.MonkeyPatch) -> None:
    made, model, _ = grown(TREE, LOGPS, monkeypatch, images=3, sentences=2)
    assert [(p.image.source, p.chosen, p.rejected) for p in made] == [
        (f"{n}.png", "Al. Cy.", "Bo. Fi.") for n in range(3)
    ]
    assert len(model.asked) == 18


def test_csr_keeps_more_paths_if_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("Al.", "Bo.", "Cy.", "Di.", "Ed.")
    tree: Tree = {"": [f"{name} x" for name in names], **{name: ["Fi."] * 5 for name in names}}
    logps = {"Fi.": -9.0, **{name: -float(n) for n, name in enumerate(names)}}
    for best, worst, left in ((1, 1, [0, 4]), (1, 2, [0, 3, 4]), (2, 1, [0, 1, 4]), (3, 3, [0, 1, 2, 3, 4])):
        keep = {"keep_best": best, "keep_worst": worst}
        _, model, _ = grown(tree, logps, monkeypatch, sentences=2, candidates=5, **keep)
        assert {begun(request) for request in model.asked} - {""} == {names[n] for n in left}


def test_csr_asks_for_equal_candidates_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, model, _ = grown({"": ["Al.", "Al.", "Bo."]}, LOGPS, monkeypatch, sentences=1, candidates=3)
    assert sorted(said for _, said in model.scored) == ["Al.", "Bo."]


def test_csr_goes_on_by_likelihood_alone_and_chooses_by_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fit decides which answers make the pair, not which paths are searched."""
    names = ("Al.", "Bo.", "Cy.", "Di.", "Ed.")
    tree: Tree = {"": [f"{name} x" for name in names], **{name: ["Fi.", "Go."] * 3 for name in names}}
    logps = {"Fi.": -1.0, "Go.": -2.0, **{name: -float(n) for n, name in enumerate(names)}}
    fits = {"Bo.": 9.0, "Cy.": 8.0, "Ed.": 1.0, "Di.": 0.5, "Al.": 0.2}
    made, model, _ = grown(
        tree, logps, monkeypatch, fits=fits, sentences=2, candidates=5, keep_worst=2, weight=0.9
    )
    assert {begun(request) for request in model.asked} - {""} == {"Al.", "Di.", "Ed."}
    # Al 0.1/5 + 0.9, Di 0.1 * 4/5 + 0.9 * 4/5, Ed 0.1 + 0.9 * 3/5; Fi 0.1/2 and Go 0.1, fits alike 3/4.
    assert [(pair.chosen, pair.rejected) for pair in made] == [("Ed. Fi.", "Al. Go.")]


def test_csr_ranks_candidates_of_one_path_and_adds_up_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    logps = {"One.": -1.0, "Two.": -3.0, "Three.": -2.0, "Two words.": -3.0}
    fits = {"One.": 0.1, "Two.": 0.3, "Three.": 0.2, "Two words.": 0.0}
    monkeypatch.setattr(clip, "load_clip", lambda *_: lambda part: [fits[text] for _, text in part])
    monkeypatch.setattr("stic_eval.models.clip.append_jsonl", lambda *_: None)
    model = Scripted(score=lambda request, said: logps[said.strip()])
    given = making(model, Path("/nowhere"), images=pictures(2))
    root, other = csr.Path(0), csr.Path(0, "Al.", (0.4,), -7.0)
    found: list[csr.Candidate] = [
        (root, "One.", False), (root, "Two.", False), (root, "Three.", True),
        (other, " Two.", False), (other, " Two words.", False),
    ]  # fmt: skip
    graded = csr.score_paths(given, ["Describe."] * 2, found, csr.Pairs(weight=0.75))
    assert [path.costs for path in graded] == [
        (pytest.approx(0.25 * 1 / 3 + 0.75 * 1),),
        (pytest.approx(0.25 * 1 + 0.75 * 1 / 3),),
        (pytest.approx(0.25 * 2 / 3 + 0.75 * 2 / 3),),
        # Of two words the likelihood counts by half: -1.5 a token before -3.
        (0.4, pytest.approx(0.25 * 1 + 0.75 * 1 / 2)),
        (0.4, pytest.approx(0.25 * 1 / 2 + 0.75 * 1)),
    ]
    assert [path.score for path in graded] == [-1.0, -3.0, -2.0, -10.0, -8.5]
    assert graded[-1].cost == pytest.approx((0.4 + 0.875) / 3)
    assert [path.text for path in graded][-2:] == ["Al. Two.", "Al. Two words."]


@settings(deadline=None)
@given(values=st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5]) | st.floats(-9, 0), min_size=1, max_size=9))
def test_ranks_are_places_by_their_number_the_highest_first_and_ties_share(values: list[float]) -> None:
    found = csr.ranks(values)
    assert all(0 < rank <= 1 for rank in found)
    for a, rank_a in zip(values, found, strict=True):
        for b, rank_b in zip(values, found, strict=True):
            assert (a > b) == (rank_a < rank_b)
    assert sum(found) == pytest.approx((len(values) + 1) / 2)
    if len(set(values)) == len(values):
        assert sorted(found) == pytest.approx([n / len(values) for n in range(1, len(values) + 1)])


@settings(deadline=None)
@given(scores=st.lists(st.floats(-9, 0), max_size=9), best=st.integers(1, 3), worst=st.integers(1, 3))
def test_both_ends_are_kept_the_likeliest_first(scores: list[float], best: int, worst: int) -> None:
    paths = [csr.Path(0, str(number), score=score) for number, score in enumerate(scores)]
    found = csr.at_the_ends(paths, csr.Pairs(candidates=5, keep_best=best, keep_worst=worst))
    few = len(paths) < 5 or len(paths) <= best + worst
    assert len(found) == (len(paths) if few else best + worst)
    assert len(set(found)) == len(found)
    order = sorted(scores, reverse=True)
    assert [path.score for path in found] == (order if few else order[:best] + order[-worst:])
