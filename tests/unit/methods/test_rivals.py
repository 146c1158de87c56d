"""SeVa, SIMA, RLAIF-V and the plans of all rivals: what each makes of answers that are written down here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stic_eval.methods import rlaif_v_lite, seva, sima

from stic_eval import config, registry
from stic_eval.contracts.method import Data, Stage
from stic_eval.experiment.variants import stages as stages_of
from stic_eval.selftrain.pair_making import AnsweredPair
from stic_eval.selftrain.stage_runner import stage_key
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import Request
from tests.support.scripted import Lab, Scripted, data_of, making, pictures, rows_of, talks

RIVALS = ("seva", "sima", "csr", "rlaif_v_lite")


def stages(name: str, data: Data, **options: Any) -> list[Stage]:
    method = registry.methods().get(name)
    return list(stages_of(method.plan(method.config.model_validate(options), data).adapter))


def prompt_of(request: Request) -> str:
    return request.messages[0].text


# ---------------------------------------------------------------- plans


@pytest.mark.parametrize("name", RIVALS)
def test_a_plan_is_pure_and_made_before_anything_is_read(name: str) -> None:
    method = registry.methods().get(name)
    assert method.paper
    nothing = Data((), (), "images", "sft", load_prompts())
    plan = method.plan(method.config(), nothing)
    assert plan.solver == "direct"
    found = list(stages_of(plan.adapter))
    assert {stage.name for stage in found} == {"pairs", "preference"}
    again = list(stages_of(method.plan(method.config(), nothing).adapter))
    assert [stage_key(s, nothing, "m", 0) for s in found] == [stage_key(s, nothing, "m", 0) for s in again]


@pytest.mark.parametrize(
    ("name", "reads", "rows", "generations"),
    [
        ("seva", ("sft",), 5, 10),  # of one user's turn each: clean and noisy
        ("sima", ("sft",), 5, 15),  # two candidates and a verdict
        ("csr", ("images",), 7, 7 * 5 * (1 + 4 * 7)),  # of fewer than five paths all go on
        ("rlaif_v_lite", ("images",), 14, 7 * 10 * 2),
    ],
)
def test_plans_say_what_there_is_to_do(
    name: str, reads: tuple[str, ...], rows: int, generations: int
) -> None:
    options = {"pairs": {"scorer": "clip"}} if name == "csr" else {}
    made, *_ = stages(name, data_of(7, 5), **options)
    assert (made.reads, made.rows, made.generations) == (reads, rows, generations)
    preference = stages(name, data_of(7, 5), training={"batch_size": 2, "epochs": 1}, **options)[1]
    assert preference.steps == -(-rows // 2)


@pytest.mark.parametrize("name", RIVALS)
def test_half_of_the_data_is_the_run_with_half_as_much(name: str) -> None:
    data = data_of(20, 20)
    count = "items" if name in ("seva", "sima") else "images"

    def keys(**pairs: Any) -> list[str]:
        return [stage_key(s, data, "m", 0) for s in stages(name, data, pairs=pairs)]

    assert keys(**{count: 20}, fraction=0.25) == keys(**{count: 5}) == keys(fraction=0.25)
    assert keys(**{count: 5}) != keys(**{count: 6})


@pytest.mark.parametrize("name", RIVALS)
def test_rates_of_training_leave_pairs_as_they_are(name: str) -> None:
    data = data_of(4, 4)
    before, after = (
        [stage_key(s, data, "m", 0) for s in stages(name, data, training=training)][:2]
        for training in ({}, {"learning_rate": 0.5})
    )
    assert (before[0], before[1]) == (after[0], before[1])
    assert before[1] != after[1]


@pytest.mark.parametrize("name", ["csr", "rlaif_v_lite"])
def test_each_iteration_is_made_by_the_last_and_goes_on_from_it(name: str) -> None:
    data = data_of(4)
    for reference in ("previous", "base"):
        made = stages(name, data, iterations=3, reference=reference)
        pairs = [stage for stage in made if stage.name == "pairs"]
        trained = [stage for stage in made if stage.name == "preference"]
        assert [stage.needs for stage in pairs] == [(), (trained[0],), (trained[1],)]
        assert [stage.needs for stage in trained] == [
            (pairs[0],), (pairs[1], trained[0]), (pairs[2], trained[1]),
        ]  # fmt: skip
        assert [stage.params.get("reference") for stage in trained] == [None, reference, reference]
        assert ["lora" in stage.params for stage in trained] == [True, False, False]
        assert [stage.params.get("iteration") for stage in pairs] == [None, 2, 3]
    two = [stage_key(s, data, "m", 0) for s in stages(name, data, iterations=2)]
    three = [stage_key(s, data, "m", 0) for s in stages(name, data, iterations=3)]
    assert three[:4] == two
    assert len(set(three)) == 6


def test_the_second_adapter_is_trained_from_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What training is told: pairs by the first adapter, a start from it, and the reference."""
    from stic_eval.training import dpo

    told: list[dict[str, Any]] = []

    def train(model: Any, pairs: Path, out: Path, **how: Any) -> None:
        told.append({"pairs": [row["chosen"][0]["content"] for row in rows_of(pairs.parent)], **how})
        (out / "adapter").mkdir()
        (out / "adapter" / "adapter_config.json").write_text(f'{{"n": {len(told)}}}')

    monkeypatch.setattr(dpo, "train_preferences", train)
    data, model = data_of(2), Scripted(lambda request: f"{request.generation.seed} is the seed.")
    model._score = lambda request, answer: -float(len(answer))
    lab = Lab(tmp_path, model)
    options = {"pairs": {"images": 2, "candidates": 3, "sentences": 1, "scorer": "own"}}
    *_, last = stages("csr", data, iterations=2, reference="base", **options)
    lab.run(last, data)
    first, second = told
    adapter = lab.store.done("preference", stage_key(last.needs[1], data, "base", 0))
    assert adapter is not None
    assert (first["start"], second["start"]) == (None, adapter / "adapter")
    assert second["reference"] == "base"
    assert first["pairs"] != second["pairs"]  # other draws
    assert set(lab.views) == {None, adapter / "adapter"}
    assert first["loss"].alpha == second["loss"].alpha == 0


