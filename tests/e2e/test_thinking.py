"""Models that think, by the commands that people call: `run`, `eval` and `score`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stic_eval.cli.app import invoke
from stic_eval.engines import openai
from tests.conftest import CHAT_TEMPLATE
from tests.e2e.conftest import Done, Lab, records, rows_of
from tests.support.judge_server import Answer, Server, says, serving

PROBLEM = {
    "id": "1", "image": None, "question": "Which is heavier?", "hint": "", "answer": 1,
    "choices": ["a feather", "a stone"], "subject": "natural science", "grade": "grade3",
}  # fmt: skip
THOUGHT = "<think>A stone is denser than a feather, so A is wrong.</think>\nB"
CUT = "cut while the model was thinking"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waits between attempts."""
    endpoint = openai._endpoint
    monkeypatch.setattr(openai, "_endpoint", lambda *how: replace(endpoint(*how), backoff=0.0))


def ask(lab: Lab, server: Server, *extra: str) -> Done:
    """Six rows of ScienceQA of the embedded world, by a model at a server."""
    command = ["run", "--engine", "openai", "--base-url", server.url, "--model", "m", "--method", "baseline"]
    command += ["--benchmarks", "scienceqa", "-o", "rows.scienceqa=pocket", "--limit", "6", "--no-dar"]
    return lab.invoke(*command, "--output", "out", "-q", *extra)


def found(lab: Lab) -> list[dict[str, Any]]:
    return records(lab.folder / "out", "baseline", "scienceqa")


def cell(lab: Lab) -> dict[str, Any]:
    table = json.loads((lab.folder / "out" / "table.json").read_text())
    made: dict[str, Any] = table["rows"][0]["cells"]["scienceqa"]
    return made


# ---------------------------------------------------------------- at a server


@pytest.mark.parametrize("protocol", ["llava", "lmms"])
def test_an_answer_behind_thinking_is_read_by_both_readers(lab: Lab, tmp_path: Path, protocol: str) -> None:
    place = lab.at(tmp_path)
    with serving(lambda number, prompt: says(THOUGHT)) as server:
        done = ask(place, server, "--protocol", protocol)
    assert done.code == 0, done.err
    assert {(row["response"], row["answer"], row["thinking"]) for row in found(place)} == {
        ("B", "B", "A stone is denser than a feather, so A is wrong.")
    }
    written = (place.folder / "out" / "table.md").read_text()
    assert "6 of 6 answers come after thinking, which is not scored." in written


def test_thinking_that_the_server_tells_apart_is_kept_and_not_scored(lab: Lab, tmp_path: Path) -> None:
    place = lab.at(tmp_path)
    names = ("reasoning_content", "reasoning")
    with serving(lambda number, prompt: says("B", **{names[number % 2]: "A? No: B."})) as server:
        assert ask(place, server).code == 0
    assert {(row["answer"], row["thinking"]) for row in found(place)} == {("B", "A? No: B.")}


def test_thinking_that_never_closes_is_no_answer(lab: Lab, tmp_path: Path) -> None:
    place = lab.at(tmp_path)
    replies = [
        says("<think>Perhaps B", "length"),  # as the model writes it
        says(None, "length", reasoning_content="Perhaps B"),  # as a reasoning parser leaves it
        says("Perhaps B", "length"),  # the template has opened the tag, which others close
        says("So.</think>B"),
        says("<think>So.</think>B"),
        says("B"),
    ]
    with serving(lambda number, prompt: replies[number]) as server:
        done = ask(place, server, "-o", "server.concurrency=1", "-o", "server.attempts=1")
        again = ask(place, server)
        assert len(server.asked) == 6
    assert done.code == again.code == 3
    rows = found(place)
    assert (
        sorted((row["response"], row["thinking"], row["unclosed"], row["why"]) for row in rows)[:3]
        == [("", "Perhaps B", True, CUT)] * 3
    )
    assert sorted(row["response"] for row in rows) == ["", "", "", "B", "B", "B"]
    assert cell(place)["unscored"] == 3
    said = " ".join(done.out.split())
    assert "3 answers cut while the model was thinking" in said
    log = (place.folder / "out" / "run.log").read_text()
    assert "3 of 6 answers were cut while the model was thinking, and are unscored" in log
    assert "-o thinking.max_new_tokens=..." in log


