"""Inputs that a campaign of generated ones has found something wrong with: each mended at its cause."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest
from PIL import Image

from stic_eval.cli.app import invoke
from stic_eval.documents import from_literal
from stic_eval.engines.openai import list_models
from stic_eval.errors import UserError
from stic_eval.images import Decoding, image_ref
from stic_eval.training.gang import _said
from tests.support.judge_server import Answer, says, serving

DEEP = b'{"data":' * 5_000 + b"1" + b"}" * 5_000
ROW = {"id": 1, "type": "human_test", "question": "q", "answer": "1", "image": "good.png"}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    Image.new("RGB", (8, 8), "red").save("good.png")
    Path("rows.jsonl").write_text(json.dumps(ROW) + "\n")


def test_a_list_of_models_nested_thousands_deep() -> None:
    with serving(lambda number, prompt: Answer(DEEP)) as server:
        said, names = list_models(server.url, None)
        assert said.startswith("HTTP 200: ") and len(said) < 300 and names is None


def test_a_line_of_a_rank_nested_thousands_deep() -> None:
    assert _said("[" * 5_000) == {} == _said(DEEP.decode())


def test_half_a_surrogate_pair_in_an_answer_is_scored_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("answers.jsonl").write_text('{"id": 1, "response": "1 \\ud83d"}\n')
    assert (
        invoke(
            [
                "score",
                "chartqa",
                "--predictions",
                "answers.jsonl",
                "--rows",
                "rows.jsonl",
                "--json",
                "out.json",
            ]
        )
        == 0
    )
    assert json.loads(Path("out.json").read_text())["per_sample"][0]["answer"] == "1 \ufffd"


def test_the_name_of_a_run_drives_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda number, prompt: says("1") if number >= 0 else Answer(b'{"data": []}')) as server:
        code = invoke(
            [
                "eval",
                "--engine",
                "openai",
                "--base-url",
                server.url,
                "--model",
                "base",
                "--benchmarks",
                "chartqa",
                "-o",
                "rows.chartqa=rows.jsonl",
                "--output",
                "a\x1b[2J\u202eb",
                "-q",
            ]
        )
    said = capsys.readouterr().out
    assert code == 0 and "a\\x1b[2J\\u202eb/table.md" in said and "\x1b" not in said and "\u202e" not in said


def test_lists_in_cells_are_bounded() -> None:
    assert from_literal("['a', 'b']") == ["a", "b"]
    for text in ("[" + "1," * 100_000 + "]", "[" + "-" * 9_999 + "1]", "[" * 999, "{[]}", "'"):
        with pytest.raises(ValueError, match=r"is not a list|characters"):
            from_literal(text)


@pytest.mark.parametrize(
    "command", ["data check chartqa --from bad.parquet", "run --method sft --sft-data bad.parquet --dry-run"]
)
@pytest.mark.parametrize("data", [b"PAR1" + b"x" * 99 + b"PAR1", b""], ids=["footer", "empty"])
def test_what_datasets_says_of_a_damaged_file_stays_in_the_log(
    command: str, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    Path("bad.parquet").write_bytes(data)
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    logging.getLogger("datasets").addHandler(handler)
    drawn = datasets.are_progress_bars_disabled()
    try:
        assert (
            invoke([*command.split(), "-o", "rows.chartqa=rows.jsonl"][: None if "run" in command else 5])
            == 2
        )
        assert (
            handler in logging.getLogger("datasets").handlers
            and datasets.are_progress_bars_disabled() == drawn
        )
    finally:
        logging.getLogger("datasets").removeHandler(handler)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "bad.parquet" in line and shown.getvalue() == ""


def test_a_bar_of_datasets_is_not_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    item = {
        "id": "1",
        "image": "good.png",
        "conversations": [{"from": "human", "value": "<image>q"}, {"from": "gpt", "value": "a"}],
    }
    parquet.write_table(pa.Table.from_pylist([item]), "items.parquet")
    assert (
        invoke(
            [
                "run",
                "--method",
                "sft",
                "--sft-data",
                "items.parquet",
                "--benchmarks",
                "chartqa",
                "-o",
                "rows.chartqa=rows.jsonl",
                "--dry-run",
            ]
        )
        == 0
    )
    assert "Generating" not in capsys.readouterr().err


def test_an_image_from_the_web_is_decoded_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    loads: list[int] = []
    load = Image.core.zip_decoder
    monkeypatch.setattr(Image.core, "zip_decoder", lambda *args: loads.append(1) or load(*args))
    data = Path("good.png").read_bytes()
    with serving(lambda number, path: Answer(data)) as server:
        Path("rows.jsonl").write_text(json.dumps({**ROW, "image": f"{server.url}/x.png"}) + "\n")
        assert (
            invoke(["data", "check", "chartqa", "--from", "rows.jsonl", "--allow-remote-images", "-q"]) == 0
        )
    assert len(loads) == 1


def test_what_has_to_be_said_of_an_image_is_said_even_if_it_was_decoded() -> None:
    assert Decoding(lambda picture: "too red").fault(image_ref("good.png")) == "too red"


PLUGIN = """
from stic_eval.contracts.benchmark import Benchmark, HubData
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.types import Generation, Sample, Score
def stop(): raise {error}
benchmark = Benchmark(
    name="given", title={title!r}, version=1, source=HubData("a/b", "test"), to_sample=lambda row: {sample},
    generation=Generation(max_new_tokens=4), score=lambda sample, text: Score(1.0, text), aggregate=summarize,
    protocol={title!r}, images=False, unit=lambda row: stop(),
)
"""


@pytest.mark.parametrize(
    ("sample", "named"),
    [
        ('Sample(1, (), "q", "a")', "id is not text"),
        ('Sample("1", (), ["q"], "a")', "question is not text"),
        ('Sample("1", (), "q", "a", choices=[[]])', "choices is not text"),
        ('Sample("1", (), "q", "a", group="x")', "not a mapping"),
        ('Sample("1", ("x",), "q", "a")', "not references"),
        ('"x"', "gives a str"),
    ],
)
def test_samples_of_the_wrong_kind_are_named(
    sample: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("given.py").write_text(PLUGIN.format(error="ValueError", title="x", sample=sample))
    assert invoke(["data", "check", "./given.py", "--from", "rows.jsonl", "-q"]) == 1
    assert named in capsys.readouterr().out


def test_a_mistake_in_a_plug_in_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    Path("given.py").write_text(
        PLUGIN.format(error="MemoryError", title="\x1b[2J", sample='Sample("1", (), "q", "a")')
    )
    Path("answers.jsonl").write_text('{"id": "1", "response": "1"}\n')
    assert invoke(
        ["score", "./given.py", "--predictions", "answers.jsonl", "--rows", "rows.jsonl", "-q"]
    ) in (0, 1)
    found = capsys.readouterr()
    assert "unexpectedly" not in found.err and "\x1b" not in found.out


@pytest.mark.parametrize("data", [b"GIF89a", b"P3\n2000 2000\n255\n", b"II*\0"], ids=["cut", "slow", "none"])
def test_images_of_pairs_are_decoded_within_bounds(data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    from stic_eval.training.preference_pairs import features

    def turn(role: str) -> list[dict[str, str]]:
        return [{"role": role, "content": "x"}]

    pair = {
        "prompt": turn("user"), "chosen": turn("assistant"), "rejected": turn("assistant"),
        "image_sha256": "0", "source": "x", "negative": "blur", "seed": 1,
    }  # fmt: skip
    pairs = [
        {**pair, "images": [{"bytes": one, "path": None}]} for one in (Path("good.png").read_bytes(), data)
    ]
    parquet.write_table(pa.Table.from_pylist(pairs, features().arrow_schema), "pairs.parquet")
    argv = "run --method stic_stage1 --pairs pairs.parquet --benchmarks chartqa --dry-run"
    assert invoke([*argv.split(), "-o", "rows.chartqa=rows.jsonl"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--pairs pairs.parquet: row 2: its image cannot be used" in line


@pytest.mark.parametrize(
    "changed",
    [
        {"target_modules": r"(\w+\.?)+!"},
        {"exclude_modules": r"(.|.)*!"},
        {"rank_pattern": {r"(\w+\.?)+!": 4}},
    ],
    ids=str,
)
def test_patterns_without_an_end(
    changed: dict[str, object], adapters: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from stic_eval.models import adapter_patterns

    monkeypatch.setattr(adapter_patterns, "_SECONDS", 1.0)
    folder = Path(shutil.copytree(adapters[0], "adapter"))
    config = json.loads((folder / "adapter_config.json").read_text())
    names = [f"model.language_model.layers.{k}.self_attn.q_projection" for k in range(3)]
    adapter_patterns.check_patterns(folder, names, "x")
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changed}))
    with pytest.raises(UserError, match="far too long; name the modules in a list"):
        adapter_patterns.check_patterns(folder, names, "x")


def test_a_chat_template_is_run_in_a_sandbox(tiny_vlm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("template.jinja").write_text("{{ cycler.__init__.__globals__.os.system('touch canary') }}<image>x")
    argv = ["eval", "--model", str(tiny_vlm), "--chat-template", "template.jinja", "--benchmarks", "chartqa"]
    code = invoke([*argv, "-o", "rows.chartqa=rows.jsonl", "--output", "run", "-q"])
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert code in (1, 2) and "unexpectedly" not in line and not Path("canary").exists(), line
