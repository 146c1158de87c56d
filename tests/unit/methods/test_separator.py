"""What stands between a description and an instruction: one text in training and at inference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stic_eval import config, registry
from stic_eval.ablations import build as gridbuild
from stic_eval.ablations.spec import Spec
from stic_eval.contracts.method import Data, Method, Plan, SFTItem, StageContext
from stic_eval.experiment import graph, inputs, variants
from stic_eval.experiment.resources import Resources
from stic_eval.selftrain.stage_runner import stage_key
from stic_eval.training import dpo, sft
from stic_eval.training.instruction_data import infuse
from stic_eval.types import Generation, Request, Sample
from tests.support.fake import FakeVLM
from tests.support.scripted import Lab, Quiet, Scripted, data_of, solved

if TYPE_CHECKING:
    from conftest import World

# (method, options): whatever infuses instructions.
INFUSING: list[tuple[str, dict[str, Any]]] = [
    ("stic", {}),
    ("stic", {"stage2": {"infusion": "shuffled"}}),
    ("stic", {"stage1": {"use": False}}),
    ("positive_only", {}),
]


def keys(name: str, separator: str, **options: Any) -> dict[str, str]:
    data = data_of(6, 4, separator=separator)
    method = registry.methods().get(name)
    found = variants.stages(method.plan(method.config.model_validate(options), data).adapter)
    return {stage.name: stage_key(stage, data, "model", 0) for stage in found}


@pytest.mark.parametrize(("name", "options"), INFUSING)
def test_it_changes_infused_training_and_nothing_before_it(name: str, options: dict[str, Any]) -> None:
    one, two, none = (keys(name, separator, **options) for separator in ("\n", "\n\n", ""))
    assert [stage for stage in one if one[stage] != two[stage]] == ["infused_sft"]
    assert len({one["infused_sft"], two["infused_sft"], none["infused_sft"]}) == 3


@pytest.mark.parametrize(
    ("name", "options"), [("sft", {}), ("stic", {"stage2": {"infusion": "none"}}), ("stic_stage1", {})]
)
def test_training_without_descriptions_does_not_depend_on_it(name: str, options: dict[str, Any]) -> None:
    assert keys(name, "\n", **options) == keys(name, "\n\n", **options)


@pytest.mark.parametrize("separator", ["\n", "\n\n", " | "])
@pytest.mark.parametrize(("name", "options"), INFUSING)
def test_a_run_trains_on_the_very_text_that_it_asks(
    name: str, options: dict[str, Any], separator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From `-o dar.separator` to the rows of the last training, and to the question at inference."""
    trained: list[SFTItem] = []

    def write_adapter(out: Path) -> None:
        (out / "adapter").mkdir()
        (out / "adapter" / "adapter_config.json").write_text(str(len(trained)))

    def train_sft(model: Any, items: Any, out: Path, **how: Any) -> None:
        trained[:] = items
        write_adapter(out)

    monkeypatch.setattr(sft, "train_sft", train_sft)
    monkeypatch.setattr(dpo, "train_preferences", lambda model, pairs, out, **how: write_adapter(out))
    overrides = [f"dar.separator={separator!r}".replace("'", '"')]
    built = config.load(flags={"model": "a/b", "methods": [name]}, overrides=overrides)
    assert built.dar["separator"] == separator
    data = data_of(4, 4, separator=built.dar["separator"])
    method = registry.methods().get(name)
    settings = {**options, "stage2": {"items": 4, **options.get("stage2", {})}}
    adapter = method.plan(method.config.model_validate(settings), data).adapter
    assert adapter is not None
    described = Scripted(lambda request: f"Seen {request.images[0].source}, {request.messages[0].text}")
    lab = Lab(tmp_path, described)
    lab.run(adapter, data)
    asked: list[str] = []

    def respond(request: Request) -> str:
        asked.append(request.messages[0].text)
        return "A box." if request.messages[0].text == "Describe." else "Yes."

    samples = [Sample(item.id, (item.image,), dict(item.turns)["user"], "") for item in data.sft_items]
    list(
        solved(
            samples, FakeVLM(respond), Generation(), "describe_and_respond", prompt="Describe.",
            separator=built.dar["separator"],
        )
    )  # fmt: skip
    questions = {text for text in asked if text != "Describe."}
    assert questions == {infuse(item, "A box.", separator).turns[0][1] for item in data.sft_items}
    for item, plain in zip(trained, data.sft_items, strict=True):
        head, description, end = item.turns[0][1].partition(separator + plain.turns[0][1])
        assert head.startswith("Image description:\nSeen ") and description and not end