# ---------------------------------------------------------------- SeVa


def test_seva_asks_about_the_clean_and_the_noisy_image_and_drops_what_is_the_same(tmp_path: Path) -> None:
    turns = (("user", "A {n}?"), ("assistant", "x"), ("user", "B {n}?"), ("assistant", "y"))
    items = talks(4, *turns)

    def answer(request: Request) -> str:
        (image,) = request.images
        number = int(image.source[0])
        same = number % 2 and prompt_of(request).startswith("A")
        return f"{'noisy' if image.diffusion and not same else 'clean'} {prompt_of(request)}"

    model = Scripted(answer)
    data = Data((), items, "", "items", load_prompts())
    lab = Lab(tmp_path, model)
    made, *_ = stages("seva", data, pairs={"step": 300, "max_new_tokens": 9})
    assert made.rows == 8
    rows = rows_of(lab.run(made, data))
    assert [
        (row["prompt"][0]["content"], row["chosen"][0]["content"], row["rejected"][0]["content"])
        for row in rows
    ] == [
        (f"{letter} {n}?", f"clean {letter} {n}?", f"noisy {letter} {n}?")
        for n in range(4)
        for letter in "AB"
        if not (n % 2 and letter == "A")
    ]
    assert {row["negative"] for row in rows} == {"diffusion"}
    assert [row["image_sha256"] for row in rows] == [
        items[n].image.sha256 for n in range(4) for _ in range(1 if n % 2 else 2)
    ]
    assert any("2 with equal answers, 2 dropped (filter identical)" in line for line in lab.report.lines)
    noises = [request.images[0].diffusion for request in model.asked if request.images[0].diffusion]
    assert {noise[0] for noise in noises if noise} == {300}
    assert len({noise[1] for noise in noises if noise}) == 8  # a seed of each question's own
    assert all(
        (r.generation.temperature, r.generation.seed, r.generation.max_new_tokens) == (0, 0, 9)
        for r in model.asked
    )


