"""The axes of ablations: what each one changes, what stays cached, and what is no value of it."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel

from stic_eval import config, config_layers, registry, setting_paths
from stic_eval.contracts.benchmark import HubData, HubId
from stic_eval.contracts.method import Data, SFTItem, Stage, items_key
from stic_eval.corruptions import CORRUPTIONS
from stic_eval.errors import UserError
from stic_eval.experiment import inputs, variants
from stic_eval.experiment.keys import evaluation_keys
from stic_eval.selftrain.stage_runner import stage_key
from stic_eval.setting_groups import ThinkingConfig, TrainingConfig
from stic_eval.settings import RunConfig
from stic_eval.store import content_key, request_key
from stic_eval.training.hyperparameters import PairSettings, share
from stic_eval.training.preference_pairs import is_filtered, pair_requests
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import ImageRef
from tests.support.scripted import first

DOCUMENT = Path(__file__).parents[3] / "docs" / "axes.md"
ALL = ("stic", "stic_stage1", "sft", "positive_only")
FOUR = ("pairs", "preference", "descriptions", "infused_sft")
PROMPTS = load_prompts()


def refs(count: int) -> tuple[ImageRef, ...]:
    return tuple(ImageRef(f"{i:064x}", f"{i}.png", partial(Image.new, "RGB", (8, 8))) for i in range(count))


def data_of(images: int, items: int) -> Data:
    pictures = refs(images)
    talk = (("user", "What?"), ("assistant", "That."))
    rows = tuple(SFTItem(str(i), image, talk) for i, image in enumerate(refs(items)))
    return Data(pictures, rows, content_key([image.sha256 for image in pictures]), items_key(rows), PROMPTS)


DATA = data_of(40, 20)
NOTHING = Data((), (), "images", "sft", load_prompts())


def stages_of(name: str, data: Data = DATA, **options: Any) -> list[Stage]:
    method = registry.methods().get(name)
    return list(variants.stages(method.plan(method.config.model_validate(options), data).adapter))


def keys(name: str, data: Data = DATA, **options: Any) -> dict[str, str]:
    return {s.name: stage_key(s, data, "model", 0) for s in stages_of(name, data, **options)}


# ---------------------------------------------------------------- what was computed stays valid


# Keys of stages that caches hold. They change with the format of requests and the wording of prompts; a new
# setting must not change them while it has its default.
KNOWN = {
    "pocket": {
        "stic": ("f97b2eb14d04d0b4", "d86c3c675b000d86", "5f2c99a34bd976a5", "ba3789135b8f5800"),
        "stic_stage1": ("f97b2eb14d04d0b4", "d86c3c675b000d86"),
        "sft": ("b2837242fdcc9452",),
        "positive_only": ("f97b2eb14d04d0b4", "d5991263e2fb91c1", "754ccfee6a5266ec", "39d98b5d46380032"),
    },
    "paper-llava-1.6": {
        "stic": ("0feb0f46c8d180ca", "cced3061caeb6a0b", "666200156f168127", "94023bb01c152f1d"),
        "stic_stage1": ("0feb0f46c8d180ca", "cced3061caeb6a0b"),
        "sft": ("739a55938d314502",),
        "positive_only": ("0feb0f46c8d180ca", "4f36ba3923a05549", "4f253cd1e621f29d", "6c98b2732f0c142e"),
    },
}
INFUSED_WITH_TWO_NEWLINES = {
    "pocket": {"stic": "75429e9373177726", "positive_only": "fc4ec2681efa3b61"},
    "paper-llava-1.6": {"stic": "4667c4e50837b3f0", "positive_only": "5dd5872919a0cef6"},
}


@pytest.mark.parametrize("preset", KNOWN)
def test_presets_keep_the_keys_of_their_stages(preset: str) -> None:
    built = config.load(preset=preset, flags={"methods": ALL})
    data = replace(NOTHING, prompts=inputs.prompt_set(built), training_images=built.training.images)
    for name, known in KNOWN[preset].items():
        found = keys(name, data, **built.method_options[name]).values()
        assert tuple(key[:16] for key in found) == known, name
    # Before `dar.separator` held for training, too, infusion had two newlines.
    former = replace(data, separator="\n\n")
    for name, last in INFUSED_WITH_TWO_NEWLINES[preset].items():
        *_, found_last = keys(name, former, **built.method_options[name]).values()
        assert found_last[:16] == last, name


# Pairs and training of the methods beside STIC, under the embedded model's preset; of RLAIF-V lite twice.
RIVALS = {
    "seva": ("6c75edbaac64c84f", "acaeabb88e0955e7"),
    "sima": ("2bd5c04ae0c31714", "279b6dd84f06891b"),
    "csr": ("031de38748f2fcff", "bbdfe834f26aad14"),
    "rlaif_v_lite": ("585c9e4436419a95", "a9939751a927e9ed", "f28c52a7c02a1b7b", "ccd6b6574094f293"),
}


def test_the_preset_of_the_embedded_model_keeps_the_keys_of_other_methods() -> None:
    built = config.load(preset="pocket", flags={"methods": tuple(RIVALS)})
    data = replace(NOTHING, prompts=inputs.prompt_set(built))
    for name, known in RIVALS.items():
        found = stages_of(name, data, **built.method_options[name])
        assert tuple(stage_key(stage, data, "model", 0)[:16] for stage in found) == known, name


# Keys of runs of all methods, as of before `stage1.loss` could be set.
RUNS = {
    "paper-llava-1.5": "8dfd2524e2df4a1f",
    "paper-llava-1.6": "3e1fd396ef5bfc62",
    "paper-llava-1.6-13b": "09b1cd3fd833507c",
    "pocket": "be93c9c9b74f75ea",
}


@pytest.mark.parametrize("preset", RUNS)
def test_presets_keep_the_keys_of_their_runs(preset: str) -> None:
    methods = [name for name in registry.methods().own() if name != "baseline"]
    built = config.load(preset=preset, flags={"methods": methods})
    assert built.key[:16] == RUNS[preset]
    other = config.load(preset=preset, flags={"methods": methods}, overrides=["stage1.loss=ipo"])
    assert other.key != built.key
    spelt = config.load(preset=preset, flags={"methods": methods}, overrides=["stage1.loss=sigmoid"])
    assert spelt.key == built.key


def test_a_loss_is_in_the_key_of_preference_training_and_of_what_follows() -> None:
    plain = keys("stic")

    def changed(**stage1: Any) -> list[str]:
        return [name for name, key in keys("stic", stage1=stage1).items() if key != plain[name]]

    assert changed(loss={"sigmoid": 1, "ipo": 0}) == []
    for loss in ("ipo", {"sigmoid": 2.0}, {"sigmoid": 0.8, "bco_pair": 0.2}):
        assert changed(loss=loss) == ["preference", "descriptions", "infused_sft"]
    robust = {"loss": "robust", "loss_constants": {"label_smoothing": 0.1}}
    assert keys("stic", stage1=robust) == keys("stic", stage1={"loss": "robust"})  # the default, written out
    robust["loss_constants"] = {"label_smoothing": 0.2}
    assert keys("stic", stage1=robust) != keys("stic", stage1={"loss": "robust"})
    mix = {"ipo": 1.0, "hinge": 1.0}
    assert keys("stic", stage1={"loss": mix}) == keys("stic", stage1={"loss": dict(reversed(mix.items()))})


def test_the_preset_of_the_paper_limits_text_as_the_rivals_released_scripts() -> None:
    """Theirs count the tile's 576 tokens."""
    scripts = {"seva": 2048, "sima": 2048, "csr": 1024, "rlaif_v_lite": 2048}
    built = config.load(preset="paper-llava-1.5", flags={"methods": tuple(scripts)})
    assert built.training.images == "single_tile"
    for name, whole in scripts.items():
        trained = [stage for stage in stages_of(name, **built.method_options[name]) if stage.trains]
        assert {stage.params.get("max_length") for stage in trained} == {whole - 576}, name


