"""Decoding as an option of every benchmark, whoever wrote it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from stic_eval import config, registry
from stic_eval.benchmark_protocols import complete, decoding, with_options
from stic_eval.cli.app import invoke
from stic_eval.contracts.benchmark import Benchmark, HubData
from stic_eval.contracts.method import Data
from stic_eval.errors import UserError
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.experiment import variants
from stic_eval.experiment.keys import evaluation_keys
from stic_eval.settings import RunConfig
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import Generation, Sample, Score

ALL = registry.benchmarks().own()
NOTHING = Data((), (), "images", "sft", load_prompts())


def load(*overrides: str, **flags: Any) -> RunConfig:
    return config.load(flags={"methods": ["baseline"], **flags}, overrides=list(overrides))


def key(name: str, *overrides: str) -> str:
    built = load(*overrides)
    (variant,) = variants.variants(built, NOTHING)
    options = built.benchmark_options.get(name, {})
    benchmark = with_options(registry.benchmarks().get(name), options)
    return evaluation_keys(built, benchmark, variant, "model", None, "Describe.")[0]


@pytest.mark.parametrize("name", ALL)
def test_every_benchmark_takes_it(name: str) -> None:
    benchmark = registry.benchmarks().get(name)
    built = load(
        f"benchmarks.{name}.max_new_tokens=4096", f"benchmarks.{name}.temperature=0.7",
        f"benchmarks.{name}.top_p=0.9", f'benchmarks.{name}.stop=["USER:"]',
    )  # fmt: skip
    found = with_options(benchmark, built.benchmark_options[name])
    assert found.generation == Generation(4096, 0.7, 0.9, 0, ("USER:",))
    said = "; at most 4,096 new tokens, temperature 0.7, top-p 0.9, up to 'USER:'"
    assert found.protocol == benchmark.protocol + said
    assert found.variant == benchmark.variant
    assert key(name, f"benchmarks.{name}.max_new_tokens=4096") != key(name)


def test_what_a_benchmark_has_anyway_changes_nothing() -> None:
    own = registry.benchmarks().get("mmbench")
    assert load("benchmarks.mmbench.max_new_tokens=1024") == load()
    assert key(
        "mmbench", "benchmarks.mmbench.max_new_tokens=1024", "benchmarks.mmbench.temperature=0"
    ) == key("mmbench")
    assert with_options(own, {"max_new_tokens": 1024, "temperature": 0.0}).protocol == own.protocol


def test_it_stands_beside_the_benchmarks_own_options() -> None:
    found = with_options(registry.benchmarks().get("scienceqa"), {"protocol": "lmms", "max_new_tokens": 512})
    assert (found.variant, found.generation.max_new_tokens) == ("lmms", 512)
    assert found.protocol.startswith("lmms-eval: ") and found.protocol.endswith("; at most 512 new tokens")
    # Sixteen are what the protocol has, and not what the other one has.
    assert decoding(registry.benchmarks().get("scienceqa"), {"protocol": "lmms", "max_new_tokens": 16}) == {}
    assert decoding(registry.benchmarks().get("scienceqa"), {"max_new_tokens": 16}) == {"max_new_tokens": 16}


def test_a_saved_configuration_is_read_back_as_it_was(tmp_path: Path) -> None:
    built = load("benchmarks.textvqa.stop=stop here", "benchmarks.textvqa.max_new_tokens=9")
    assert built.benchmark_options["textvqa"]["stop"] == ["stop here"]
    (tmp_path / "config.yaml").write_text(built.to_yaml())
    again = config.load(file=tmp_path / "config.yaml")
    assert again.benchmark_options == built.benchmark_options and again.key == built.key


PLUGIN = Benchmark(
    name="mine", title="Mine", version=1, source=HubData("me/mine", "test"),
    to_sample=lambda row: Sample("", (), "", None), generation=Generation(6, temperature=0.5, top_p=0.8),
    score=lambda sample, text: Score(1.0), aggregate=summarize, protocol="mine",
)  # fmt: skip


class Own(BaseModel):
    """A plug-in whose option is called like one of these."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    temperature: str = "warm"


def test_a_plug_in_without_options_takes_it_and_one_with_its_own_keeps_them() -> None:
    assert with_options(PLUGIN, {"max_new_tokens": 12}).generation == Generation(12, 0.5, 0.8)
    assert with_options(PLUGIN, {"temperature": 0}).generation.temperature == 0
    assert with_options(PLUGIN, {"temperature": 0}).protocol == "mine; greedy"
    assert with_options(PLUGIN, {"top_p": 0.5}).generation.top_p == 0.5, "it samples anyway"
    assert complete(PLUGIN, {}) == {} and complete(PLUGIN, {"top_p": 0.5}) == {"top_p": 0.5}
    own = replace(PLUGIN, options=Own, vary=lambda options: replace(PLUGIN, variant=options.temperature))
    found = with_options(own, {"temperature": "cold", "max_new_tokens": 12})
    assert (found.variant, found.generation) == ("cold", Generation(12, 0.5, 0.8))


