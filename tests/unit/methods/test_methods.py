"""Methods as plans: what is shared, what a setting changes, and STIC run to its end on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stic_eval import config, config_layers, registry
from stic_eval.contracts.method import Data, SFTItem, Stage, items_key
from stic_eval.errors import UserError
from stic_eval.experiment import inputs, variants
from stic_eval.image_sources import scan_images
from stic_eval.models.hf_model import HFModel
from stic_eval.selftrain.stage_runner import run_stage, stage_key
from stic_eval.selftrain.stages import shuffle_apart
from stic_eval.stage_store import StageStore
from stic_eval.store import ResponseStore, content_key, read_jsonl, request_key
from stic_eval.training.preference_pairs import open_pairs, pair_requests
from stic_eval.training.prompt_sets import load_prompts
from tests.support.scripted import first

METHODS = ("baseline", "stic", "stic_stage1", "sft", "positive_only")


@pytest.fixture(scope="module")
def data(photos: Path) -> Data:
    images = scan_images(photos)[0]
    items = [
        SFTItem(str(n), image, (("user", f"How many, {n}?"), ("assistant", f"{n}."), ("user", "Sure?"),
                                ("assistant", "Yes.")))
        for n, image in enumerate(images[:6])
    ]  # fmt: skip
    keys = content_key([image.sha256 for image in images]), items_key(items)
    return Data(tuple(images), tuple(items), *keys, load_prompts())


def stages_of(name: str, data: Data, **options: Any) -> dict[str, Stage]:
    method = registry.methods().get(name)
    made = method.plan(method.config.model_validate(options), data)
    return {stage.name: stage for stage in variants.stages(made.adapter)}


def keys(name: str, data: Data, **options: Any) -> dict[str, str]:
    return {k: stage_key(stage, data, "model", 0) for k, stage in stages_of(name, data, **options).items()}


def test_plans_are_what_the_paper_says(data: Data) -> None:
    assert list(stages_of("stic", data)) == ["pairs", "preference", "descriptions", "infused_sft"]
    assert list(stages_of("stic_stage1", data)) == ["pairs", "preference"]
    assert list(stages_of("sft", data)) == ["sft"]
    assert list(stages_of("positive_only", data)) == ["pairs", "positive_sft", "descriptions", "infused_sft"]
    assert stages_of("baseline", data) == {}
    solvers = {}
    for name in METHODS:
        method = registry.methods().get(name)
        solvers[name] = method.plan(method.config(), data).solver
    assert [name for name, solver in solvers.items() if solver == "direct"] == ["baseline", "sft"]


def test_pieces_can_be_left_out(data: Data) -> None:
    assert list(stages_of("stic", data, stage1={"use": False})) == ["descriptions", "infused_sft"]
    assert list(stages_of("stic", data, stage2={"infusion": "none"})) == ["pairs", "preference", "sft"]
    both_off = {"stage1": {"use": False}, "stage2": {"use": False}}
    assert stages_of("stic", data, **both_off) == {}
    assert "infused_sft" not in stages_of("stic_stage1", data, stage2={"items": 5})


def test_methods_share_what_they_have_in_common(data: Data) -> None:
    stic, positive = keys("stic", data), keys("positive_only", data)
    assert stic["pairs"] == positive["pairs"]
    assert stic["infused_sft"] != positive["infused_sft"]
    assert keys("stic_stage1", data) == {name: stic[name] for name in ("pairs", "preference")}
    control = {"stage1": {"use": False}, "stage2": {"infusion": "none"}}
    assert keys("stic", data, **control) == keys("sft", data)


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({"stage1": {"alpha": 0.0}}, {"pairs"}),
        ({"stage1": {"learning_rate": 1e-3}}, {"pairs"}),
        ({"stage1": {"p_corrupt": 0.25}}, set()),
        ({"stage1": {"images": 3}}, set()),
        ({"stage2": {"learning_rate": 1e-3}}, {"pairs", "preference", "descriptions"}),
        ({"stage2": {"infusion": "shuffled"}}, {"pairs", "preference", "descriptions"}),
        ({"stage2": {"temperature": 0.0}}, {"pairs", "preference"}),
        ({"lora": {"r": 8}}, {"pairs"}),
    ],
)
def test_a_setting_changes_its_stage_and_what_follows(
    options: dict[str, Any], same: set[str], data: Data
) -> None:
    before, after = keys("stic", data), keys("stic", data, **options)
    assert {name for name in before if before[name] == after[name]} == same


def test_another_wording_is_another_run(data: Data) -> None:
    other = Data(data.images, data.sft_items, data.images_key, data.sft_key, load_prompts("pocket"))
    assert not set(keys("stic", data).values()) & set(keys("stic", other).values())
    assert keys("sft", data) == keys("sft", other)


def test_counts_are_those_of_the_data_that_there_is(data: Data) -> None:
    found = stages_of(
        "stic", data, stage1={"batch_size": 3, "epochs": 2}, stage2={"items": 5, "batch_size": 4}
    )
    assert {name: (stage.generations, stage.steps) for name, stage in found.items()} == {
        "pairs": (16, 0), "preference": (0, 6), "descriptions": (5, 0), "infused_sft": (0, 2),
    }  # fmt: skip


def test_shuffled_descriptions_are_others(data: Data) -> None:
    texts = [str(i) for i in range(20)]
    moved = shuffle_apart(texts, 0)
    assert sorted(moved) == sorted(texts)
    assert not [i for i, text in enumerate(moved) if text == texts[i]]
    assert moved == shuffle_apart(texts, 0) != shuffle_apart(texts, 1)


# ---------------------------------------------------------------- presets and the command's inputs


def test_the_papers_presets_are_the_papers_defaults() -> None:
    for preset, model in (("paper-llava-1.6", "llava-hf/llava-v1.6-mistral-7b-hf"),
                          ("paper-llava-1.6-13b", "llava-hf/llava-v1.6-vicuna-13b-hf"),
                          ("paper-llava-1.5", "llava-hf/llava-1.5-7b-hf")):  # fmt: skip
        built = config.load(preset=preset, flags={"methods": METHODS})
        # What of the text fits beside one tile is the presets'; without one, stage 1 has no limit.
        short = [f"{name}.stage1.max_length=448" for name in ("stic", "stic_stage1", "positive_only")]
        plain = config.load(flags={"model": model, "methods": METHODS}, overrides=short)
        assert (built.model, built.dtype) == (model, "bfloat16")
        assert (built.training.images, plain.training.images) == ("single_tile", "as_generated")
        assert built.method_options == plain.method_options
        assert {**built.dar, "use": None} == {**plain.dar, "use": None}
        stic = built.method_options["stic"]
        assert (stic["stage1"]["alpha"], stic["stage2"]["items"], stic["lora"]["r"]) == (1 / 1024, 5000, 128)
        # 1,024 and 2,048 tokens, less the 576 of a tile.
        assert (stic["stage1"]["max_length"], stic["stage2"]["max_length"]) == (1024 - 576, 2048 - 576)


def test_the_larger_model_of_the_paper_is_trained_like_the_smaller() -> None:
    small, large = (config_layers.read_preset(f"paper-llava-1.6{suffix}") for suffix in ("", "-13b"))
    assert small.pop("model") != large.pop("model")
    assert (small.pop("conversation"), large.pop("conversation")) == (
        {"profile": "llava-1.6-mistral"}, {"profile": "llava-1.6-vicuna"},
    )  # fmt: skip
    assert small == large


def test_the_pocket_preset_keeps_methods_comparable(data: Data) -> None:
    """Sizes are the same for all; rates and passes are each method's own choice (`bench.search`)."""
    built = config.load(flags={"methods": METHODS})
    assert built.preset == "pocket"
    options = built.method_options
    made = {name: keys(name, data, **options[name]) for name in METHODS}
    assert made["stic"]["pairs"] == made["positive_only"]["pairs"] == made["stic_stage1"]["pairs"]
    assert made["stic"]["preference"] == made["stic_stage1"]["preference"]
    stic, control, fine_tuned = (options[name] for name in ("stic", "positive_only", "sft"))
    assert differing(stic["stage1"], control["stage1"]) <= {"learning_rate", "alpha", "beta"}
    assert differing(stic["stage2"], control["stage2"]) <= {"learning_rate"}
    # What describing and infusing take, plain fine-tuning has not.
    assert differing(stic["stage2"], fine_tuned["stage2"]) <= {"learning_rate", "epochs"}
    assert stic["lora"] == control["lora"] == fine_tuned["lora"]
    assert inputs.prompt_set(built) == load_prompts("pocket")
    assert first(built) == load_prompts("pocket").plain[0]