def test_the_room_to_think_is_asked_for_and_said(lab: Lab, tmp_path: Path) -> None:
    place = lab.at(tmp_path)
    with serving(lambda number, prompt: says(THOUGHT)) as server:
        options = ("-o", "thinking.max_new_tokens=2000", "-o", "benchmarks.scienceqa.max_new_tokens=50")
        done = ask(place, server, *options, "-o", "benchmarks.scienceqa.temperature=0.5")
    assert done.code == 0
    assert {(body["max_tokens"], body["temperature"]) for body in server.asked} == {(2050, 0.5)}
    assert len({body["seed"] for body in server.asked}) == 6
    said = (place.folder / "out" / "table.md").read_text()
    assert "unread is wrong; at most 50 new tokens, temperature 0.5" in said
    assert "Room for thinking: 2,000 tokens beyond the bound on each answer." in said


def test_other_tags_are_looked_for_in_answers_that_are_there(lab: Lab, tmp_path: Path) -> None:
    place = lab.at(tmp_path)
    with serving(lambda number, prompt: says("<mull>A? No.</mull>B")) as server:
        assert ask(place, server).code == 0
        assert {row["answer"] for row in found(place)} == {None}
        other = ask(place, server, "-o", 'thinking.tags=[["<mull>", "</mull>"]]', "--output", "other")
        assert other.code == 0 and len(server.asked) == 6
    mulled = records(place.folder / "other", "baseline", "scienceqa")
    assert {(row["answer"], row["thinking"]) for row in mulled} == {("B", "A? No.")}


def test_a_plan_counts_the_same_answers_whatever_the_options(lab: Lab, tmp_path: Path) -> None:
    place = lab.at(tmp_path)
    with serving(lambda number, prompt: says("B")) as server:
        plain = ask(place, server, "--dry-run")
        more = ask(place, server, "--dry-run", "-o", "benchmarks.scienceqa.max_new_tokens=9")
        room = ask(place, server, "--dry-run", "-o", "thinking.max_new_tokens=9")
    plans = [done.out.splitlines() for done in (plain, more, room)]
    assert [done.code for done in (plain, more, room)] == [0, 0, 0]
    assert not server.asked
    lines = [next(line.split() for line in plan if line.startswith("evaluate baseline")) for plan in plans]
    assert [line[-2:] for line in lines] == [["6", "0"]] * 3
    assert len({tuple(line) for line in lines}) == 3, "each has a key of its own"


def test_the_table_of_an_ablation_says_so_as_well(lab: Lab, tmp_path: Path) -> None:
    place = lab.at(tmp_path)
    with serving(lambda number, prompt: says(THOUGHT)) as server:
        command = ["ablate", "--engine", "openai", "--base-url", server.url, "--model", "m", "-q"]
        command += ["--benchmarks", "scienceqa", "-o", "rows.scienceqa=pocket", "--limit", "6"]
        command += ["--method", "stic", "--adapter-name", "stic=lora", "--vary", "dar=false,true"]
        done = place.invoke(*command, "-o", "thinking.max_new_tokens=99", "--output", "grid")
    assert done.code == 0, done.err
    notes = json.loads((place.folder / "grid" / "table.json").read_text())["notes"]
    assert any("answers come after thinking, which is not scored." in note for note in notes)
    assert "Room for thinking: 99 tokens beyond the bound on each answer." in notes


# ---------------------------------------------------------------- in this process


def test_a_template_that_opens_the_thinking_is_seen(lab: Lab, tmp_path: Path) -> None:
    place = lab.at(tmp_path)
    folder = Path(shutil.copytree(lab.model, tmp_path / "vlm"))
    (folder / "chat_template.jinja").write_text(
        CHAT_TEMPLATE.replace("ASSISTANT:{%", "ASSISTANT:<think>\n{%")
    )
    thinks = replace(place, model=folder)
    done = thinks.invoke(*thinks.argv("eval", "--benchmarks", "chartqa", "--output", "out", "-q"))
    assert done.code == 3
    rows = records(place.folder / "out", "baseline", "chartqa")
    assert {(row["response"], row["score"], row["why"]) for row in rows} == {("", None, CUT)}
    assert all(row["thinking"] and row["n_tokens"] == 128 for row in rows)


def test_decoding_of_a_benchmark_reaches_the_model(lab: Lab, tmp_path: Path) -> None:
    place = lab.at(tmp_path)

    def answers(output: str, *options: str) -> list[tuple[str, int]]:
        extra = [part for option in options for part in ("-o", f"benchmarks.chartqa.{option}")]
        done = place.invoke(*place.argv("eval", "--benchmarks", "chartqa", "--output", output, "-q", *extra))
        assert done.code == 0, done.err
        return [
            (row["response"], row["n_tokens"])
            for row in records(place.folder / output, "baseline", "chartqa")
        ]

    plain, short = answers("a"), answers("b", "max_new_tokens=5")
    assert {count for _, count in short} == {5} and max(count for _, count in plain) > 5
    hot = answers("c", "max_new_tokens=5", "temperature=2.0")
    assert hot != short
    letter = plain[0][0][3]
    ended = answers("d", f"stop={json.dumps([letter])}")
    assert ended[0][0] == plain[0][0].partition(letter)[0].strip() and ended[0][1] < plain[0][1]
    assert not any(letter in text for text, _ in ended)


