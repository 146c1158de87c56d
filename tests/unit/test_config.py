"""RunConfig: layers, overrides, and one clear line for whatever does not fit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from stic_eval import config, given_layers, registry
from stic_eval.errors import UserError
from stic_eval.settings import RunConfig


class Stage1(BaseModel):
    model_config = ConfigDict(extra="forbid")
    beta: float = 0.1
    learning_rate: float = 1e-7


class SticOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    stage1: Stage1 = Stage1()
    seed_prompt: str | None = None


class SftOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    epochs: int = 1


class Known:
    """Stands in for a registry: known names, each with its options."""

    def __init__(self, kind: str, known: dict[str, Any]) -> None:
        self.kind, self.known = kind, known

    def names(self) -> list[str]:
        return list(self.known)

    own = names

    def file(self, name: str) -> None:
        return None

    def has_family(self, name: str) -> bool:
        return False

    def get(self, name: str) -> Any:
        if name not in self.known:
            raise UserError(f'no {self.kind} is called "{name}"{registry.suggest(name, self.known)}')
        return SimpleNamespace(name=name, config=self.known[name], options=None, vary=None, presets={})


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = Known("method", {"baseline": SftOptions, "stic": SticOptions, "sft": SftOptions})
    benchmarks = Known("benchmark", dict.fromkeys(["scienceqa", "textvqa", "mmbench"]))
    monkeypatch.setattr(registry, "methods", lambda: methods)
    monkeypatch.setattr(registry, "benchmarks", lambda: benchmarks)
    presets = {
        "pocket": {"method_options": {"stic": {"stage1": {"beta": 0.3, "learning_rate": 1e-4}}}, "dar": True},
        "paper": {"limit": 10},
    }
    monkeypatch.setattr(given_layers, "read_preset", lambda name: presets[name])


def load(*overrides: str, file: Path | None = None, preset: str | None = None, **flags: Any) -> RunConfig:
    return config.load(preset=preset, file=file, flags=flags, overrides=overrides)


def test_the_pocket_model_brings_its_preset_and_another_model_does_not() -> None:
    assert load().preset == "pocket"
    assert load().method_options["stic"]["stage1"]["beta"] == 0.3
    assert load(model="some/model").preset is None
    assert load(model="some/model").method_options["stic"]["stage1"]["beta"] == 0.1


def test_later_layers_win_and_leave_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("limit: 7\nseeds: [1, 2]\nmethod_options: {stic: {stage1: {beta: 0.4}}}\n")
    built = load("stic.stage1.learning_rate=5e-4", file=file, limit="9")
    assert built.limit == 9
    assert built.seeds == (1, 2)
    assert built.method_options["stic"]["stage1"] == {"beta": 0.4, "learning_rate": 5e-4}
    assert built.dar["use"] is True


def test_a_bare_path_goes_to_every_method_that_has_it() -> None:
    built = load("stage1.beta=0.05", methods=["stic", "sft"])
    assert built.method_options["stic"]["stage1"]["beta"] == 0.05
    assert built.method_options["sft"] == {"epochs": 1}


def test_run_paths_are_reached_with_dots() -> None:
    built = load(r'dar.separator="\n\n"', "rows.mmbench=/data/mmbench", "limit=0.5")
    assert built.dar["separator"] == "\n\n"
    assert built.dar["use"] is True
    assert built.rows_of("mmbench") == "/data/mmbench"
    assert built.rows_of("textvqa") == "pocket"
    assert built.limit == 0.5
    assert load(model="a/b").rows_of("textvqa") == "hub"
    assert load("rows=pocket", model="a/b").rows_of("textvqa") == "pocket"


def test_options_below_method_options_are_those_of_the_method() -> None:
    short, long = load("stic.stage1.beta=0.05"), load("method_options.stic.stage1.beta=0.05")
    assert short == long == load("method_options={stic: {stage1: {beta: 0.05}}}")
    assert short.method_options["stic"]["stage1"]["beta"] == 0.05


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    built = load(
        "rows.mmbench=~/rows.tsv", images=Path("~/photos"), image_root=Path("~"), output=Path("~/run")
    )
    assert (built.images, built.image_root, built.folder) == (tmp_path / "photos", tmp_path, tmp_path / "run")
    assert built.rows_of("mmbench") == str(tmp_path / "rows.tsv")


def test_names_split_at_commas_and_all_means_all() -> None:
    assert load(benchmarks="mmbench, textvqa").benchmarks == ("mmbench", "textvqa")
    assert load().benchmarks == ("scienceqa", "textvqa", "mmbench")
    assert load(methods=["stic,sft", "stic"]).methods == ("stic", "sft")


def test_what_is_saved_is_read_back_as_it_was(tmp_path: Path) -> None:
    built = load("stage1.beta=0.07", methods=["stic", "sft"], seeds=[3, 4], limit="0.25", images=Path("a/b"))
    file = tmp_path / "config.yaml"
    file.write_text(built.to_yaml())
    again = config.load(file=file)
    assert again == built
    assert again.name == built.name
    assert yaml.safe_load(built.to_yaml())["method_options"]["stic"]["stage1"]["beta"] == 0.07


def test_the_name_depends_on_what_decides_the_numbers_alone() -> None:
    name = load().name
    assert load(device="cpu", batch_size=3, output=Path("x")).name == name
    assert load(limit="5").name != name
    assert load("stage1.beta=0.2").name != name
    assert "/" not in load(model="/some/where/llava 7b/").name
    assert load(model="/some/where/llava 7b/").name.startswith("llava_7b-stic-")


def test_an_adapter_is_read_once_for_a_runs_key_and_again_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stic_eval import digests

    read: list[Path] = []
    sha256 = digests.file_sha256
    monkeypatch.setattr(digests, "file_sha256", lambda path: (read.append(path), sha256(path))[1])
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(b"one")
    built = load(adapters=(tmp_path,))
    keys = {built.key, built.key, built.name[-8:]}
    assert len(keys) == 2 and read == [weights]
    weights.write_bytes(b"other")
    assert built.key not in keys
    assert read == [weights, weights]


@pytest.mark.parametrize(
    ("overrides", "flags", "said"),
    [
        (["stage1.bta=1"], {}, ["stage1.bta", 'did you mean "stage1.beta"?']),
        (["stic.stage1.bta=1"], {}, ["stic.stage1.bta", "stage1.beta"]),
        (["limt=1"], {}, ["limt", 'did you mean "limit"?']),
        (["sft.epochs=2"], {}, ["sft", "--method sft"]),
        (["dar.separatr=x"], {}, ["dar.separatr", "separator"]),
        (["stage1.beta"], {}, ["key.sub=value"]),
        (["stage1.beta=high"], {}, ["stic.stage1.beta", "high", "number"]),
        (["stage1.beta={"], {}, ["not valid YAML"]),
        (["stage1.beta=2020-13-45"], {}, ["beta", "2020-13-45", "valid number"]),
        (["rows.mmbnch=pocket"], {}, ["-o rows.mmbnch", 'did you mean "mmbench"?']),
        (["rows={textvq: hub}"], {}, ["-o rows", 'did you mean "textvqa"?']),
        (["method_options.stic.stage1.bta=1"], {}, ["stic.stage1.bta", "stage1.beta"]),
        (["method_options={stic: {stage1: {bta: 1}}}"], {}, ["stic.stage1.bta", "stage1.beta"]),
        (["method_options.stik.stage1.beta=1"], {}, ["stik.stage1.beta"]),
        (["method_options.sft.epochs=2"], {}, ["sft", "--method sft"]),
        (["method_options=5"], {}, ["method_options", "dictionary"]),
        ([], {"limit": "0"}, ["--limit", "0"]),
        ([], {"limit": "-3"}, ["--limit", "-3"]),
        ([], {"limit": "1.5"}, ["--limit", "1.5"]),
        ([], {"limit": "many"}, ["--limit", "many"]),
        ([], {"batch_size": 0}, ["--batch-size"]),
        ([], {"dtype": "float31"}, ["--dtype", "float31"]),
        ([], {"seeds": [-1]}, ["--seed"]),
        ([], {"methods": ["stik"]}, ["stik", "stic"]),
        ([], {"benchmarks": "textvq"}, ["textvq", 'did you mean "textvqa"?']),
    ],
)
def test_what_does_not_fit_is_named(overrides: list[str], flags: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load(*overrides, **flags)
    assert all(part in str(caught.value) for part in said), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limt: 3", 'did you mean "limit"?'),
        ("method_options: {stic: {stage1: {bta: 1}}}", "stage1.bta"),
        ("method_options: {sft: {epoch: 1}}", "epochs"),
        ("method_options: {stic: 5}", "method_options.stic 5"),
        ("rows: {mmbnch: hub}", 'did you mean "mmbench"?'),
        ("1: 2", 'unknown option "1"'),
        ("method_options: {1: {a: 2}}", '"1"'),
        ("limit: !!timestamp soon", "not valid YAML"),
        ("- a", "key: value"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_bad_file_is_named_with_the_key(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load(file=file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--config .*none\.yaml"):
        load(file=tmp_path / "none.yaml")


def test_adapters_have_the_names_that_they_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1").mkdir()
    plain, named = (RunConfig.model_validate({"adapters": [one, "lr=1"]}) for one in ("a", "mine=a"))
    assert named.adapters == plain.adapters == (Path("a"), Path("lr=1"))
    assert [named.name_of_adapter(path) for path in named.adapters] == ["mine", "lr=1"]
    assert named.key == plain.key and named.name != plain.name
    assert RunConfig.model_validate(yaml.safe_load(named.to_yaml())) == named
    assert RunConfig.model_validate({"adapters": {"mine": "a"}}).adapter_names == {"a": "mine"}
    other = RunConfig.model_validate(
        {"adapters": ["b"], "adapter_names": {"a": "mine"}}
    )  # a flag over a file's settings
    assert other.adapter_names == {} and other.name_of_adapter(Path("b")) == "b"