def test_how_images_are_shown_is_in_the_keys_of_all_training_and_of_nothing_else() -> None:
    tiles = replace(DATA, training_images="single_tile")
    for name in (*ALL, "csr", "rlaif_v_lite", "seva", "sima"):
        for stage in stages_of(name):
            alone = replace(stage, needs=())
            assert stage.trains == (stage.name not in ("pairs", "descriptions")), stage.name
            changed = stage_key(alone, tiles, "model", 0) != stage_key(alone, DATA, "model", 0)
            assert changed == stage.trains, stage.name
    run = config.load(flags={"methods": ALL})
    tiled = config.load(flags={"methods": ALL}, overrides=["training.images=single_tile"])
    assert run.training.images == "as_generated"
    assert run.key != tiled.key
    assert run.key == config.load(flags={"methods": ALL}, overrides=["training.images=as_generated"]).key
    assert RunConfig().key == RunConfig(training=TrainingConfig()).key


def test_room_for_thinking_trains_nothing_again_that_asks_nothing() -> None:
    room = ThinkingConfig(max_new_tokens=512)
    data = replace(DATA, pairs=Path("pairs.parquet"), pairs_key="pairs")
    for name in (*ALL, "csr", "rlaif_v_lite", "seva", "sima"):
        for stage in stages_of(name):
            alone = replace(stage, needs=())
            asks = stage.name in ("pairs", "descriptions")
            assert (stage_key(alone, DATA, "m", 0) != stage_key(alone, DATA, "m", 0, thinking=room)) == asks
    for name in ("sft", "stic_stage1"):  # the latter on pairs that were given
        for stage in stages_of(name, data):
            assert stage_key(stage, data, "m", 0) == stage_key(stage, data, "m", 0, thinking=room)
    # What a plug-in's stage asks nobody knows.
    own = Stage("sft", 1, lambda context: None, {}, trains=True)
    assert stage_key(own, DATA, "m", 0) != stage_key(own, DATA, "m", 0, thinking=room)


