"""How gangs are started, and what is refused before one is. No process is started here."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from stic_eval.contracts.method import Stage
from stic_eval.errors import UserError
from stic_eval.models import devices
from stic_eval.settings import RunConfig
from stic_eval.training import gang_launch
from stic_eval.training.gang_launch import accelerate_config, check_gang, described, launch_command
from tests.support.command import run_command


def stage(**params: Any) -> Stage:
    return Stage("preference", 1, lambda _: None, {"training": {"batch_size": 16}, **params}, trains=True)


@pytest.fixture
def eight_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "device_of", lambda name: "cpu" if name == "cpu" else "cuda")
    monkeypatch.setattr(devices, "gpus", lambda: 8)
    monkeypatch.setattr(devices, "dtype_of", lambda config: "bfloat16")
    monkeypatch.setattr(gang_launch, "find_spec", lambda name: None)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.mark.usefixtures("eight_gpus")
@pytest.mark.parametrize(
    ("given", "params", "said"),
    [
        ({"gpus": 9}, {}, "--gpus 9: this machine has 8"),
        ({"gpus": 2, "device": "cuda:1"}, {}, "--device cuda:1: is one GPU; with --gpus 2 give cuda"),
        ({"gpus": 3}, {}, "preference: batch_size 16 cannot be divided evenly among 3 processes"),
        ({"gpus": 3, "device": "cpu"}, {}, "15 and 18; or train with 2"),
        ({"nodes": 2}, {}, "--nodes 2: other nodes are reached by srun"),
        ({"strategy": "zero3"}, {}, "--strategy zero3: needs deepspeed, which is not installed"),
        ({"strategy": "fsdp2", "device": "cpu"}, {}, "on a CPU give ddp"),
        (
            {"strategy": "fsdp2", "load_in_4bit": True},
            {},
            "--strategy fsdp2: does not go with --load-in-4bit",
        ),
        (
            {"strategy": "fsdp2"},
            {"rejected_logp": "runner_up"},
            "give rejected_logp=label, or --strategy ddp",
        ),
        ({"strategy": "dpp"}, {}, "--strategy dpp: give ddp, fsdp2, zero3, or an accelerate"),
    ],
)
def test_what_cannot_be_trained_so_is_refused_in_one_line(
    given: dict[str, Any], params: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as error:
        check_gang(RunConfig(**given), [stage(**params)])
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.usefixtures("eight_gpus")
def test_what_can_is_not() -> None:
    for given in ({"gpus": "auto"}, {"gpus": 4, "device": "cpu"}, {"gpus": 1}, {"strategy": "fsdp2"}):
        check_gang(RunConfig.model_validate(given), [stage()])
    check_gang(RunConfig(gpus=16), [stage()], here=False)
    assert gang_launch.size(RunConfig(gpus="auto")) == 8
    assert gang_launch.size(RunConfig(gpus="auto", device="cpu")) == 1


@pytest.mark.parametrize("strategy", ["fsdp2", "zero3"])
def test_accelerate_takes_the_configurations(strategy: str, tmp_path: Path) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    path = tmp_path / "accelerate.yaml"
    path.write_text(yaml.safe_dump(accelerate_config(strategy, 8, 1, "bfloat16")))
    parsed = launch_command_parser().parse_args(["--config_file", str(path), "script.py"])
    args, _, _ = _validate_launch_command(parsed)
    assert args.num_processes == 8 and args.mixed_precision == "bf16"
    if strategy == "fsdp2":
        assert args.use_fsdp and args.fsdp_version == 2 and args.fsdp_state_dict_type == "FULL_STATE_DICT"
        assert args.fsdp_reshard_after_forward is True and args.fsdp_auto_wrap_policy
    else:
        assert args.use_deepspeed and args.zero_stage == 3 and args.zero3_init_flag is False


@pytest.mark.usefixtures("eight_gpus")
def test_the_command_says_how_many_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = launch_command(RunConfig(gpus=8), tmp_path)
    assert one[1:3] == ["-m", "torch.distributed.run"] and "--standalone" in one
    assert "--nproc-per-node=8" in one and one[-2] == str(tmp_path / "spec.json")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURMD_NODENAME", "node3")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    check_gang(RunConfig(gpus=8, nodes=2), [stage()])
    two = launch_command(RunConfig(gpus=8, nodes=2), tmp_path)
    assert two[:4] == ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    assert "--nnodes=2" in two and any(part.startswith("--rdzv-endpoint=node3:") for part in two)
    sharded = launch_command(RunConfig(gpus=4, strategy="fsdp2"), tmp_path)
    assert "accelerate.commands.launch" in sharded and "--num_processes=4" in sharded
    assert yaml.safe_load((tmp_path / "accelerate.yaml").read_text())["distributed_type"] == "FSDP"


def test_a_file_is_what_accelerate_takes(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(accelerate_config("fsdp2", 2, 1, "float32")))
    assert gang_launch.is_sharded(str(path))
    path.write_text("distributed_type: NOTHING\n")
    with pytest.raises(UserError, match="accelerate does not accept it"):
        gang_launch.is_sharded(str(path))
    path.write_text(yaml.safe_dump({**accelerate_config("fsdp2", 2, 1, "float32"), "fsdp_config": {}}))
    with pytest.raises(UserError, match="is for FSDP1"):
        gang_launch.is_sharded(str(path))


@pytest.mark.usefixtures("eight_gpus")
def test_a_plan_says_what_was_never_run() -> None:
    assert described(RunConfig(gpus=2, device="cpu")) == "trained by 2 processes (ddp), on the CPU"
    assert described(RunConfig(gpus=2)).endswith("not been run")
    assert "(fsdp2)" in described(RunConfig(strategy="fsdp2"))


def test_a_named_gpu_is_the_trainers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the calls that accelerate and transformers read the device from; there is no GPU here."""
    import torch

    from stic_eval.training.trainer_arguments import on_one_device

    taken: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    args = SimpleNamespace(n_gpu=2, _n_gpu=2, distributed_state=SimpleNamespace(device="cuda"))
    second = torch.device("cuda:1")
    assert on_one_device(args, second) is args
    assert taken == [second] and args._setup_devices == second and args.distributed_state.device == second
    assert args._n_gpu == 1
    for name in ("cpu", "cuda", "cuda:0"):  # transformers' own choice
        on_one_device(SimpleNamespace(n_gpu=1), torch.device(name))
    assert taken == [second]


STIC = ("--method", "stic", "--device", "cpu", "-o", "stage1.images=24", "-o", "stage2.items=24")


def test_no_key_depends_on_how_many_train(tmp_path: Path) -> None:
    one, two = (run_command("train", *STIC, "--gpus", n, "--dry-run", at=tmp_path) for n in "12")
    assert "trained by 2 processes (ddp), on the CPU" in two
    assert [line for line in two.splitlines() if "trained by" not in line] == one.splitlines()
    assert len([line for line in one.splitlines() if "to do" in line]) == 5  # four stages, and all of them


@pytest.mark.parametrize("command", ["run", "ablate", "train"])
def test_every_command_that_trains_refuses_a_batch_that_cannot_be_parted(
    command: str, tmp_path: Path
) -> None:
    own = ("--vary", "stage1.beta=0.1,0.2") if command == "ablate" else ()
    said = run_command(command, *STIC, *own, "--gpus", "3", at=tmp_path, code=2)
    assert "preference: batch_size 16 cannot be divided evenly among 3 processes" in said
    assert "15 and 18" in said