@pytest.mark.parametrize(("given", "found"), [([], " | "), ([r'dar.separator="\n\n"'], "\n\n")])
def test_a_plan_may_bring_its_own_under_the_runs(given: list[str], found: str) -> None:
    """One text, still: in the key of what is trained, and in what its row is asked with."""

    def plan(options: Any, data: Data) -> Plan:
        return replace(stic.plan(options, data), options={"separator": " | "})

    stic, data = registry.methods().get("stic"), data_of(6, 4)
    built = config.load(flags={"model": "a/b", "methods": ["stic"]}, overrides=given)
    made, own = variants.make_plan(replace(stic, plan=plan), built, data)
    assert own == replace(data, separator=found)
    assert made.adapter is not None
    assert stage_key(made.adapter, data, "model", 0) == keys("stic", found)["infused_sft"]
    with pytest.MonkeyPatch.context() as patch:
        methods = {"stic": replace(stic, plan=plan), "baseline": registry.methods().get("baseline")}
        patch.setattr(registry.methods(), "get", methods.__getitem__)
        last: Any = variants.variants(built, data)[-1]
    assert (last.solver.name, last.options.separator) == ("describe_and_respond", found)


@pytest.mark.parametrize(
    ("own", "given", "found"),
    [
        ({}, "dar.separator=' | '", " | "),
        ({"separator": " | "}, "limit=3", " | "),
        ({"separator": " | "}, r'dar.separator="\n\n"', "\n\n"),
        ({}, "limit=3", "\n"),
    ],
)
def test_a_stage_that_runs_finds_what_it_was_planned_with(
    own: dict[str, str], given: str, found: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    planned: list[str] = []
    stic: Method = registry.methods().get("stic")

    def plan(options: Any, data: Data) -> Plan:
        made = stic.plan(options, data)
        assert made.adapter is not None
        write = made.adapter.run

        def run(ctx: StageContext) -> None:
            ran.append(ctx.data.separator)
            write(ctx)

        planned.append(data.separator)
        params = {**made.adapter.params, "separator": data.separator}
        return replace(made, adapter=replace(made.adapter, run=run, params=params), options=own)

    methods = {"stic": replace(stic, plan=plan), "baseline": registry.methods().get("baseline")}
    known = registry.methods()
    monkeypatch.setattr(known, "get", methods.__getitem__)
    monkeypatch.setattr(registry, "methods", lambda: known)
    assert world.run("-o", given) == 0
    assert (ran, planned[-1]) == ([found], found)


def test_what_a_method_reads_may_depend_on_it() -> None:
    stic = registry.methods().get("stic")

    def plan(options: Any, data: Data) -> Plan:
        made = stic.plan(options, data)
        assert made.adapter is not None
        count = 3 if data.separator == " | " else 2
        return replace(made, adapter=replace(made.adapter, params={"items": count}, needs=()))

    built = config.load(flags={"model": "a/b", "methods": ["stic"]}, overrides=["dar.separator=' | '"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry.methods(), "get", {"stic": replace(stic, plan=plan)}.__getitem__)
        assert inputs.needs(built) == {"sft": 3}


def test_cells_of_a_grid_that_share_data_have_each_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Spec(vary={"dar.separator": ["\n", "\n\n"], "stage2.infusion": ["own", "none"]}, dar="only")
    given = gridbuild.GridArguments(spec, "mine.yaml", (), None, None, (), {"model": "pocket"})
    axes, _ = gridbuild.axes(given)
    grid = gridbuild.grid(given, axes, "grid", None)
    read: list[Any] = []

    def load(config: Any, report: Any, reads: Any) -> inputs.Inputs:
        read.append(reads)
        return inputs.Inputs(data_of(4, 4), (), reads)

    monkeypatch.setattr(inputs, "load", load)
    _, *arms = graph.arms_of(grid, Resources(grid.base, Quiet(), tmp_path))
    assert len(read) == 1
    last = [arm.variants[-1].plan.adapter for arm in arms]
    made = [stage_key(stage, a.inputs.data, "m", 0) for stage, a in zip(last, arms, strict=True) if stage]
    assert len(set(made)) == 3  # without descriptions it makes no difference
