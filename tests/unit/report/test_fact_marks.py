"""What descriptions and answers have right, invent and leave out, where that is known exactly."""

from __future__ import annotations

from typing import Any

from stic_eval.benchmarks import llava_bench

from stic_eval.pocket.language import describe
from stic_eval.pocket.rows import benchmark_rows, drawn_in, picture
from stic_eval.pocket.world import Chart, Scene, Thing
from stic_eval.report import fact_marks, sample_browser
from stic_eval.types import ImageRef

SCENE = Scene("day", (Thing(1, "star", "red", "small"), Thing(4, "ring", "blue", "large")), "vuz", 2)
KNOWN = fact_marks.truths({"a": picture(SCENE, "test", 0)})


def record(**values: Any) -> dict[str, Any]:
    return {"images": ["a"], "description": None, "response": "", "meta": {}, "why": None, **values}


def test_a_perfect_description_has_everything_right() -> None:
    found = fact_marks.described(describe(SCENE), KNOWN["a"])
    assert [right for *_, right in found["spans"]] == [True] * 3 and found["missed"] == []


def test_claims_that_are_wrong_in_any_part_are_wrong_and_what_is_left_out_is_named() -> None:
    text = "\U0001f600 The top red star is small. The left blue ring is large."
    made = fact_marks.of_record(record(description=text), KNOWN)
    assert made is not None
    found = made["description"]
    wide = text.encode("utf-16-le")  # as scripts of pages count
    said = [(wide[2 * start : 2 * end].decode("utf-16-le"), right) for start, end, right in found["spans"]]
    assert said == [("top red star", True), ("left blue ring", False)]
    assert found["missed"] == ["center blue ring", "sign vuz"]


def test_values_of_charts_are_facts() -> None:
    chart = Chart("bar", (("red", 3), ("green", 7), ("blue", 20)))
    (truth,) = fact_marks.truths({"c": picture(chart, "test", 1)}).values()
    found = fact_marks.described("The value of red is 3. The value of green is 8.", truth)
    assert [right for *_, right in found["spans"]] == [True, False]
    assert found["missed"] == ["green = 7", "blue = 20"]


def test_nothing_is_said_of_pictures_that_nobody_drew() -> None:
    def load() -> Any:
        raise AssertionError("is not opened")

    assert drawn_in(ImageRef("b", "photo", load)) is None
    known = fact_marks.truths({"b": ImageRef("b", "photo", load)})
    assert fact_marks.of_record(record(images=["b"], description="The top red star is small."), known) is None
    assert fact_marks.of_record(record(images=["a", "b"], description="The top red star is"), KNOWN) is None
    assert fact_marks.of_record({"id": 1, "images": "a", "meta": [], "description": 3}, KNOWN) is None


def test_key_facts_are_those_that_the_answer_was_graded_by() -> None:
    row = next(row for row in benchmark_rows("llava_bench") if "<AND>" in row["caption"])
    sample = llava_bench.to_sample(row)
    facts = sample.meta["key_facts"]
    graded = {"meta": {"rows": "pocket", "key_facts": [[list(f.alternatives), f.subject] for f in facts]}}
    verdict = llava_bench.score(sample, str(sample.target))
    made = fact_marks.of_record(record(response=sample.target, why=verdict.why, **graded), {})
    assert made is not None and len(made["answer"]) == len(facts)
    assert [named for _, named in made["answer"]] == [True] * len(facts)
    none = fact_marks.of_record(record(response="Nothing.", why=verdict.why, **graded), {})
    assert none is not None and not any(named for _, named in none["answer"])
    # Graded by a judge, or of another benchmark's rows: the rule has not spoken.
    assert fact_marks.of_record(record(response="x", why=None, **graded), {}) is None
    assert fact_marks.of_record(record(response="x", why=verdict.why, meta={"rows": "hub"}), {}) is None
    torn = {"rows": "pocket", "key_facts": 3}
    assert fact_marks.of_record(record(response="x", why=verdict.why, meta=torn), {}) is None


def test_facts_of_mmvet_stand_in_its_target() -> None:
    made = fact_marks.of_record(
        record(response="red", target="red<OR>crimson<AND>7", meta={"rows": "pocket"}, why="rule: 1 of 2"), {}
    )
    assert made == {"answer": [["red or crimson", True], ["7", False]]}


def test_the_browser_opens_on_the_first_benchmark_with_changes() -> None:
    same = [[1.0, None, 0.0], [1.0, 1.0, 0.0, 1.0]]
    changed = [[1.0, 0.0], [1.0, 0.5]]
    opened = sample_browser.first_listed(["a", "b"], {"a": same, "b": changed})
    assert opened == {"benchmark": "b", "rows": "changed"}
    assert sample_browser.first_listed(["a"], {"a": same}) == {"benchmark": "a", "rows": "all"}
    assert sample_browser.first_listed(["a"], {"a": changed[:1]}) == {"benchmark": "a", "rows": "all"}
    assert sample_browser.first_listed([], {}) == {"benchmark": "", "rows": "all"}