def test_settings_below_training_are_the_runs_or_a_methods() -> None:
    built = config.load(
        flags={"methods": ["seva"]}, overrides=["training.images=single_tile", "training.learning_rate=0.5"]
    )
    assert built.training.images == "single_tile"
    assert built.method_options["seva"]["training"]["learning_rate"] == 0.5
    with pytest.raises(UserError, match=r'"training.imags"; did you mean "training.images"'):
        config.load(flags={"methods": ["stic"]}, overrides=["training.imags=single_tile"])
    with pytest.raises(UserError, match=r"^-o training.images 'tiles': input should be"):
        config.load(flags={"methods": ["stic"]}, overrides=["training.images=tiles"])


def test_a_limit_that_counts_text_is_another_stage_than_one_that_counted_images() -> None:
    versions = {
        limit: stages_of("sft", stage2={"max_length": limit})[0].version for limit in (None, 1024, 2048)
    }
    assert versions == {None: 1, 1024: 1, 2048: 2}  # the embedded model has 1024, and no row of that length
    assert keys("stic", stage1={"max_length": None}) == keys("stic")
    limited = keys("stic", stage1={"max_length": 448})
    assert [name for name in FOUR if limited[name] == keys("stic")[name]] == ["pairs"]


@pytest.mark.parametrize(
    "written_out",
    [
        {"iterations": 1, "reference": "base"},  # there is no later iteration
        {"stage1": {"fraction": 1, "chosen_prompt": "step_by_step", "filter": "none"}},
        {"stage1": {"similarity": 0.5, "length_ratio": 3}},  # no filter uses them
        {"stage1": {"rejected_logp": "label", "alpha_over": "sum"}},
        {"stage1": {"corruptions": {"jitter": 3, "low_res": 3, "blur": 0}}},
        {"stage2": {"fraction": 1.0}},
    ],
)
def test_what_changes_nothing_changes_no_key(written_out: dict[str, Any]) -> None:
    assert keys("stic", **written_out) == keys("stic")


