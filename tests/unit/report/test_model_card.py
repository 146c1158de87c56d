"""Model cards: what they state, and that nothing in them can speak for itself."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from stic_eval.report import tables
from stic_eval.report.cell_text import interval_text
from stic_eval.report.model_card import CardFacts, RowsOrigin, card, metadata, public
from stic_eval.report.runs import TrainedStage
from stic_eval.types import DESCRIBED, DIRECT, Summary

HOSTILE = "x\n---\nlicense: mit\n# owned <script>alert(1)</script> `| [a](javascript:1) \x1b[2J $1$"


def summary(values: dict[str, float], unscored: int = 0) -> Summary:
    score = 100 * sum(values.values()) / len(values) if values else None
    units = {name: (value, 1.0) for name, value in values.items()}
    return Summary(score, len(values) + unscored, unscored, units, {})


def table(title: str = "STIC", unscored: int = 0) -> tables.Table:
    columns = [tables.Column("one", "ONE", "protocol a"), tables.Column("two", "TWO")]
    base = {"a": 0.0, "b": 1.0, "c": 0.0, "d": 0.0}
    better = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.0}
    few = dict(list(better.items())[: 4 - unscored])
    variants = [
        tables.EvaluatedVariant(
            "baseline", "Baseline", DIRECT, (), {"one": [summary(base)], "two": [summary(base)]}
        ),
        tables.EvaluatedVariant(
            "stic", title, DIRECT, (3,), {"one": [summary(better)], "two": [summary(few, unscored)]}
        ),
    ]
    return tables.build(columns, variants)


FACTS = CardFacts(
    asked="profile llava-1.5 (do_pad=true)",
    name="mine",
    title="STIC",
    method="stic",
    base="someone/model-7b",
    base_id="someone/model-7b",
    paper="Deng et al. 2024",
    revision="abc123",
    fingerprint="f" * 64,
    dtype="bfloat16",
    seed=3,
    data=["12 pairs"],
    options={"stage1": {"beta": 0.1}},
    stages=[TrainedStage("pairs", "e" * 64, 12.3, 24, 0), TrainedStage("preference", "d" * 64, 45.0, 0, 6)],
    table=table(),
    rows={
        "one": RowsOrigin("someone/one", "test", metric="accuracy; by subject"),
        "two": RowsOrigin("two (local copy)"),
    },
    versions={"torch": "2.13", "trl": None},
    command=["run", "--images", "/home/me/coco/train2014", "-o", "rows.one=/data/one.jsonl"],
)


def test_it_says_how_the_model_was_asked() -> None:
    assert "Asked, in training as well, as: profile llava-1.5 (do\\_pad=true)" in card(FACTS)
    assert "Asked" not in card(replace(FACTS, asked=""))


def test_a_card_states_where_the_adapter_comes_from_and_what_it_scores() -> None:
    text = card(FACTS)
    data = ModelCard(text).data
    assert (data.base_model, data.library_name) == ("someone/model-7b", "peft")
    assert data.to_dict()["base_model_relation"] == "adapter"
    assert [(r.dataset_type, r.metric_value, r.metric_name) for r in data.eval_results or ()] == [
        ("someone/one", 75.0, "accuracy, percent"),
        ("two (local copy)", 75.0, "score, percent"),
    ]
    for said in ("abc123", "Seed: 3", "12 pairs", "beta: 0.1", "| preference | 0 | 6 | 45 |", "torch 2.13"):
        assert said in text
    assert "trl" not in text
    (row,) = (row for row in table().rows if row.variant.method == "stic")
    for name, title in table().fields:
        (line,) = (line for line in text.splitlines() if re.match(rf"\| (\*\*)?{title}(\*\*)? \|", line))
        assert interval_text(row.cells[name]) in line
    assert "ONE: n = 4; protocol a." in text


def test_a_merged_model_says_so_and_of_packed_weights_as_well() -> None:
    text = card(replace(FACTS, merged="float16", packed="4bit"))
    data = ModelCard(text).data
    assert (data.library_name, data.to_dict()["base_model_relation"]) == ("transformers", "finetune")
    assert "packed in 4 bits" in text
    assert "merged into the base's unpacked ones" in text
    assert "from peft" not in text


def test_no_path_of_this_machine_is_on_a_card() -> None:
    text = card(replace(FACTS, base="model-7b", base_id="", revision=None))
    assert "/home" not in text
    assert "/data" not in text
    assert "--images …/train2014 -o rows.one=…/one.jsonl" in text
    assert ModelCard(text).data.base_model is None


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("run", "run"), ("~/x/y", "…/y"), ("../y.json", "…/y.json"), ("someone/model", "someone/model"),
        ("stage1.beta=0.05", "stage1.beta=0.05"), ("rows.one=~/a/b", "rows.one=…/b"), (r"C:\x\y", "…/y"),
        ("--images=/home/me/x", "--images=…/x"), ("--base-url=http://h/v1", "--base-url=http://h/v1"),
        ("chartqa,/home/u/s/b.py", "chartqa,…/b.py"), ("plugins=[/home/u/x.py]", "plugins=[…/x.py]"),
        ("plugins=[/home/u/x.py, ~/y/z.py]", "plugins=[…/x.py, …/z.py]"),
        ("lora:/home/u/b:/home/u/c", "lora:…/b:…/c"),
        ("rows={all: /home/u/x}", "rows={all: …/x}"), ("file:///home/u/x", "file:…/x"),
        ("file://host/home/u/x", "file:…/x"), ("x=[http://h/v1, /home/u/x, https://h/a/b]",
        "x=[http://h/v1, …/x, https://h/a/b]"), ('{"a": "/home/u/x"}', '{"a": "…/x"}'),
        ("/home/me/my photos/of May, and June/x", "…/x"), ("~me/x/y", "…/y"), ("/home/me/x/", "…/x"),
        (r"\\server\share\x", "…/x"), ("a, b and/or c / d", "a, b and/or c / d"),
        ("/home/me/x\na/b", "…/x\na/b"),
    ],
)  # fmt: skip
def test_of_a_path_the_last_part_is_public(given: str, shown: str) -> None:
    assert public(given) == shown


def test_what_is_not_scored_is_no_result() -> None:
    text = card(replace(FACTS, table=table(unscored=1)))
    results = ModelCard(text).data.eval_results or []
    assert [r.dataset_type for r in results] == ["someone/one"]
    assert "1 unscored" in text
    none = card(replace(FACTS, table=None))
    assert "It was not evaluated." in none
    assert ModelCard(none).data.eval_results is None


def test_no_path_is_in_settings_departures_or_rows() -> None:
    where = "/home/someone/secret"
    facts = replace(
        FACTS,
        options={"pairs": {"clip": f"{where}/clip", "more": [f"~/{where}/a", 1, None, True]}, "n": 0.5},
        departures=[f"pairs.clip={where}/clip"], rows={"one": RowsOrigin(f"{where}/rows")},
        command=["run", "-o", f"rows={{all: {where}/x}}", f"chartqa,{where}/b.py"],
    )  # fmt: skip
    text = card(facts)
    assert "secret" not in text
    assert "home" not in text
    assert "clip: …/clip" in text
    assert "  - 1\n  - null\n  - true\nn: 0.5" in text


PART = st.text(st.characters(exclude_characters="/\\", exclude_categories=["Cs", "Cc"]), max_size=8)


@given(
    front=st.sampled_from(["", "a=", "a,", "{all: ", "[", "x=[someone/y, ", "file://", "('", "http://h/v1,"]),
    home=st.sampled_from(["/", "~/", "~me/", "../", "C:/", "//"]),
    parts=st.lists(PART, max_size=3), last=PART.filter(bool),
    behind=st.sampled_from(["", "]", "}", ", b: c}", "/"]),
)  # fmt: skip
def test_folders_of_a_path_are_never_public(
    front: str, home: str, parts: list[str], last: str, behind: str
) -> None:
    shown = public(f"{front}{home}SECRET/{'/'.join([*parts, last])}{behind}")
    assert "SECRET" not in shown
    assert "…/" in shown


@given(text=st.text(max_size=40) | st.just(HOSTILE))
def test_texts_of_others_stay_texts(text: str) -> None:
    facts = replace(
        FACTS, name=text, title=text, method=text, paper=text, revision=text or None, data=[text], base=text,
        options={"a": text}, versions={"b": text}, command=[text], departures=[text], table=table(text),
        rows={"one": RowsOrigin(text, text, text, text, text)},
    )  # fmt: skip
    made = card(facts)
    head, _, rest = made.removeprefix("---\n").partition("\n---\n")
    assert head == metadata(facts)
    assert ModelCard(made).data.license is None
    code = re.sub(r"(`{3,})\w+\n.*?\n\1(?=\n|$)", "", rest, flags=re.S)
    titles = [line for line in code.splitlines() if line.startswith("#")]
    assert [line for line in titles if line.startswith("## ")] == [
        "## Use", "## Base model", "## Training", "## Evaluation", "## Provenance",
    ]  # fmt: skip
    assert len(titles) == 6
    outside = re.sub(r"(?<!\\)(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", code)
    assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(", outside)
    assert "\x1b" not in made


def test_a_card_marks_what_the_runs_table_compares_as_that_does() -> None:
    from types import SimpleNamespace
    from typing import Any, cast

    from stic_eval.experiment import cardfacts
    from stic_eval.report.runs import Entry, Scores

    def units(right: int) -> Summary:
        return Summary(right / 2, 200, 0, {str(i): (float(i < right), 1.0) for i in range(200)}, {})

    def entry(method: str, dar: bool, seed: int | None, right: int) -> Entry:
        name = f"{method}{'+dar' * dar}{'' if seed is None else f'@seed{seed}'}"
        return Entry(name, method, method, DESCRIBED if dar else DIRECT, seed, {}, {"a": units(right)})

    # 8 flips, p = 0.008: corrected over the run's rows it has one star less.
    others = [entry(f"m{i}", False, None, 100) for i in range(4)]
    stic = [entry("stic", False, seed, 150) for seed in (0, 1, 2)]
    run = Scores("r", [tables.Column("a", "A")], [entry("baseline", False, None, 100),
                 entry("baseline", True, None, 108), *others, *stic])  # fmt: skip
    picked = SimpleNamespace(entries=stic[:1])
    made = cardfacts._table(cast(Any, SimpleNamespace(scores=run)), cast(Any, picked))
    assert made is not None
    shown, whole = (
        {row.label: d for row in table.rows if (d := row.cells["a"].difference)}
        for table in (made, run.table())
    )
    assert {label: d.mark for label, d in shown.items()} == {"baseline + DaR": "*", "stic": "§"}
    assert whole["baseline + DaR"] == shown["baseline + DaR"] and shown["baseline + DaR"].p < 0.01