@settings(deadline=None)
@given(questions=st.integers(1, 6))
def test_seva_takes_so_many_questions_of_an_item(questions: int) -> None:
    items = talks(2, *(turn for n in range(4) for turn in (("user", f"{n}?"), ("assistant", "."))))
    model = Scripted(lambda request: "clean" if request.images[0].diffusion is None else "noisy")
    made = list(seva.make_pairs(making(model, Path(), items=items), seva.Pairs(questions=questions)))
    assert Counter(pair.image.source for pair in made) == {
        "0.png": min(4, questions),
        "1.png": min(4, questions),
    }
    for own in (made[: len(made) // 2], made[len(made) // 2 :]):
        asked = [pair.prompt for pair in own]
        assert asked == sorted(set(asked)) and set(asked) <= {f"{n}?" for n in range(4)}
    assert all((pair.chosen, pair.rejected) == ("clean", "noisy") for pair in made)


def questions_of(items: Any, seed: int = 0, questions: int = 2) -> dict[str, list[str]]:
    """Image -> the questions that SeVa draws."""
    given = making(Scripted(lambda request: "x"), Path(), items=items, seed=seed)
    found: dict[str, list[str]] = {}
    for pair in seva.make_pairs(given, seva.Pairs(questions=questions)):
        found.setdefault(pair.image.sha256, []).append(pair.prompt)
    return found


@settings(deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_seva_draws_questions_by_image_and_seed_in_whatever_order(data: st.DataObject, seed: int) -> None:
    items = talks(6, *(turn for n in range(5) for turn in (("user", f"{n}?"), ("assistant", "."))))
    whole = questions_of(items, seed)
    some = data.draw(st.lists(st.sampled_from(items), unique=True, min_size=1))
    assert questions_of(some, seed) == {item.image.sha256: whole[item.image.sha256] for item in some}
    assert all(len(set(asked)) == 2 for asked in whole.values())


def test_seva_draws_each_question_alike() -> None:
    turns = [turn for n in range(5) for turn in (("user", f"{n}?"), ("assistant", "."))]
    counts = Counter(
        question for seed in range(100) for asked in questions_of(talks(5, *turns), seed).values()
        for question in asked
    )  # fmt: skip
    assert sum(counts.values()) == 1000
    assert all(150 < counts[f"{n}?"] < 250 for n in range(5))  # 200 each, five standard deviations of 11
    assert questions_of(talks(5, *turns), 0) != questions_of(talks(5, *turns), 1)
    assert len({tuple(asked) for asked in questions_of(talks(9, *turns)).values()}) > 1


def test_seva_draws_by_image_question_and_seed(tmp_path: Path) -> None:
    def seeds(seed: int, items: Any) -> dict[str, int]:
        model = Scripted(lambda request: "x")
        found = seva.make_pairs(making(model, tmp_path, items=items, seed=seed), seva.Pairs())
        return {pair.image.sha256: pair.seed for pair in found}

    whole = seeds(0, talks(4))
    assert seeds(0, talks(4)[::-1]) == whole
    assert {sha: whole[sha] for sha in seeds(0, talks(2))} == seeds(0, talks(2))
    assert not set(seeds(1, talks(4)).values()) & set(whole.values())


# ---------------------------------------------------------------- SIMA

PARTED = "{question}|{reference}|{first}|{second}"


def judged(
    verdict: Callable[[str, str], str],
    count: int = 12,
    seed: int = 0,
    candidate: Callable[[int, bool], str] = lambda n, greedy: f"{'greedy' if greedy else 'sampled'} {n}",
    **how: Any,
) -> tuple[list[AnsweredPair], Scripted, Counter[str]]:
    """SIMA's pairs where the model as a judge is a function of the answer shown first and second."""

    def answer(request: Request) -> str:
        if "|" not in prompt_of(request):
            return candidate(int(request.images[0].source[0]), request.generation.temperature == 0)
        asked, reference, first, second = prompt_of(request).split("|")
        number = asked.removeprefix("What is ").removesuffix("?")
        assert reference == f"The right answer {number}."
        assert {request.images[0].source} == {f"{number}.png"}
        return verdict(first, second)

    model = Scripted(answer)
    given = making(model, Path(), items=talks(min(count, 10)), seed=seed)
    settings = sima.Pairs(**{"judge_prompt": PARTED, **how})
    return list(sima.make_pairs(given, settings)), model, given.dropped


@settings(deadline=None)
@given(seed=st.integers(0, 1000), better=st.sampled_from(["greedy", "sampled"]), says=st.booleans())
def test_sima_prefers_what_is_called_better_in_whatever_order_it_is_shown(
    seed: int, better: str, says: bool
) -> None:
    verdicts = ("[[1]]", "[[2]]") if says else ("A", "B")

    def verdict(first: str, second: str) -> str:
        assert {answer.partition(" ")[0] for answer in (first, second)} == {"greedy", "sampled"}
        return f"So: {verdicts[0] if first.startswith(better) else verdicts[1]}"

    made, _, dropped = judged(verdict, seed=seed, verdicts=verdicts)
    worse = {"greedy": "sampled", "sampled": "greedy"}[better]
    assert [(p.chosen, p.rejected, p.negative) for p in made] == [
        (f"{better} {n}", f"{worse} {n}", worse) for n in range(10)
    ]
    assert [p.prompt for p in made] == [f"What is {n}?" for n in range(10)]
    assert not dropped


def test_sima_shows_both_orders_and_a_judge_that_likes_a_place_likes_no_answer() -> None:
    made = [pair for seed in range(10) for pair in judged(lambda first, second: "[[1]]", seed=seed)[0]]
    preferred = Counter(pair.chosen.split()[0] for pair in made)
    assert sum(preferred.values()) == 100
    assert 30 < preferred["greedy"] < 70
    assert Counter(pair.negative for pair in made) == {
        "sampled": preferred["greedy"], "greedy": preferred["sampled"],
    }  # fmt: skip


def test_sima_drops_equal_candidates_and_verdicts_that_say_nothing() -> None:
    def candidate(number: int, greedy: bool) -> str:
        return f"{'same' if number < 3 or greedy else 'other'} {number}"

    def verdict(first: str, second: str) -> str:
        number = int(first.split()[1])
        return "I cannot say." if number in (5, 6) else "[[1]]"

    made, model, dropped = judged(verdict, candidate=candidate)
    assert [int(pair.chosen.split()[1]) for pair in made] == [3, 4, 7, 8, 9]
    assert dropped == {"with equal candidates": 3, "without a readable verdict": 2}
    judgements = [request for request in model.asked if "|" in prompt_of(request)]
    assert len(judgements) == 7  # equal ones are not judged
    assert {request.generation.temperature for request in judgements} == {0}
    assert {request.generation.max_new_tokens for request in judgements} == {4096}
    sampled = [request.generation for request in model.asked if request.generation.temperature]
    assert {(how.temperature, how.top_p) for how in sampled} == {(0.8, 0.9)}
    assert len({how.seed for how in sampled}) == 10


def test_sima_puts_answers_into_its_prompt_as_they_are() -> None:
    hostile = {True: "{second} {reference} \\1 {", False: "{first}}"}
    made, _, _ = judged(
        lambda first, second: "[[1]]" if first == hostile[True] else "[[2]]",
        candidate=lambda number, greedy: hostile[greedy],
    )
    assert {(pair.chosen, pair.rejected) for pair in made} == {(hostile[True], hostile[False])}


def test_simas_own_prompt_shows_what_it_has_to() -> None:
    seen: list[str] = []

    def answer(request: Request) -> str:
        if "Verdict:" in prompt_of(request):
            seen.append(prompt_of(request))
            return "[[2]]"
        return "greedy" if request.generation.temperature == 0 else "sampled"

    made = list(sima.make_pairs(making(Scripted(answer), Path(), items=talks(1)), sima.Pairs()))
    (shown,) = seen
    assert shown.endswith("Verdict:")
    first, second = (shown.rindex(f"{place} answer: ") for place in ("First", "Second"))
    assert shown[second:].startswith(f"Second answer: {made[0].chosen}\n")
    assert shown[first:second] == f"First answer: {made[0].rejected}\n"
    assert "Question: What is 0?\nRight answer: The right answer 0.\n" in shown
    assert "{" not in shown


@settings(deadline=None)
@given(said=st.lists(st.sampled_from(["[[1]]", "[[2]]", "1", "[2]", "is better", "\n"]), max_size=8))
def test_of_several_verdicts_the_last_counts(said: list[str]) -> None:
    verdicts = [("[[1]]", "[[2]]").index(part) for part in said if part in ("[[1]]", "[[2]]")]
    reply = " ".join(["So:", *said])
    assert sima.read_verdict(reply, ("[[1]]", "[[2]]")) == (verdicts[-1] if verdicts else None)


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("A", 0), ("B", 1), (" B\n", 1), ("B. A red box is in neither.", 1), ("A, not B", 0),
        ("The better one is B", 1), ("Both, A first, then B", 1), ("Between", None), ("BA", None), ("", None),
        ("a", None), ("(B)", 1), ("Apples", None),
    ],
)  # fmt: skip
def test_a_letter_is_a_verdict_by_itself_and_first_of_all(reply: str, wanted: int | None) -> None:
    assert sima.read_verdict(reply, ("A", "B")) == wanted


@pytest.mark.parametrize("missing", ["{first}", "{second}"])
def test_a_judges_prompt_without_an_answer_is_refused(missing: str) -> None:
    with pytest.raises(ValueError, match=f"{missing} is missing"):
        sima.Pairs(judge_prompt=PARTED.replace(missing, ""))


# ---------------------------------------------------------------- RLAIF-V


def checked(
    samples: dict[int, list[str]], wrong: set[str], **how: Any
) -> tuple[list[AnsweredPair], Scripted, Counter[str]]:
    """Pairs where image n is described by these samples, and a claim is wrong if it is named."""
    given_out: dict[int, list[str]] = {number: list(texts) for number, texts in samples.items()}

    def answer(request: Request) -> str:
        if not request.images:
            assert prompt_of(request).startswith("SPLIT ")
            return "\n".join(f" - {part}" for part in prompt_of(request).removeprefix("SPLIT ").split(", "))
        return given_out[int(request.images[0].source[0])].pop(0)

    def score(request: Request, said: str) -> float:
        claim = prompt_of(request).removeprefix("CHECK ")
        return {("yes", False): -1.0, ("no", False): -2.0, ("yes", True): -2.0, ("no", True): -1.0}[
            said, claim in wrong
        ]

    model = Scripted(answer, score)
    given = making(model, Path(), images=pictures(len(samples)))
    settings = rlaif_v_lite.Pairs(
        **{"samples": len(samples[0]), "split_prompt": "SPLIT {answer}", "check_prompt": "CHECK {claim}",
           "verdicts": ("yes", "no"), **how}
    )  # fmt: skip
    return list(rlaif_v_lite.make_pairs(given, settings)), model, given.dropped


def test_rlaif_pairs_answers_that_differ_in_wrong_claims() -> None:
    samples = {
        0: ["One right. One wrong.", "One right.", "One wrong. Two wrong."],
        1: ["One right.", "Two right.", "One right. Two right."],  # nothing is wrong
        2: ["Two wrong. One wrong.", "Two wrong.", "One wrong. Two wrong. One wrong."],
    }
    wrong = {"One wrong.", "Two wrong."}
    made, model, dropped = checked(samples, wrong, split="sentences", per_image=9, length_filter=False)
    first = [(pair.chosen, pair.rejected) for pair in made if pair.image.source == "0.png"]
    assert sorted(first) == sorted(
        [
            (samples[0][1], samples[0][0]),
            (samples[0][1], samples[0][2]),
            (samples[0][0], samples[0][2]),
        ]
    )
    # A claim that an answer repeats counts once: both of the others have two.
    last = [(pair.chosen, pair.rejected) for pair in made if pair.image.source == "2.png"]
    assert sorted(last) == sorted((samples[2][1], samples[2][n]) for n in (0, 2))
    assert len(made) == 5
    assert {pair.negative for pair in made} == {"more wrong claims"}
    assert dropped == {"with as many wrong claims in all answers": 1}
    # Each claim about an image is checked once, by both verdicts.
    assert Counter(prompt_of(request) + request.images[0].source for request, _ in model.scored) == {
        f"CHECK {claim}{number}.png": 2
        for number, texts in samples.items()
        for text in texts
        for claim in text.replace(". ", ".|").split("|")
    }
    asked = [request.generation for request in model.asked]
    assert {(how.temperature) for how in asked} == {0.7}
    assert len({how.seed for how in asked}) == 9


def test_rlaifs_model_splits_by_lines_and_does_not_see_the_image() -> None:
    samples = {0: ["a red box, a red box, a blue disc", "a red box"], 1: ["a red box", "a red box"]}
    made, model, dropped = checked(samples, {"a blue disc"})
    assert [(pair.chosen, pair.rejected) for pair in made] == [(samples[0][1], samples[0][0])]
    assert dropped == {"with as many wrong claims in all answers": 1}
    splits = [request for request in model.asked if not request.images]
    assert sorted(map(prompt_of, splits)) == sorted({f"SPLIT {t}" for own in samples.values() for t in own})
    assert {request.generation.temperature for request in splits} == {0}
    claims = {prompt_of(request).removeprefix("CHECK ") for request, _ in model.scored}
    assert claims == {"a red box", "a blue disc"}  # without the dashes


def test_rlaif_holds_no_answer_good_that_claims_nothing() -> None:
    made, model, dropped = checked({0: ["", "Wrong.", "Right."]}, {"Wrong."}, split="sentences")
    assert [(pair.chosen, pair.rejected) for pair in made] == [("Right.", "Wrong.")]
    assert not [answer for request, answer in model.scored if prompt_of(request) == "CHECK "]
    made, _, dropped = checked({0: ["", "Wrong."]}, {"Wrong."}, split="sentences")
    assert (made, sum(dropped.values())) == ([], 1)


@settings(deadline=None)
@given(data=st.data())
def test_rlaif_never_prefers_more_wrong_claims(data: st.DataObject) -> None:
    claims = [f"Claim {n}." for n in range(5)]
    texts = st.lists(st.sampled_from(claims), max_size=5).map(" ".join)
    samples = {n: data.draw(st.lists(texts, min_size=3, max_size=3)) for n in range(3)}
    wrong = data.draw(st.sets(st.sampled_from(claims)))
    made, _, dropped = checked(samples, wrong, split="sentences", length_filter=False)

    def count(text: str) -> int:
        return sum(claim in text for claim in wrong)

    assert len({pair.image.source for pair in made}) + sum(dropped.values()) == 3
    for pair in made:
        own = [text for text in samples[int(pair.image.source[0])] if text]
        assert {pair.chosen, pair.rejected} <= set(own)
        assert count(pair.chosen) < count(pair.rejected)
    assert len({(pair.image.source, pair.chosen, pair.rejected) for pair in made}) == len(made)
    assert max(Counter(pair.image.source for pair in made).values(), default=0) <= 2


def test_rlaif_draws_so_many_pairs_by_image_and_seed() -> None:
    texts = ["Aa.", "Aa. Bb.", "Aa. Bb. Cc.", "Aa. Bb. Cc. Dd."]  # six pairs an image
    wrong = {"Bb.", "Cc.", "Dd."}
    samples = dict.fromkeys(range(8), texts)

    def pairs(seed: int = 0, order: int = 1, **how: Any) -> dict[str, list[tuple[str, str]]]:
        given_out = {number: list(own) for number, own in samples.items()}
        model = Scripted(
            lambda request: given_out[int(request.images[0].source[0])].pop(0),
            lambda request, said: 0.0 if (said == "No") == (prompt_of(request) in wrong) else -1.0,
        )
        given = making(model, Path(), images=pictures(8)[::order], seed=seed)
        settings = rlaif_v_lite.Pairs(
            samples=4, split="sentences", check_prompt="{claim}", length_filter=False, **how
        )
        found: dict[str, list[tuple[str, str]]] = {}
        for pair in rlaif_v_lite.make_pairs(given, settings):
            found.setdefault(pair.image.source, []).append((pair.chosen, pair.rejected))
        return found

    assert [len(own) for own in pairs().values()] == [2] * 8
    assert [len(own) for own in pairs(per_image=9).values()] == [6] * 8
    assert pairs() == pairs(order=-1) != pairs(seed=1)
    assert len({tuple(own) for own in pairs().values()}) > 1  # each image has draws of its own


def test_rlaif_holds_a_claim_wrong_on_a_tie() -> None:
    model = Scripted(
        lambda request: "Even." if request.generation.seed % 2 else "Right.",
        lambda request, said: -1.0 if "Even" in prompt_of(request) else {"Yes": -0.5, "No": -2.0}[said],
    )
    how = rlaif_v_lite.Pairs(samples=8, split="sentences")
    (pair,) = rlaif_v_lite.make_pairs(making(model, Path(), images=pictures(1)), how)
    assert (pair.chosen, pair.rejected) == ("Right.", "Even.")


def made_of(*lengths: tuple[int, int]) -> list[AnsweredPair]:
    (image,) = pictures(1)
    return [AnsweredPair(image, str(n), "a " * good, "b " * bad, "") for n, (good, bad) in enumerate(lengths)]


@pytest.mark.parametrize(
    ("lengths", "left"),
    [
        ([(10, 10), (12, 8)], [0, 1]),  # nothing is shorter: nothing goes
        ([(10, 10), (2, 10)], [0]),  # even without the second
        # Preferred sides have 8 + 14 + 1 words of 10 + 10 + 10. Without the last 22 of 20, without the first
        # as well 14 of 10: the share of 0.2 is the first that keeps the first.
        ([(8, 10), (14, 10), (1, 10)], [0, 1]),
        ([(5, 10), (15, 10)], [0, 1]),  # both together are even, and stay
        ([(1, 100), (1, 100)], []),  # by 99 % shorter: beyond every share
        ([], []),
    ],
)
def test_rlaifs_length_filter_evens_out_the_sides(lengths: list[tuple[int, int]], left: list[int]) -> None:
    pairs = made_of(*lengths)
    assert rlaif_v_lite.even_lengths(pairs) == [pairs[n] for n in left]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=12))
