"""What is broken is never measured: stages whose bytes have changed, adapters and weights without numbers."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import build_adapter, build_vlm
from tests.e2e.conftest import Done, Finished, Lab

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def own(lab: Lab, tmp_path: Path) -> Lab:
    return lab.at(tmp_path / "there")


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Lab:
    """A working directory with the cache of a finished run of STIC, and nothing else."""
    lab = finished.lab.at(tmp_path / "copy")
    shutil.copytree(finished.lab.folder / "cache", lab.folder / "cache")
    return lab


def again(lab: Lab, finished: Finished, *extra: str) -> Done:
    """The finished run's command line, in another place."""
    return lab.invoke(*finished.argv, "--output", "out", *extra)


def table(run: Path) -> dict[str, Any]:
    return json.loads((run / "table.json").read_text())  # type: ignore[no-any-return]


def numbers(run: Path) -> list[tuple[str, Any]]:
    return [(row["label"], row["cells"]) for row in table(run)["rows"]]


def note(run: Path, start: str) -> str:
    return next((note for note in table(run)["notes"] if note.startswith(start)), "")


def flip(path: Path) -> None:
    """Changes bytes in the middle of a file, and not its size."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8] = bytes(byte ^ 0x11 for byte in data[middle : middle + 8])
    path.write_bytes(bytes(data))


# ---------------------------------------------------------------- what is freed


def test_a_run_keeps_its_stages_in_the_cache_until_it_is_deleted(copied: Lab, finished: Finished) -> None:
    prune = ("cache", "prune", "--older-than", "0d", "--yes")
    shutil.rmtree(copied.folder / "cache" / "runs")  # the finished run needs its own cache, not this copy
    assert again(copied, finished, "-q").code == 0  # reads all there is
    stages = {path.name for path in copied.stages.iterdir()}
    assert copied.invoke(*prune).code == 0
    assert {path.name for path in copied.stages.iterdir()} == stages
    assert copied.invoke("rm", "out", "--yes").code == 0
    assert copied.invoke(*prune).code == 0
    assert not list(copied.stages.iterdir())


# ---------------------------------------------------------------- stages


def test_a_stage_whose_bytes_have_changed_is_made_anew(copied: Lab, finished: Finished) -> None:
    (stage,) = copied.done("infused_sft")
    sound = (stage / "adapter" / WEIGHTS).read_bytes()
    flip(stage / "adapter" / WEIGHTS)
    done = again(copied, finished)
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if "has changed since it was written" in line]
    assert f"{stage / 'adapter' / WEIGHTS}" in line
    assert (stage / "adapter" / WEIGHTS).read_bytes() == sound
    assert numbers(copied.folder / "out") == numbers(finished.folder)


def test_what_a_stage_is_made_of_is_looked_at_before(copied: Lab, finished: Finished) -> None:
    (pairs,), (adapter,), (last,) = (copied.done(n) for n in ("pairs", "preference", "infused_sft"))
    sound = (pairs / "pairs.parquet").read_bytes()
    flip(pairs / "pairs.parquet")
    shutil.rmtree(adapter)
    shutil.rmtree(last)
    done = again(copied, finished)
    assert (done.code, done.err.count("has changed since it was written")) == (0, 1), done.err
    assert (pairs / "pairs.parquet").read_bytes() == sound
    assert numbers(copied.folder / "out") == numbers(finished.folder)


def test_a_damaged_stage_is_not_exported(copied: Lab, finished: Finished) -> None:
    shutil.copytree(finished.folder, copied.folder / "run")
    (pairs,), (last,) = copied.done("pairs"), copied.done("infused_sft")
    flip(pairs / "pairs.parquet")
    flip(last / "adapter" / WEIGHTS)
    for argv in (("pairs", "run", "--to", "trl"), ("adapter", "run"), ("adapter", "run", "--merge")):
        done = copied.invoke("export", *argv, "--output", "exported")
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert "has changed since it was written); `stic-eval train --config" in done.err
        assert not (copied.folder / "exported").exists()


def test_manifests_without_digests_get_them_at_first_use_and_the_table_says_so(
    copied: Lab, finished: Finished
) -> None:
    (last,) = copied.done("infused_sft")
    manifest = json.loads((last / "manifest.json").read_text())
    recorded = manifest.pop("sha256")
    assert set(recorded) == set(manifest["files"])
    (last / "manifest.json").write_text(json.dumps(manifest))
    done = again(copied, finished)
    assert (done.code, done.err.count("kept without digests")) == (0, 1), done.err
    assert json.loads((last / "manifest.json").read_text())["sha256"] == recorded
    assert f"infused_sft ({last.name.rpartition('-')[2]}) were taken at their first use" in note(
        copied.folder / "out", "Cache:"
    )
    assert not note(finished.folder, "Cache:")
    flip(last / "adapter" / WEIGHTS)
    assert "has changed since it was written" in again(copied, finished, "--limit", "2", "--output", "x").err


# ---------------------------------------------------------------- costs


def test_the_cost_of_lost_stages_is_still_known(copied: Lab, finished: Finished) -> None:
    for name in ("pairs", "preference", "descriptions"):
        (stage,) = copied.done(name)
        shutil.rmtree(stage)
    assert again(copied, finished, "-q").code == 0
    cost = note(copied.folder / "out", "Training cost")
    assert cost == note(finished.folder, "Training cost")
    assert "STIC 16 generations" in cost  # 6 images twice, 4 items


def test_a_cost_that_nobody_has_recorded_is_unknown(copied: Lab, finished: Finished) -> None:
    (pairs,), (last,) = copied.done("pairs"), copied.done("infused_sft")
    shutil.rmtree(pairs)
    for stage in (last, *copied.done("preference"), *copied.done("descriptions")):
        manifest = json.loads((stage / "manifest.json").read_text())
        del manifest["came_from"]  # as an earlier version has it
        (stage / "manifest.json").write_text(json.dumps(manifest))
    assert again(copied, finished, "-q").code == 0
    cost = note(copied.folder / "out", "Training cost")
    assert cost == "Training cost of a seed: STIC unknown (the cache has lost pairs)."


# ---------------------------------------------------------------- adapters


def set_first(value: float) -> Callable[[Path], str]:
    """Puts a value into an adapter's first tensor; gives what has to be named."""

    def spoil(folder: Path) -> str:
        weights = load_file(folder / WEIGHTS)
        name = min(weights)
        weights[name].flat[3] = value
        save_file(weights, folder / WEIGHTS, {"format": "pt"})
        return f"{WEIGHTS}: tensor {name} holds"

    return spoil