def test_a_task_of_lmms_eval_takes_it() -> None:
    pytest.importorskip("lmms_eval")
    built = load("benchmarks.lmms:pope.max_new_tokens=300", benchmarks="lmms:pope")
    found = with_options(registry.benchmarks().get("lmms:pope"), built.benchmark_options["lmms:pope"])
    assert found.generation.max_new_tokens == 300
    assert found.protocol.endswith("; at most 300 new tokens")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("mmbench.max_new_tokens=0", "max_new_tokens 0: input should be greater than or equal to 1"),
        ("mmbench.max_new_tokens=many", "max_new_tokens 'many': input should be a valid integer"),
        ("mmbench.temperature=-1", "temperature -1: input should be greater than or equal to 0"),
        ("mmbench.temperature=.nan", "temperature nan: is not a usable value"),
        ("mmbench.top_p=0", "top_p 0: input should be greater than 0"),
        ("mmbench.top_p=1.5", "top_p 1.5: input should be less than or equal to 1"),
        ("mmbench.top_p=0.9", "top_p 0.9: answers are greedy, so it has no effect"),
        ('mmbench.stop=[""]', "stop ['']: an empty text would end every answer"),
        ("mmbench.max_new_token=5", 'no such option; did you mean "max_new_tokens"?'),
        ("mmbench.temprature=1", 'no such option; did you mean "temperature"?'),
        ("mmbench.evalution=vanilla", 'no such option; did you mean "evaluation"?'),
        ("mmbench.xyzzy=1", "no such option (it has protocol, evaluation, max_new_tokens, temperature,"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_flag(setting: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load(f"benchmarks.{setting}")
    message = str(caught.value)
    assert message.startswith("-o benchmarks.mmbench.") and said in message and "\n" not in message


def test_show_lists_it_with_what_the_benchmark_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["show", "chartqa"]) == 0
    said = capsys.readouterr().out
    assert "(-o benchmarks.chartqa.OPTION=VALUE)" in said
    assert yaml.safe_load(said.partition("OPTION=VALUE):\n")[2].replace(" (one of", " # (one of")) == {
        "protocol": "lmms", "strict": False, "max_new_tokens": 128, "temperature": 0.0, "top_p": 1.0,
        "stop": [],
    }  # fmt: skip


def test_answers_that_are_there_are_not_decoded_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "p.jsonl"
    given.write_text('{"id": "a", "response": "4"}\n')
    assert invoke(["score", "chartqa", "--predictions", str(given), "-o", "max_new_tokens=5"]) == 2
    said = capsys.readouterr().err
    assert "-o benchmarks.chartqa.max_new_tokens: is for asking" in said and len(said.splitlines()) == 1


def task_of(file: str) -> dict[str, Any]:
    """A task's configuration as its files have it, for some of their code needs a judge's key."""
    from stic_eval.evals.official_prompts import task_folder

    path = task_folder() / file
    found: dict[str, Any] = yaml.safe_load(path.read_text().replace("!function", ""))
    before = task_of(f"{Path(file).parent}/{found['include']}") if "include" in found else {}
    return {**before, **found}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mmbench", "mmbench/mmbench_en_dev.yaml"), ("textvqa", "textvqa/textvqa_val.yaml"),
        ("llava_bench", "llava-in-the-wild/llava-in-the-wild.yaml"), ("chartqa", "chartqa/chartqa.yaml"),
        ("scienceqa", "scienceqa/scienceqa_img.yaml"), ("mmvet", "mmvet/mmvet.yaml"),
        ("mathvista", "mathvista/mathvista_testmini_format.yaml"),
    ],
)  # fmt: skip
def test_the_lmms_protocol_ends_answers_where_the_task_says_assistant(name: str, file: str) -> None:
    pytest.importorskip("lmms_eval")
    from stic_eval.evals.lmms.request_settings import stops

    until = stops(task_of(file).get("generation_kwargs") or {})
    found = with_options(registry.benchmarks().get(name), {"protocol": "lmms"})
    assert found.generation.stop == tuple(text for text in until if text == "ASSISTANT:")
    assert bool(found.generation.stop) == (name in ("mmbench", "textvqa", "llava_bench"))
    if name != "chartqa":  # which has that protocol alone
        assert registry.benchmarks().get(name).generation.stop == ()