def test_some_settings_count_only_where_they_act() -> None:
    def one(**stage1: Any) -> dict[str, str]:
        return keys("stic", stage1=stage1)

    assert one(p_corrupt=0) == one(p_corrupt=0, corruptions={"blur": 1})
    assert one(p_corrupt=0)["pairs"] != one()["pairs"]
    assert one(alpha=0) == one(alpha=0, alpha_over="token_mean")
    near = one(filter="near_duplicates")
    assert (
        near == one(filter="near_duplicates", length_ratio=4) != one(filter="near_duplicates", similarity=0.5)
    )
    even = one(filter="length_balance")
    assert (
        even == one(filter="length_balance", similarity=0.5) != one(filter="length_balance", length_ratio=4)
    )
    assert one(corruptions={"blur": 1, "low_res": 0}) == one(corruptions={"blur": 0.3})


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({"stage1": {"fraction": 0.5}}, ()),
        ({"stage1": {"chosen_prompt": "plain"}}, ()),
        ({"stage1": {"filter": "identical"}}, ()),
        ({"stage1": {"filter": "near_duplicates"}}, ()),
        ({"stage1": {"filter": "length_balance"}}, ()),
        ({"stage1": {"corruptions": {"low_res": 1, "jitter": 0}}}, ()),
        ({"stage1": {"rejected_logp": "runner_up"}}, FOUR[:1]),
        ({"stage1": {"alpha_over": "token_mean"}}, FOUR[:1]),
        ({"stage1": {"beta": 0.5}}, FOUR[:1]),
        ({"lora": {"r": 64}}, FOUR[:1]),
        ({"stage2": {"fraction": 0.5}}, FOUR[:2]),
        ({"stage2": {"items": 7}}, FOUR[:2]),
        ({"stage2": {"infusion": "shuffled"}}, FOUR[:3]),
    ],
)
def test_an_axis_changes_its_stage_and_what_follows(options: dict[str, Any], same: tuple[str, ...]) -> None:
    before, after = keys("stic"), keys("stic", **options)
    assert list(after) == list(FOUR)
    assert tuple(name for name in before if before[name] == after[name]) == same


# ---------------------------------------------------------------- parts of the data


@given(asked=st.integers(1, 10_000), available=st.integers(1, 10_000), parts=st.integers(1, 1000))
def test_a_part_is_the_smallest_number_that_is_one(asked: int, available: int, parts: int) -> None:
    fraction = parts / 1000
    taken = share(asked, fraction, available)
    if parts == 1000:
        assert taken == asked
    else:
        exact = Fraction(parts, 1000) * min(asked, available)
        assert exact <= taken < exact + 1
        assert 1 <= taken <= min(asked, available)


def test_half_of_the_images_is_the_run_with_half_as_many() -> None:
    assert keys("stic", stage1={"images": 40, "fraction": 0.25}) == keys("stic", stage1={"images": 10})
    assert keys("stic", stage2={"items": 20, "fraction": 0.3}) == keys("stic", stage2={"items": 6})
    # Ten percent of 30 is three, though 0.1 * 30 is a little more to a computer.
    assert keys("sft", stage2={"items": 20, "fraction": 0.15}) == keys("sft", stage2={"items": 3})
    # Of fewer than asked for, it is half of what there is.
    assert keys("stic", stage1={"images": 6000, "fraction": 0.5}) == keys("stic", stage1={"images": 20})
    pairs, *_ = stages_of("stic", stage1={"images": 6000, "fraction": 0.5})
    assert (pairs.params["images"], pairs.generations) == (20, 40)
    _, preference, *_ = stages_of("stic", stage1={"fraction": 0.25, "batch_size": 3})
    assert preference.steps == 4


def test_of_a_part_the_whole_is_read() -> None:
    overrides = ["stage1.images=30", "stage1.fraction=0.1", "stic.stage2.items=8", "stage2.fraction=0.5"]
    built = config.load(flags={"model": "a/b", "methods": ["stic"]}, overrides=overrides)
    assert inputs.needs(built) == {"images": 30, "sft": 8}


def test_no_items_means_no_stage_2() -> None:
    none: dict[str, Any] = {"stage2": {"items": 0}}
    assert list(keys("stic", **none)) == ["pairs", "preference"]
    assert keys("stic", **none) == keys("stic", stage2={"use": False})
    assert list(keys("positive_only", **none)) == ["pairs", "positive_sft"]
    assert keys("sft", **none) == {}
    built = config.load(flags={"model": "a/b", "methods": ["stic"]}, overrides=["stage2.items=0"])
    assert inputs.needs(built) == {"images": 6000}