def in_bfloat16(folder: Path) -> str:
    import torch
    from safetensors.torch import load_file as load
    from safetensors.torch import save_file as save

    weights = {name: value.bfloat16() for name, value in load(folder / WEIGHTS).items()}
    name = max(weights)
    weights[name].view(-1)[-1] = torch.inf
    save(weights, folder / WEIGHTS)
    return f"{WEIGHTS}: tensor {name} holds infinite"


def scaled(value: float) -> Callable[[Path], str]:
    def spoil(folder: Path) -> str:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": value}))
        return "adapter_config.json: lora_alpha is"

    return spoil


BROKEN = {
    "nan": set_first(np.nan), "inf": set_first(-np.inf), "1e38": set_first(1e38), "bfloat16": in_bfloat16,
    "alpha nan": scaled(np.nan), "alpha inf": scaled(np.inf), "alpha 1e38": scaled(1e38),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_an_adapter_without_numbers_is_refused_before_anything_is_asked(
    own: Lab, tmp_path: Path, what: str
) -> None:
    folder = build_adapter(tmp_path / "broken", own.model)
    named = BROKEN[what](folder)
    argv = ["run", *own.argv("eval", "--adapter", folder, "--output", "out")[1:]]
    for more in ((), ("--dry-run",)):
        done = own.invoke(*argv, *more)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert done.err.startswith(f"stic-eval: --adapter {folder}: {named}")
    assert not (own.folder / "out" / "records").exists()


def test_large_weights_that_an_adapter_may_have_are_no_fault(own: Lab, tmp_path: Path) -> None:
    folder = build_adapter(tmp_path / "large", own.model)
    set_first(60000.0)(folder)
    argv = ["run", *own.argv("eval", "--adapter", folder, "--benchmarks", "chartqa", "--no-dar", "-q")[1:]]
    assert own.invoke(*argv).code == 0


def test_an_adapter_of_a_stage_without_numbers_is_refused(copied: Lab, finished: Finished) -> None:
    """One that an earlier version has trained and kept, its digest and all."""
    (last,) = copied.done("infused_sft")
    named = set_first(np.nan)(last / "adapter")
    manifest = json.loads((last / "manifest.json").read_text())
    manifest["sha256"][f"adapter/{WEIGHTS}"] = hashlib.sha256(
        (last / "adapter" / WEIGHTS).read_bytes()
    ).hexdigest()
    (last / "manifest.json").write_text(json.dumps(manifest))
    done = again(copied, finished, "-q")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert named in done.err
    shutil.copytree(finished.folder, copied.folder / "run")
    for merge in ((), ("--merge",)):
        done = copied.invoke("export", "adapter", "run", "--output", "exported", *merge)
        assert (done.code, named in done.err) == (2, True), done.err


# ---------------------------------------------------------------- training that earlier versions kept


def kept(stage: Path, weights: dict[str, Any]) -> None:
    """Puts other weights into a finished stage, as if they were what was written there."""
    path = stage / "adapter" / WEIGHTS
    save_file(weights, path, {"format": "pt"})
    manifest = json.loads((stage / "manifest.json").read_text())
    manifest["files"][f"adapter/{WEIGHTS}"] = path.stat().st_size
    manifest["sha256"][f"adapter/{WEIGHTS}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (stage / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("how", ["second factors of 0", "its start again"])
def test_training_that_taught_nothing_is_done_again_with_all_that_came_of_it(
    copied: Lab, finished: Finished, how: str
) -> None:
    assert again(copied, finished, "-q").code == 0
    (first,), (last,) = copied.done("preference"), copied.done("infused_sft")
    made = [(stage / "adapter" / WEIGHTS).read_bytes() for stage in (first, last)]
    before = load_file(first / "adapter" / WEIGHTS)
    if how == "its start again":
        kept(last, {name: value.astype(np.float16).astype(np.float32) for name, value in before.items()})
        kept(first, {name: value.astype(np.float16) for name, value in before.items()})
        taught_nothing, cleared = "infused_sft", (last,)
    else:
        kept(first, {name: value * (".lora_B." not in name) for name, value in before.items()})
        taught_nothing, cleared = "preference", (first, last, *copied.done("descriptions"))
    times = [(stage / "manifest.json").stat().st_mtime_ns for stage in cleared]
    shutil.rmtree(copied.folder / "out" / "records" / "stic")
    done = again(copied, finished)
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if "taught nothing" in line]
    assert line.startswith(f"stage {taught_nothing} (")
    for stage, time in zip(cleared, times, strict=True):
        assert (stage / "manifest.json").stat().st_mtime_ns > time, stage
    if how != "its start again":
        assert [(stage / "adapter" / WEIGHTS).read_bytes() for stage in (first, last)] == made
        assert numbers(copied.folder / "out") == numbers(finished.folder)
    # Scores of that adapter are none of the new one.
    assert (copied.folder / "out" / "records" / "stic" / "chartqa.jsonl").is_file()
    assert "taught nothing" not in again(copied, finished).err


def test_what_another_method_made_of_training_that_taught_nothing_is_not_served(
    copied: Lab, finished: Finished
) -> None:
    (first,), (last,) = copied.done("preference"), copied.done("infused_sft")
    sound = (last / "adapter" / WEIGHTS).read_bytes()
    weights = load_file(first / "adapter" / WEIGHTS)
    kept(first, {name: value * (".lora_B." not in name) for name, value in weights.items()})
    set_first(0.25)(last / "adapter")
    kept(last, load_file(last / "adapter" / WEIGHTS))
    argv = [*finished.argv, "--output", "first"]
    argv[argv.index("stic")] = "stic_stage1"
    assert copied.invoke(*argv).code == 0
    assert copied.done("infused_sft") == []
    assert again(copied, finished).code == 0
    assert (last / "adapter" / WEIGHTS).read_bytes() == sound


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_end_a_run_in_one_line(own: Lab, tmp_path: Path, value: float) -> None:
    model = build_vlm(tmp_path / "broken")
    weights = load_file(model / "model.safetensors")
    (head,) = (name for name in weights if name.endswith("lm_head.weight"))
    weights[head][:] = value
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    argv = own.argv("eval", "--model", model, "--benchmarks", "chartqa", "-q")
    done = own.invoke(*argv)
    assert (done.code, done.err.count("\n")) == (1, 1), done.err
    assert "logits that are not finite" in done.err


# ---------------------------------------------------------------- what else reads the cache


def test_pages_and_cards_show_nothing_of_a_damaged_stage(copied: Lab, finished: Finished) -> None:
    shutil.copytree(finished.folder, copied.folder / "run")
    (pairs,) = copied.done("pairs")
    card = ("export", "adapter", "run", "--force", "-q", "--output")
    assert copied.invoke("report", "run", "--out", "sound.html", "--no-images", "-q").code == 0
    assert copied.invoke(*card, "sound").code == 0
    flip(pairs / "pairs.parquet")
    assert copied.invoke("report", "run", "--out", "damaged.html", "--no-images", "-q").code == 0
    assert copied.invoke(*card, "damaged").code == 0
    pages = [(copied.folder / f"{name}.html").read_text() for name in ("sound", "damaged")]
    assert ["does not match what was trained on" in page for page in pages] == [False, True]
    cards = [(copied.folder / name / "README.md").read_text() for name in ("sound", "damaged")]
    assert ["preference pairs, made by the model itself" in text for text in cards] == [True, False]


def test_a_lost_stage_is_unknown_on_pages_and_cards(copied: Lab, finished: Finished) -> None:
    (pairs,) = copied.done("pairs")
    shutil.rmtree(pairs)
    for stage in copied.stages.glob("*/manifest.json"):
        manifest = json.loads(stage.read_text())
        manifest.pop("came_from")
        stage.write_text(json.dumps(manifest))
    assert again(copied, finished, "-q").code == 0
    assert copied.invoke("report", "out", "--out", "page.html", "--no-images", "-q").code == 0
    assert "<td>unknown</td>" in (copied.folder / "page.html").read_text()
    assert copied.invoke("export", "adapter", "out", "--output", "mine", "-q").code == 0
    assert "| pairs | unknown |" in (copied.folder / "mine" / "README.md").read_text()