def test_rlaifs_length_filter_drops_the_most_shortened_alone(lengths: list[tuple[int, int]]) -> None:
    pairs = made_of(*lengths)
    kept = rlaif_v_lite.even_lengths(pairs)

    def shortened(pair: AnsweredPair) -> float:
        good, bad = len(pair.chosen.split()), len(pair.rejected.split())
        return (bad - good) / bad

    def gap(part: list[AnsweredPair]) -> float:
        good, bad = (sum(len(text.split()) for text in side) for side in
                     ([p.chosen for p in part], [p.rejected for p in part]))  # fmt: skip
        return abs(good - bad) / bad

    lost = [pair for pair in pairs if pair not in kept]
    assert [pair for pair in pairs if pair in kept] == kept
    if kept:
        assert all(shortened(a) < shortened(b) for a in kept for b in lost)
        assert gap(kept) <= gap(pairs) or max(map(shortened, pairs)) > 0.98
    assert all(shortened(pair) > 0 for pair in lost)  # what is longer never goes


def test_rlaif_counts_what_the_length_filter_drops() -> None:
    samples = {n: ["Wrong. " * 3 + "x.", "Right. " * 3 + "x."] for n in range(3)} | {
        3: ["Right.", "Wrong. " + "x. " * 40]
    }
    made, _, dropped = checked(samples, {"Wrong."}, split="sentences")
    assert len(made) == 3
    assert dropped == {"dropped for a much shorter preferred answer": 1}
    assert len(checked(samples, {"Wrong."}, split="sentences", length_filter=False)[0]) == 4