# ---------------------------------------------------------------- pairs


def pairs_of(images: int = 60, iteration: int = 1, **settings: Any) -> list[Any]:
    return list(pair_requests(refs(images), PROMPTS, PairSettings(**settings), 0, iteration))


@given(
    mix=st.dictionaries(st.sampled_from(sorted(CORRUPTIONS)), st.integers(0, 9), min_size=1).filter(
        lambda mix: any(mix.values())
    ),
    scale=st.sampled_from([0.1, 3.0, 7.0, 1e6]),
)
def test_weights_are_shares_of_any_scale(mix: dict[str, float], scale: float) -> None:
    settings = PairSettings(corruptions=mix, p_corrupt=1)
    scaled = PairSettings(corruptions={k: v * scale for k, v in mix.items()}, p_corrupt=1)
    assert settings.mix == scaled.mix
    assert sum(settings.mix.values()) == pytest.approx(1)
    assert set(settings.mix) == {kind for kind, weight in mix.items() if weight}
    one, other = (list(pair_requests(refs(5), PROMPTS, s, 0)) for s in (settings, scaled))
    assert [p.negative for p in one] == [p.negative for p in other]


def test_without_corruption_their_mix_asks_the_same() -> None:
    one, other = (pairs_of(p_corrupt=0, corruptions=mix) for mix in ({"blur": 1}, {"noise": 1, "crop": 2}))
    assert one == other


def test_the_preferred_answer_can_be_asked_for_by_the_same_prompt() -> None:
    usual, plain = pairs_of(), pairs_of(chosen_prompt="plain")
    assert all(pair.chosen.messages[0].text == pair.prompt for pair in plain)
    assert {pair.chosen.messages[0].text for pair in usual} == {PROMPTS.step_by_step}
    # Nothing else moves: prompts, dispreferred sides and seeds are the same draws.
    assert [replace(p, chosen=q.chosen) for p, q in zip(plain, usual, strict=True)] == usual


def test_an_iteration_draws_anew() -> None:
    first, second, third = (pairs_of(iteration=i) for i in (1, 2, 3))
    assert first == pairs_of()
    for one, other in ((first, second), (second, third), (first, third)):
        asked = [{request_key(r) for p in pairs for r in (p.chosen, p.rejected)} for pairs in (one, other)]
        assert not asked[0] & asked[1]
        assert [p.prompt for p in one] != [p.prompt for p in other]
        assert [p.negative for p in one] != [p.negative for p in other]


ANSWERS = st.text(alphabet="ab c", max_size=30)


@given(good=ANSWERS, bad=ANSWERS)
def test_filters_look_at_both_answers_alike(good: str, bad: str) -> None:
    for kind in ("none", "identical", "near_duplicates", "length_balance"):
        settings = PairSettings(filter=kind)
        assert is_filtered(good, bad, settings) == is_filtered(bad, good, settings)
        assert is_filtered(good, good, settings) == (kind in ("identical", "near_duplicates"))
    assert not is_filtered(good, bad, PairSettings())
    if is_filtered(good, bad, PairSettings(filter="identical")):
        assert is_filtered(good, bad, PairSettings(filter="near_duplicates", similarity=1))


@pytest.mark.parametrize(
    ("settings", "good", "bad", "dropped"),
    [
        ({"filter": "near_duplicates"}, "a" * 100, "a" * 95 + "b" * 5, True),
        ({"filter": "near_duplicates"}, "a" * 100, "a" * 94 + "b" * 6, False),
        ({"filter": "near_duplicates", "similarity": 0.5}, "aaaa", "aabb", True),
        ({"filter": "length_balance"}, "one two three", "one two", False),  # 1.5 times, and no more
        ({"filter": "length_balance"}, "one two three four", "one two", True),
        ({"filter": "length_balance"}, "short", "a  much\nlonger one", True),
        ({"filter": "length_balance", "length_ratio": 4}, "short", "a  much\nlonger one", False),
        ({"filter": "length_balance"}, "", "word", True),
        ({"filter": "length_balance"}, "", " ", False),
    ],
)
def test_filters_drop_what_they_say(settings: dict[str, Any], good: str, bad: str, dropped: bool) -> None:
    assert is_filtered(good, bad, PairSettings(**settings)) is dropped