def differing(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Settings that both have, with different values."""
    return {name for name in one.keys() & other.keys() if one[name] != other[name]}


def test_the_first_prompt_of_the_set_is_asked_at_inference(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("step_by_step: Look.\nplain: ['What is it?', Describe.]\nmisleading: [Invent.]\n")
    flags = {"model": "a/b", "methods": ["baseline"]}
    assert first(config.load(flags=flags)) == load_prompts().plain[0]
    assert first(config.load(flags={**flags, "prompts": file})) == "What is it?"
    own = config.load(flags=flags, overrides=["dar.prompt=Tell me."])
    assert first(own) == "Tell me."
    with pytest.raises(UserError, match="--prompts"):
        first(config.load(flags={**flags, "prompts": tmp_path / "none.yaml"}))


class Silent:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[str] = []

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Silent]:
        self.steps.append(name)
        yield self

    def update(self, done: int, total: int | None = None) -> None:
        pass

    def log(self, line: str) -> None:
        self.lines.append(line)

    line = log


def test_inputs_are_a_shuffle_by_content_and_no_larger_than_needed(photos: Path, tmp_path: Path) -> None:
    rows = [
        {"id": i, "image": f"{n}.{'jpg' if n % 2 else 'png'}",
         "conversations": [{"from": "human", "value": f"<image>{i}?"}, {"from": "gpt", "value": "ok"}]}
        for i, n in enumerate([0, 1, 2, 3, 4, 5, 6, 7] * 5)
    ]  # fmt: skip
    (tmp_path / "data.json").write_text(json.dumps(rows))
    flags = {
        "model": "a/b", "images": photos, "sft_data": str(tmp_path / "data.json"), "image_root": photos,
        "methods": ["stic", "sft"],
    }  # fmt: skip
    built = config.load(flags=flags, overrides=["stic.stage2.items=3", "sft.stage2.items=7"])
    assert inputs.needs(built) == {"images": 6000, "sft": 7}
    loaded = inputs.load(built, Silent()).data  # type: ignore[arg-type]
    assert [image.sha256 for image in loaded.images] == sorted(image.sha256 for image in loaded.images)
    assert len(loaded.images) == 8
    assert len(loaded.sft_items) == 7
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{photos}/{name}\n" for name in ("3.jpg", "0.png", "1.jpg")))
    kept = inputs.load(built.model_copy(update={"images": listed}), Silent()).data  # type: ignore[arg-type]
    assert [Path(image.source).name for image in kept.images] == ["3.jpg", "0.png", "1.jpg"]


# ---------------------------------------------------------------- to the end


SMALL = {
    "stage1": {"max_new_tokens": 12, "learning_rate": 1e-3, "images": 6},
    "stage2": {"max_new_tokens": 8, "batch_size": 4, "items": 5, "learning_rate": 1e-3},
    "lora": {"r": 4, "alpha": 8},
}


class Lab:
    """What a session has when it executes stages."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.hf = HFModel.load(str(model), device="cpu")
        self.store, self.report = StageStore(folder / "stages"), Silent()
        self.responses = ResponseStore(folder / "responses.sqlite")

    def run(self, stage: Stage, data: Data, seed: int = 0) -> Path:
        return run_stage(
            stage, data=data, seed=seed, fingerprint=self.hf.fingerprint, model=self.hf.with_adapter,
            answers=self.hf.with_adapter, scorer=self.hf.with_adapter, responses=lambda: self.responses,
            store=self.store, report=self.report,
        )  # fmt: skip


def test_stic_runs_to_its_end_on_a_real_model(tiny_vlm: Path, data: Data, tmp_path: Path) -> None:
    lab = Lab(tiny_vlm, tmp_path)
    made = stages_of("stic", data, **SMALL)
    folders = {name: lab.run(stage, data) for name, stage in made.items()}

    rows = open_pairs(folders["pairs"] / "pairs.parquet", tmp_path / "rows")
    assert rows["image_sha256"][:] == [image.sha256 for image in data.images[:6]]
    assert all(row["prompt"][0]["content"] in data.prompts.plain for row in rows)
    assert any("6 pairs" in line for line in lab.report.lines)

    first = load_file(folders["preference"] / "adapter" / "adapter_model.safetensors")
    last = load_file(folders["infused_sft"] / "adapter" / "adapter_model.safetensors")
    assert set(first) == set(last)
    assert any(not torch.equal(first[name], last[name]) for name in first)
    assert any(value.abs().max() > 0 for name, value in first.items() if "lora_B" in name)

    described = list(read_jsonl(folders["descriptions"] / "descriptions.jsonl"))
    assert [row["id"] for row in described] == ["0", "1", "2", "3", "4"]
    assert all(row["prompt"] in data.prompts.plain for row in described)
    for name, folder in folders.items():
        files = {path.name for path in folder.rglob("*") if path.is_file()}
        assert not {"README.md", "optimizer.pt", "training_args.bin"} & files, name

    # The model that is evaluated next has the adapter, and the base is as it was.
    again = Lab(tiny_vlm, tmp_path / "other")
    assert lab.hf.fingerprint == again.hf.fingerprint
    assert all(
        torch.equal(value, again.hf.model.state_dict()[name])
        for name, value in lab.hf.model.state_dict().items()
    )
    # In another place, the same comes out, byte for byte.
    for name, stage in made.items():
        other = again.run(stage, data)
        for path in folders[name].rglob("*"):
            if path.suffix in (".safetensors", ".parquet") or path.name in (
                "descriptions.jsonl", "adapter_config.json",
            ):  # fmt: skip
                assert (other / path.relative_to(folders[name])).read_bytes() == path.read_bytes(), path


def test_controls_run_too_and_make_no_second_pairs(tiny_vlm: Path, data: Data, tmp_path: Path) -> None:
    lab = Lab(tiny_vlm, tmp_path)
    positive = dict(SMALL, stage1={"max_new_tokens": 12, "learning_rate": 1e-3, "images": 6, "batch_size": 4})
    adapters = []
    for name, options in (
        ("stic_stage1", {"stage1": SMALL["stage1"], "lora": SMALL["lora"]}),
        ("positive_only", positive),
        ("sft", {"stage2": {"items": 5, "batch_size": 4, "learning_rate": 1e-3}, "lora": SMALL["lora"]}),
    ):
        *_, last = stages_of(name, data, **options).values()
        adapters.append(lab.run(last, data) / "adapter" / "adapter_model.safetensors")
    assert len({path.read_bytes() for path in adapters}) == 3
    assert len([path for path in lab.store.root.glob("pairs-*") if path.is_dir()]) == 1
    assert lab.report.steps.count("ask for pairs") == 1


@pytest.mark.parametrize("reference", ["previous", "base"])
def test_a_second_iteration_makes_its_pairs_with_the_first_ones_adapter(
    reference: str, tiny_vlm: Path, data: Data, tmp_path: Path
) -> None:
    lab = Lab(tiny_vlm, tmp_path)
    small: dict[str, Any] = {"max_new_tokens": 12, "learning_rate": 0.01, "images": 6}
    method = registry.methods().get("stic_stage1")
    options: Any = method.config.model_validate(
        {"stage1": small, "lora": SMALL["lora"], "iterations": 2, "reference": reference}
    )
    made = list(variants.stages(method.plan(options, data).adapter))
    assert [stage.name for stage in made] == ["pairs", "preference", "pairs", "preference"]
    lab.run(made[-1], data)
    done = [lab.store.done(stage.name, stage_key(stage, data, lab.hf.fingerprint, 0)) for stage in made]
    folders = [folder for folder in done if folder is not None]
    assert len(folders) == 4

    # The adapter of the first iteration, and no other model, gave the answers of the second one's pairs.
    second = list(pair_requests(data.images[:6], data.prompts, options.stage1, 0, iteration=2))
    table = open_pairs(folders[2] / "pairs.parquet", tmp_path / "rows")
    for adapter, agree in ((folders[1] / "adapter", True), (None, False)):
        model = lab.hf.with_adapter(adapter)
        texts = {request_key(r): a.text for r, a in model.generate([p.chosen for p in second])}
        given = [row["chosen"][0]["content"] for row in table]
        assert (given == [texts[request_key(pair.chosen)] for pair in second]) is agree

    first, after = (load_file(folders[i] / "adapter" / "adapter_model.safetensors") for i in (1, 3))
    assert {n: v.shape for n, v in first.items()} == {n: v.shape for n, v in after.items()}
    assert any(not torch.equal(first[name], after[name]) for name in first)
    log = json.loads((folders[3] / "log.jsonl").read_text().splitlines()[0])
    # Held to where it starts, the model is there still; held to the base, it is away already.
    assert (log["rewards/chosen"] == pytest.approx(0, abs=1e-6)) is (reference == "previous")