# ---------------------------------------------------------------- answers in a file


def score(folder: Path, *extra: str, answers: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    rows, given, out = folder / "rows.jsonl", folder / "given.jsonl", folder / "out.json"
    rows.write_text("".join(json.dumps({**PROBLEM, "id": str(n)}) + "\n" for n in range(len(answers))))
    given.write_text("".join(json.dumps({"id": str(n), **row}) + "\n" for n, row in enumerate(answers)))
    command = ["score", "scienceqa", "-o", "subset=full", "--rows", str(rows), "--predictions", str(given)]
    code = invoke([*command, "--json", str(out), "-q", *extra])
    return code, json.loads(out.read_text())


@pytest.mark.parametrize("protocol", ["llava", "lmms"])
def test_score_reads_what_comes_behind_the_thinking(tmp_path: Path, protocol: str) -> None:
    texts = [
        THOUGHT, "so</think>\n\nB", "◁think▷so◁/think▷B", "<think>so</think><answer>B</answer>",
        "<think>so</think>\n<|begin_of_box|>B<|end_of_box|>", "B",
    ]  # fmt: skip
    code, data = score(tmp_path, "--protocol", protocol, answers=[{"response": text} for text in texts[:1]])
    assert (code, data["score"]) == (0, 100.0)
    code, data = score(tmp_path, "--protocol", protocol, answers=[{"response": t} for t in texts if t != "B"])
    assert (code, data["score"], data["unscored"]) == (0, 100.0, 0)
    code, data = score(
        tmp_path, "--protocol", protocol, "-o", "thinking.tags=[]", answers=[{"response": THOUGHT}]
    )
    assert (code, data["score"]) == (0, 0.0)


def test_score_leaves_out_what_was_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [{"response": "<think>B or"}, {"response": THOUGHT}, {"response": "", "thinking": "B or"}]
    code, data = score(tmp_path, answers=answers)
    assert (code, data["score"], data["unscored"]) == (3, 100.0, 2)
    assert [row["why"] for row in data["per_sample"]] == [CUT, None, CUT]
    assert f"unscored: 2 x {CUT} (e.g. 0)" in capsys.readouterr().err
    # A template has opened the tag: what does not close it has not come to an answer.
    code, data = score(tmp_path, answers=[{"response": "so</think>B"}, {"response": "B"}])
    assert (code, data["unscored"]) == (3, 1)
    code, data = score(tmp_path, "-o", "thinking.opened=true", answers=[{"response": "B"}])
    assert (code, data["unscored"], data["score"]) == (3, 1, None)


def test_score_says_that_some_answers_close_a_tag_that_they_do_not_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = [{"response": "so</think>B"}, *[{"response": "B"}] * 3]
    code, data = score(tmp_path, answers=some)
    assert (code, data["score"], data["unscored"]) == (0, 100.0, 0)
    said = capsys.readouterr().err
    assert "1 of 4 answers only close a tag of thinking" in said and "-o thinking.opened=true" in said
    score(tmp_path, "-o", "thinking.opened=true", answers=some)
    assert "only close a tag" not in capsys.readouterr().err
    score(tmp_path, answers=some[:2])
    assert "only close a tag" not in capsys.readouterr().err, "those without any are unscored already"


def test_records_of_a_run_are_scored_as_they_were(lab: Lab, tmp_path: Path) -> None:
    place = lab.at(tmp_path)
    replies = [
        says(THOUGHT),
        says("<think>B or"),
        says("<think>so</think>"),
        says("B"),
        says("C"),
        says("so</think>D"),
    ]

    def behave(number: int, prompt: str) -> Answer:
        return replies[number]

    with serving(behave) as server:
        assert ask(place, server).code == 3
    given = place.folder / "out" / "records" / "baseline" / "scienceqa.jsonl"
    out = tmp_path / "again.json"
    done = place.invoke(
        "score",
        "scienceqa",
        "--predictions",
        str(given),
        "--rows",
        "pocket",
        "--answered-only",
        "-q",
        "--json",
        str(out),
    )
    assert done.code == 3
    again = json.loads(out.read_text())["per_sample"]
    before = rows_of(given)
    assert [(row["score"], row["why"]) for row in again] == [(row["score"], row["why"]) for row in before]
    assert sum(row["score"] is None for row in again) == 1, "an answer that is empty is one"
    shown = place.invoke("show", "out", "--benchmark", "scienceqa", "-n", "6")
    assert "thinking: A stone is denser" in shown.out