# ---------------------------------------------------------------- iterations


def test_each_iteration_is_made_by_the_last_and_goes_on_from_it() -> None:
    made = stages_of("stic", iterations=3)
    names = Counter(stage.name for stage in made)
    assert names == {"pairs": 3, "preference": 3, "descriptions": 1, "infused_sft": 1}
    pairs = [stage for stage in made if stage.name == "pairs"]
    trained = [stage for stage in made if stage.name == "preference"]
    assert [stage.needs for stage in pairs] == [(), (trained[0],), (trained[1],)]
    assert [stage.needs for stage in trained] == [
        (pairs[0],), (pairs[1], trained[0]), (pairs[2], trained[1]),
    ]  # fmt: skip
    assert made[-1].needs[1] is trained[2]
    assert len({stage_key(stage, DATA, "model", 0) for stage in made}) == 8


def test_iterations_share_their_beginning_and_the_reference_matters_from_the_second_on() -> None:
    def found(**options: Any) -> list[str]:
        return [stage_key(stage, DATA, "model", 0) for stage in stages_of("stic_stage1", **options)]

    one, two, three = found(), found(iterations=2), found(iterations=3)
    assert three[:4] == two
    assert two[:2] == one
    held = found(iterations=3, reference="base")
    assert [a == b for a, b in zip(three, held, strict=True)] == [True] * 3 + [False] * 3
    assert found(reference="base") == one


# ---------------------------------------------------------------- describe and respond


def test_the_description_can_be_asked_for_in_another_role(tmp_path: Path) -> None:
    prompts = tmp_path / "mine.yaml"
    prompts.write_text("step_by_step: Look.\nplain: [Plainly., Short.]\nmisleading: [Invent., Dream.]\n")

    def asked(*overrides: str) -> str:
        flags = {"model": "a/b", "methods": ["baseline"], "prompts": prompts}
        return first(config.load(flags=flags, overrides=list(overrides)))

    assert asked() == asked("dar.prompt_role=plain") == "Plainly."
    assert asked("dar.prompt_role=step_by_step") == "Look."
    assert asked("dar.prompt_role=misleading") == "Invent."
    assert asked("dar.prompt_role=misleading", "dar.prompt=Tell me.") == "Tell me."


def test_another_role_is_another_evaluation_with_descriptions_alone(tmp_path: Path) -> None:
    benchmark = registry.benchmarks().get("textvqa")

    def key(dar: bool, *overrides: str) -> str:
        built = config.load(flags={"methods": ["baseline"], "dar": True}, overrides=list(overrides))
        variant = variants.variants(built, NOTHING)[dar]
        assert variant.solver.suffix == ("dar" if dar else "")
        return evaluation_keys(built, benchmark, variant, "model", None)[0]

    assert key(True) != key(True, "dar.prompt_role=misleading")
    assert key(False) == key(False, "dar.prompt_role=misleading")


