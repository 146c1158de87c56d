"""Losses and corruptions from outside: docs/extending.md as its reader would follow it, and mistakes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from stic_eval import config, plugins, registry
from stic_eval.cli.app import invoke
from stic_eval.contracts.method import Data
from stic_eval.errors import UserError
from stic_eval.experiment import variants
from stic_eval.selftrain.stage_runner import stage_key
from stic_eval.training.prompt_sets import load_prompts
from tests.support.command import run_command

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = {
    name: re.search(rf"<!-- file: {name} -->.*?```console\n\$ (.*?)\n```", PAGE, re.DOTALL)[1]  # type: ignore[index]
    for name in ("cdpo.py", "posterize.py")
}


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's files in a folder of their own, and no plug-ins of other tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(plugins.FOLDERS, raising=False)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    plugins.forget()
    yield
    plugins.forget()


def shell(command: str) -> str:
    program, *argv = shlex.split(command)
    assert program == "stic-eval"
    return run_command(*argv, at=Path.cwd())


def params(stage: str) -> dict[str, object]:
    (manifest,) = Path("cache/stages").glob(f"{stage}-*/manifest.json")
    return dict(json.loads(manifest.read_text())["params"])


def test_a_loss_takes_one_file() -> None:
    assert FILES["cdpo.py"].count("\n") <= 30
    assert "\npreference loss: cdpo\n" in shell(COMMANDS["cdpo.py"] + " --dry-run")
    shell(COMMANDS["cdpo.py"])
    assert params("preference")["loss"] == {"cdpo": {"weight": 1.0, "flipped": 0.2}}
    table = Path("results/cdpo/table.md").read_text()
    assert "Preference loss: cdpo instead of DPO's sigmoid (STIC, stage 1 only)." in table
    first = json.loads(
        next(Path("results/cdpo/training").glob("preference-*.jsonl")).read_text().splitlines()[0]
    )
    saved = yaml.safe_load(Path("results/cdpo/config.yaml").read_text())
    assert saved["plugins"] == [str(Path("cdpo.py").resolve())]
    # At the first step model and reference are one: log 2, less alpha's term on the preferred answers.
    alpha = saved["method_options"]["stic_stage1"]["stage1"]["alpha"]
    assert first["loss"] == pytest.approx(0.6931472 - alpha * first["logps/chosen"], rel=1e-4)


def test_a_corruption_takes_one_file() -> None:
    assert FILES["posterize.py"].count("\n") <= 30
    shell(COMMANDS["posterize.py"])
    assert params("pairs")["corruptions"] == {"blur": 0.5, "posterize": 0.5}
    shell("stic-eval export pairs results/posterize --to csv --output pairs")
    assert {"blur", "posterize"} == set(
        re.findall(r"\b(blur|posterize)\b", Path("pairs/pairs.csv").read_text())
    )
    shell("stic-eval report results/posterize")  # which executes no plug-in to show what it spoilt


@pytest.mark.campaign  # minutes
def test_an_ablation_has_them_as_values() -> None:
    small = "-o stage1.images=4 -o stage1.p_corrupt=1 --benchmarks chartqa --limit 2 --no-dar --jobs 2"
    given = "-o 'plugins=[./cdpo.py, ./posterize.py]'"
    vary = "--vary corruption=blur,posterize --vary loss=sigmoid,cdpo"
    shell(f"stic-eval ablate --method stic_stage1 {given} {vary} {small} --output results/grid")
    table = Path("results/grid/table.md").read_text()
    assert all(name in table for name in ("posterize", "cdpo"))
    assert "Preference loss: cdpo instead of DPO's sigmoid (STIC, stage 1 only in some rows)." in table


def keys(*options: str) -> dict[str, str]:
    plugins.forget()
    built = config.load(
        flags={"methods": ["stic"]}, overrides=["plugins=[./cdpo.py,./posterize.py]", *options]
    )
    data = Data((), (), "images", "sft", load_prompts())
    method = registry.methods().get("stic")
    made = method.plan(method.config.model_validate(built.method_options["stic"]), data)
    return {stage.name: stage_key(stage, data, "model", 0) for stage in variants.stages(made.adapter)}


@pytest.mark.parametrize(
    ("file", "option", "first"),
    [
        ("cdpo.py", "stage1.loss=cdpo", "preference"),
        ("posterize.py", "stage1.corruptions.posterize=1", "pairs"),
    ],
)
def test_the_content_of_the_file_is_in_the_keys_of_what_it_makes(file: str, option: str, first: str) -> None:
    plain, own = keys(), keys(option)
    assert next(name for name in plain if plain[name] != own[name]) == first
    Path(file).write_text(FILES[file] + "\n# another line\n")
    assert keys() == plain
    changed = keys(option)
    assert next(name for name in own if changed[name] != own[name]) == first


def test_a_corrupted_image_is_another_when_the_file_has_changed() -> None:
    from PIL import Image

    from stic_eval.images import corrupt, ref_from_pil

    image = ref_from_pil(Image.linear_gradient("L").convert("RGB"), "x")

    def spoilt() -> object:
        plugins.forget()
        registry.register("posterize.py", "-o plugins")
        return corrupt(image, registry.corruptions().get("posterize"))

    before = spoilt()
    assert set(before.load().getdata()) == {(value,) * 3 for value in (0, 64, 128, 192)}
    Path("posterize.py").write_text(FILES["posterize.py"].replace('"bits": 2', '"bits": 1'))
    assert spoilt().sha256 != before.sha256
    Path("posterize.py").write_text(FILES["posterize.py"] + "\n# another line\n")
    assert spoilt().sha256 != before.sha256


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'loss = Loss("ipo", compute, constants={"flipped": (0.1, 0, 1)})',
            'two losses are called "ipo"',
        ),
        ('loss = Loss("cdpo", 3)', "`loss`: compute is 3; it has to be a function"),
        (
            'loss = Loss("cdpo", compute, constants={"flipped": 0.1})',
            "`loss`: constants has to map a name to",
        ),
        ('loss = Loss("cdpo", compute)', "`loss`: compute does not take"),
        ("loss = compute", "`loss` is of type function; it has to be a Loss of"),
    ],
)
def test_what_is_wrong_with_a_loss_is_one_line(text: str, said: str) -> None:
    Path("cdpo.py").write_text(FILES["cdpo.py"].partition("loss = Loss")[0] + text + "\n")
    with pytest.raises(UserError) as caught:
        keys("stage1.loss=ipo")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_loss_that_looks_at_other_pairs_is_refused_before_any_is_made() -> None:
    text = FILES["cdpo.py"].replace("def compute", "def other")
    text = text.replace(
        "loss = Loss", "def compute(of, beta, flipped):\n    return of.margin.cumsum(0)\n\nloss = Loss"
    )
    Path("cdpo.py").write_text(text)
    with pytest.raises(UserError, match=r"^loss cdpo \(cdpo.py\): its value for a pair depends on more than"):
        keys("stage1.loss=cdpo")
    assert keys("stage1.loss=ipo")


def test_a_loss_that_raises_is_one_line_that_names_its_file_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = FILES["cdpo.py"].replace("def compute", "def other")
    text = text.replace(
        "loss = Loss", "def compute(of, beta, flipped):\n    return of.margins\n\nloss = Loss"
    )
    Path("cdpo.py").write_text(text)
    argv = shlex.split(COMMANDS["cdpo.py"])[1:]
    for more in (["--dry-run"], []):
        assert invoke([*argv, *more]) == 2
        assert re.fullmatch(
            r"stic-eval: loss cdpo \(cdpo.py\): cannot be computed on made-up pairs: cdpo.py, line \d+: "
            r"AttributeError: 'Logps' object has no attribute 'margins'.*\n", capsys.readouterr().err,
        )  # fmt: skip
        assert not Path("results").exists()


def test_a_corruption_is_not_called_what_pairs_call_a_prompt() -> None:
    Path("posterize.py").write_text(FILES["posterize.py"].replace('"posterize"', '"misleading"'))
    with pytest.raises(UserError, match=r'posterize.py, line 13: `corruption` is called "misleading", which'):
        keys()


def test_a_corruption_has_defaults() -> None:
    Path("posterize.py").write_text(FILES["posterize.py"].replace('{"bits": 2}', "None"))
    with pytest.raises(UserError, match="`corruption`: defaults has to map a parameter"):
        keys()


def test_a_constant_of_two_losses_fits_both() -> None:
    text = FILES["cdpo.py"].replace('"cdpo"', '"other"').replace("(0.1, 0, 0.5)", "(0.3, 0.2, 1)")
    Path("posterize.py").write_text(text)  # which `keys` registers
    both = "stage1.loss={cdpo: 1, other: 1}"
    assert keys(both, "stage1.loss_constants.flipped=0.4")
    for value, said in (("0.1", "above 0.2 and below 1"), ("0.7", "above 0 and below 0.5")):
        with pytest.raises(UserError, match=said):
            keys(both, f"stage1.loss_constants.flipped={value}")


def test_without_its_file_a_name_is_unknown_with_a_suggestion() -> None:
    with pytest.raises(
        UserError, match=r'^-o stic.stage1.loss .*cdpo is not a loss; did you mean "\w*apo_zero|ipo'
    ):
        config.load(flags={"methods": ["stic"]}, overrides=["stage1.loss=cdpo"])
    with pytest.raises(UserError, match='posterise is not a corruption; did you mean "posterize"'):
        keys("stage1.corruptions.posterise=1")
