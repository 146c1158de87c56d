"""Conversation profiles: which checkpoint gets which, what settings change, and what keys say of it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from stic_eval import config, profiles
from stic_eval.engines.openai import OpenAIEngine
from stic_eval.errors import UserError
from stic_eval.experiment.progress import Reporter
from stic_eval.experiment.resources import Resources
from stic_eval.models import profile_detection
from stic_eval.models.profile_detection import certain, profile_of
from stic_eval.settings import RunConfig
from stic_eval.store import content_key
from tests.support import published
from tests.support.zoo import FAMILIES


@pytest.mark.parametrize(
    ("kind", "decoder", "template", "name"),
    [
        ("llava", "vicuna-7b", published.VICUNA, "llava-1.5"),
        ("llava", "vicuna-13b", published.VICUNA, "llava-1.5"),
        ("llava_next", "vicuna-7b", published.VICUNA, "llava-1.6-vicuna"),
        ("llava_next", "vicuna-13b", published.VICUNA, "llava-1.6-vicuna"),
        ("llava_next", "mistral-7b", published.MISTRAL, "llava-1.6-mistral"),
    ],
)
def test_a_published_llava_gets_its_profile(
    kind: str, decoder: str, template: str, name: str, tmp_path: Path
) -> None:
    assert certain(str(published.configuration(tmp_path, kind, decoder, template)), None) == name


@pytest.mark.parametrize(
    ("kind", "decoder", "template"),
    [
        ("llava_next", "yi-34b", published.CHATML),
        ("llava_next", "llama3-8b", published.LLAMA3),
        ("llava", "llama3-8b", published.LLAMA3),
        # With one of the four alike in all but one:
        ("llava", "mistral-7b", published.VICUNA),  # BakLLaVA
        ("llava_next", "mistral-7b", published.VICUNA),
        ("llava_next", "vicuna-7b", published.MISTRAL),
        ("llava", "yi-34b", published.VICUNA),
        ("llava", "vicuna-7b", published.CHATML),  # Phi-3's vocabulary has this size, too
        ("llava", "vicuna-7b", "{{ raise_exception('no') }}"),
        ("llava", "vicuna-7b", "{% if"),
    ],
)
def test_where_one_of_four_does_not_fit_there_is_none(
    kind: str, decoder: str, template: str, tmp_path: Path
) -> None:
    assert certain(str(published.configuration(tmp_path, kind, decoder, template)), None) is None


def test_an_image_token_elsewhere_is_another_vocabulary(tmp_path: Path) -> None:
    folder = published.configuration(tmp_path, "llava", "vicuna-7b", published.VICUNA, image=32010)
    assert certain(str(folder), None) is None


@pytest.mark.parametrize("name", ["llava", "llava_next", "llava_onevision", "vipllava", "qwen2_vl"])
def test_other_families_keep_their_own_conversation(name: str, tmp_path: Path) -> None:
    assert certain(str(FAMILIES[name].build(tmp_path)), None) is None


def test_the_embedded_model_keeps_its_own_and_its_keys(tmp_path: Path) -> None:
    built = config.load()
    assert profile_of(built) is None
    resources = Resources(built, Reporter(None, quiet=True), tmp_path)
    assert resources.fingerprint == content_key([resources.engine.model, resources.engine.dtype])


@pytest.mark.parametrize("at", ["chat_template.jinja", "chat_template.json", "tokenizer_config.json"])
def test_the_template_is_found_wherever_checkpoints_have_it(at: str, tmp_path: Path) -> None:
    folder = published.configuration(tmp_path, "llava", "vicuna-7b", published.VICUNA, at=at)
    assert certain(str(folder), None) == "llava-1.5"


def test_of_a_hub_model_the_cached_files_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--some--llava"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    published.configuration(repository / "snapshots" / ("a" * 40), "llava", "vicuna-7b", published.VICUNA)
    published.configuration(repository / "snapshots" / ("b" * 40), "llava", "vicuna-7b", published.CHATML)
    assert certain("some/llava", None) == "llava-1.5"
    assert certain("some/llava", "b" * 40) is None
    assert certain("some/other", None) is None  # which its fingerprint refuses


def test_the_template_that_the_processor_would_take_decides(tmp_path: Path) -> None:
    folder = published.configuration(
        tmp_path, "llava", "vicuna-7b", published.VICUNA, at="tokenizer_config.json"
    )
    (folder / "chat_template.jinja").write_text(published.CHATML)
    assert certain(str(folder), None) is None


def test_marks_of_what_the_model_says_are_passed_over(tmp_path: Path) -> None:
    marked = "{% generation %}{% endgeneration %}" + published.VICUNA
    folder = published.configuration(tmp_path, "llava", "vicuna-7b", marked)
    assert certain(str(folder), None) == "llava-1.5"


# ---------------------------------------------------------------- settings


def llava(tmp_path: Path, **settings: object) -> RunConfig:
    folder = published.configuration(tmp_path, "llava", "vicuna-7b", published.VICUNA)
    return config.load(flags={"model": str(folder), **settings})


def test_settings_stand_above_the_profile(tmp_path: Path) -> None:
    asked = profile_of(llava(tmp_path))
    assert asked == profiles.SHIPPED["llava-1.5"] and not asked.changed
    own = profile_of(
        llava(tmp_path, conversation={"system_prompt": "Be brief."}, processor={"do_pad": False})
    )
    assert own is not None and own.changed
    assert (own.system_prompt, own.processor) == ("Be brief.", {"do_pad": False})
    assert own.chat_template == profiles.TEMPLATES["vicuna_v1"]
    without = profile_of(llava(tmp_path, conversation={"system_prompt": ""}))
    assert without is not None and without.system_prompt == ""


def test_none_leaves_the_conversation_to_the_checkpoint(tmp_path: Path) -> None:
    assert profile_of(llava(tmp_path, conversation={"profile": "none"})) is None
    own = profile_of(llava(tmp_path, conversation={"profile": "none", "system_prompt": "Be brief."}))
    assert own is not None
    assert own.content == {"system_prompt": "Be brief."}
    assert own.title == 'own conversation, changed (system prompt "Be brief.")'


def test_a_profile_that_is_named_holds_for_any_checkpoint(tmp_path: Path) -> None:
    folder = published.configuration(tmp_path, "llava_next", "mistral-7b", published.MISTRAL)
    built = config.load(flags={"model": str(folder), "conversation": {"profile": "llava-1.6-vicuna"}})
    assert profile_of(built) == profiles.SHIPPED["llava-1.6-vicuna"]


def test_a_template_is_its_text_wherever_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(profiles.TEMPLATES["vicuna_v1"])
    by_file = config.load(flags={"conversation": {"chat_template": str(file)}})
    by_name = config.load(flags={"conversation": {"chat_template": "vicuna_v1"}})
    assert by_file.conversation == by_name.conversation
    assert by_file.key == by_name.key != config.load().key
    saved = tmp_path / "config.yaml"
    saved.write_text(by_file.to_yaml())
    file.unlink()
    assert config.load(file=saved).conversation == by_file.conversation


def test_texts_that_end_answers_are_part_of_it(tmp_path: Path) -> None:
    asked = profile_of(llava(tmp_path, conversation={"stop": "###"}))
    assert asked is not None
    assert (asked.stop, asked.changed) == (("###",), True)
    assert asked.content["stop"] == ["###"] and "answers end at '###'" in asked.title
    alone = profile_of(config.load(overrides=["conversation.stop=['A:', 'B:']"]))
    assert alone is not None and alone.content == {"stop": ["A:", "B:"]}
    server = [config.load(flags={**SERVER, "conversation": own}) for own in ({}, {"stop": "###"})]
    engines = [OpenAIEngine(built, lambda name: nullcontext(), lambda: False) for built in server]
    assert len({engine.fingerprint("m") for engine in engines}) == 2
    with pytest.raises(UserError, match=r"-o conversation\.stop.*an empty text would end every answer"):
        config.load(flags={"conversation": {"stop": ""}})


def test_what_is_no_template_or_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--chat-template nowhere\.jinja: No such file.*vicuna_v1"):
        config.load(flags={"conversation": {"chat_template": "nowhere.jinja"}})
    empty = tmp_path / "empty.jinja"
    empty.write_text("nothing")
    with pytest.raises(UserError, match="--chat-template 'nothing': is not a template"):
        config.load(flags={"conversation": {"chat_template": str(empty)}})
    with pytest.raises(UserError, match=r"--profile 'llava-15': give one of auto, none, llava-1\.5"):
        config.load(flags={"conversation": {"profile": "llava-15"}})


def test_the_run_key_has_what_is_set() -> None:
    plain = config.load()
    keys = {
        config.load(flags={"conversation": {"profile": "llava-1.5"}}).key,
        config.load(flags={"conversation": {"system_prompt": "Be brief."}}).key,
        config.load(overrides=["processor.do_pad=true"]).key,
        plain.key,
    }
    assert len(keys) == 4
    assert config.load(flags={"conversation": {"profile": "auto"}}).key == plain.key


SERVER = {
    "model": "m",
    "engine": "openai",
    "server": {"base_url": "http://localhost:1/v1"},
    "methods": "baseline",
}


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"conversation": {"profile": "llava-1.5"}}, "--profile llava-1.5"),
        ({"conversation": {"chat_template": "vicuna_v1"}}, "--chat-template"),
        ({"processor": {"do_pad": True}}, r"-o processor\.do_pad"),
    ],
)
def test_a_server_writes_conversations_itself(settings: dict[str, object], flag: str) -> None:
    with pytest.raises(UserError, match=f"^{flag}: the server writes conversations"):
        config.load(flags={**SERVER, **settings})


def test_of_a_preset_a_server_leaves_the_profile_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_detection, "checkpoint_file", lambda *of: None)  # else the hub is asked
    built = config.load(preset="paper-llava-1.6", flags=SERVER)
    assert built.conversation.profile == "auto" and profile_of(built) is None
    asked = profile_of(config.load(flags={**SERVER, "conversation": {"system_prompt": "Be brief."}}))
    assert asked is not None and asked.content == {"system_prompt": "Be brief."}


PRESETS = {
    "paper-llava-1.5": "llava-1.5",
    "paper-llava-1.6": "llava-1.6-mistral",
    "paper-llava-1.6-13b": "llava-1.6-vicuna",
}


def test_presets_of_the_paper_name_their_profile() -> None:
    assert {name: config.load(preset=name).conversation.profile for name in PRESETS} == PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_a_presets_profile_is_for_its_own_model(preset: str) -> None:
    for model in ("llava-hf/llava-onevision-qwen2-7b-ov-hf", "Qwen/Qwen2.5-VL-7B-Instruct"):
        assert config.load(preset=preset, flags={"model": model}).conversation.profile == "auto"
        named = {"model": model, "conversation": {"profile": "llava-1.6-vicuna"}}
        assert config.load(preset=preset, flags=named).conversation.profile == "llava-1.6-vicuna"
        off = config.load(preset=preset, flags={"model": model}, overrides=["conversation={profile: none}"])
        assert off.conversation.profile == "none"