def test_another_id_of_the_same_commit_is_the_same_evaluation() -> None:
    benchmark = registry.benchmarks().get("textvqa")
    source = benchmark.source

    def key(source: HubData) -> str:
        built = config.load(flags={"model": "a/b", "methods": ["baseline"]})
        (variant,) = variants.variants(built, NOTHING)
        return evaluation_keys(built, replace(benchmark, source=source), variant, "model", None, "x")[0]

    known = key(source)
    older = HubId("someone/textvqa", source.revision)
    assert key(replace(source, former=(*source.former, older))) == known
    moved = HubId(source.path, source.revision)
    assert key(replace(source, path="now/textvqa", former=(moved, *source.former))) == known
    assert key(replace(source, split="test")) != known
    assert key(replace(source, name="other")) != known
    assert key(replace(source, revision="0" * 40)) != known
    # What a branch holds depends on whose it is.
    branch = key(replace(source, revision="main", former=()))
    assert branch not in (known, key(replace(source, path="now/textvqa", revision="main", former=())))


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("stage1.fraction=0", "greater than 0"),
        ("stage1.fraction=1.5", "less than or equal to 1"),
        ("stage2.fraction=.nan", "less than or equal to 1"),
        ("stage2.items=-1", "greater than or equal to 0"),
        ("stage1.chosen_prompt=bad", "'step_by_step' or 'plain'"),
        ("stage1.filter=same", "'near_duplicates'"),
        ("stage1.similarity=2", "less than or equal to 1"),
        ("stage1.length_ratio=0.5", "greater than or equal to 1"),
        ("stage1.length_ratio=.inf", "finite"),
        ("stage1.alpha_over=mean", "'token_mean'"),
        ("stage1.rejected_logp=top2", "'runner_up'"),
        ("stage1.corruptions.fog=1", "fog is not a corruption"),
        ("stage1.corruptions.blur=.nan", "blur is no number"),
        ("stage1.corruptions={low_res: 0, jitter: 0}", "above 0"),
        ("iterations=0", "greater than or equal to 1"),
        ("reference=first", "'previous' or 'base'"),
        ("dar.prompt_role=good", "'plain', 'step_by_step' or 'misleading'"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_flag(setting: str, said: str) -> None:
    path = setting.partition("=")[0]
    path = "stage1.corruptions" if path.startswith("stage1.corruptions") else path
    named = path if path.startswith("dar.") else f"stic.{path}"
    with pytest.raises(UserError) as caught:
        config.load(flags={"methods": ["stic"]}, overrides=[setting])
    message = str(caught.value)
    assert message.startswith(f"-o {named} "), message
    assert said in message
    assert "\n" not in message


# ---------------------------------------------------------------- the document


def rows() -> list[list[str]]:
    lines = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def default_of(path: str) -> Any:
    owner: type[BaseModel] = (
        RunConfig if path.startswith(("dar.", "training.")) else registry.methods().get("stic").config
    )
    value: Any = SimpleNamespace(dar=SimpleNamespace(**RunConfig().dar)) if path[:4] == "dar." else owner()
    for part in path.split("."):
        value = getattr(value, part)
    return value


def test_the_document_has_every_axis_with_its_default() -> None:
    axes = {row[0].strip("`"): row for row in rows() if len(row) == 6}
    for path, row in axes.items():
        written, default = yaml.safe_load(row[1].strip("`")), default_of(path)
        # YAML 1.1 takes 1e-07 for a text.
        assert (float(written) if isinstance(default, float) else written) == default, path
    known = set(config_layers.paths(registry.methods().get("stic").config))
    known |= {path for path in setting_paths.paths() if path.startswith(("dar.", "training."))}
    known -= {"stage1", "stage2", "lora"}
    # How AdamW's rate moves and how long answers get is no axis of the method.
    minor = (
        r"stage[12]\.(warmup_ratio|scheduler|weight_decay)|stage2\.(epochs|top_p|max_new_tokens)|dar\.max.*"
    )
    assert {path for path in known if not re.fullmatch(minor, path)} == set(axes)
    methods = {row[0].strip("`") for row in rows() if len(row) == 3}
    assert methods == {"stic_stage1", "positive_only", "sft"}
    assert math.isclose(default_of("stage1.alpha"), 1 / 1024)
    assert json.loads(json.dumps(default_of("stage1.corruptions"))) == {"low_res": 0.5, "jitter": 0.5}


def test_weights_that_are_given_are_all_there_are(tmp_path: Path) -> None:
    def weights(**given: Any) -> object:
        return config.load(**given).method_options["stic"]["stage1"]["corruptions"]

    assert weights() == {"low_res": 0.5, "jitter": 0.5}
    assert weights(overrides=["stage1.corruptions={blur: 1}"]) == {"blur": 1.0}
    assert weights(overrides=["stic.stage1.corruptions={blur: 1}"]) == {"blur": 1.0}
    assert weights(overrides=["stage1.corruptions.blur=1"]) == {"low_res": 0.5, "jitter": 0.5, "blur": 1.0}
    file = tmp_path / "mine.yaml"
    file.write_text("method_options: {stic: {stage1: {corruptions: {blank: 1}}}}")
    assert weights(file=file) == {"blank": 1.0}