# ---------------------------------------------------------------- published values

# As the released code of each method has them, read there; where its authors state two, the default.
PUBLISHED = {
    "seva": {
        "pairs.questions": 2, "pairs.max_new_tokens": 512, "pairs.temperature": 0.0, "pairs.step": 500,
        "training.learning_rate": 2e-6, "training.batch_size": 16, "training.warmup_ratio": 0.0,
        "training.beta": 0.1, "lora.r": 1024, "lora.alpha": 2048,
    },
    "sima": {
        "pairs.max_new_tokens": 1024, "pairs.judge_max_new_tokens": 4096, "pairs.temperature": 0.8,
        "pairs.top_p": 0.9, "training.learning_rate": 1e-7, "training.batch_size": 1, "training.epochs": 3,
        "training.warmup_ratio": 0.03, "lora.r": 128, "lora.alpha": 256,
    },
    "csr": {
        "pairs.max_new_tokens": 70, "pairs.candidates": 5, "pairs.keep_best": 1, "pairs.keep_worst": 2,
        "pairs.weight": 0.9, "pairs.images": 12_856, "training.learning_rate": 1e-7,
        "training.batch_size": 1, "training.epochs": 1, "training.warmup_ratio": 0.03, "lora.r": 128,
        "lora.alpha": 256,
    },
    "rlaif_v_lite": {
        "pairs.samples": 10, "pairs.temperature": 0.7, "pairs.max_new_tokens": 512, "pairs.per_image": 2,
        "pairs.length_filter": True, "training.learning_rate": 1e-5, "training.epochs": 4,
        "training.warmup_ratio": 0.05, "training.weight_decay": 0.01, "lora.r": 64, "lora.alpha": 16,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RIVALS)
def test_defaults_are_the_published_values_and_so_is_the_preset(name: str) -> None:
    plain = config.load(flags={"model": "a/b", "methods": [name]}).method_options[name]
    for path, value in PUBLISHED[name].items():
        part, _, field = path.partition(".")
        assert plain[part][field] == value, path
    preset = config.load(preset="paper-llava-1.5", flags={"methods": [name]}).method_options[name]
    # Its limits are for one tile an image; by default there is none, as for STIC's pairs.
    limit = preset["training"].pop("max_length")
    assert (limit, plain["training"].pop("max_length")) == ({"csr": 448}.get(name, 1472), None)
    assert preset == plain
    notes = registry.methods().get(name).notes
    assert notes["differs"] and notes["source"].startswith("github.com/")
