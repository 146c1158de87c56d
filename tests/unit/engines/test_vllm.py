"""Servers that this program starts: what they are called with, how they are waited for, and that they end."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stic_eval.digests import file_sha256
from stic_eval.engines import vllm_command
from stic_eval.engines.own_server import OwnServer, free_port
from stic_eval.engines.vllm import VLLMEngine
from stic_eval.errors import RunError, UserError
from stic_eval.image_sources import scan_images
from stic_eval.models import devices
from stic_eval.profiles import SHIPPED
from stic_eval.setting_groups import ServerConfig
from stic_eval.settings import RunConfig

ROOT = Path(__file__).parents[3]
SCRIPTED = shlex.join([sys.executable, "-m", "tests.support.vllm_server", "serve"])


def config(model: Path | str, **more: Any) -> RunConfig:
    server = ServerConfig(**{"command": SCRIPTED, "concurrency": 2, **more.pop("server", {})})
    return RunConfig(model=str(model), engine="vllm", methods=("baseline",), server=server, **more)


def engine(settings: RunConfig) -> VLLMEngine:
    return VLLMEngine(settings, lambda name: nullcontext(), lambda: False)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_a_server_is_started_answers_takes_adapters_and_ends(
    tiny_vlm: Path, photos: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    from stic_eval.models.hf_model import HFModel
    from tests.support.questions import answers, mixed

    here, asked = (
        HFModel.load(str(tiny_vlm), device="cpu", dtype="float32"),
        mixed(scan_images(photos)[0][:1])[:2],
    )
    own = engine(config(tiny_vlm, device="cpu", output=tmp_path / "run"))
    assert own.version == "0.32.0" and own.identity() != own.identity(adapters[0])
    assert "vLLM 0.32.0" in own.described() and not own._servers
    try:
        for adapter in (None, adapters[0]):
            said = {one: response.text for one, response in own.answers(adapter).generate(asked)}
            expected = answers(here.with_adapter(adapter), asked)
            assert said == {one: text for one, (text, _, _) in expected.items()}
        (log, *_) = sorted((tmp_path / "run" / "servers").iterdir())
        words = log.read_text()
        assert "ready" in words and "--generation-config vllm" in words and "--api-server-count 1" in words
        # It was started without adapters, as the run has none, and once more for the first that came.
        assert len(list((tmp_path / "run" / "servers").iterdir())) == 2
        assert (
            "--enable-lora --max-lora-rank 8"
            in sorted((tmp_path / "run" / "servers").iterdir())[1].read_text()
        )
        (server,) = own._servers
    finally:
        own.close()
    assert not server.alive and not own._servers


def listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(true: Any) -> None:
    begin = time.monotonic()
    while not true():
        assert time.monotonic() - begin < 120
        time.sleep(0.05)


PARENT = """
import os, signal, sys, time
from pathlib import Path
from types import SimpleNamespace
from stic_eval.engines.own_server import OwnServer
# What is started in the background by a shell is deaf to Ctrl-C, and so is what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
port = int(sys.argv[1])
argv = f"[sys.executable, '-m', 'http.server', '{port}', '--bind', '127.0.0.1']"
inner = f"import subprocess, sys; subprocess.run({argv})"
server = OwnServer([sys.executable, "-c", inner], {}, port, Path(sys.argv[2]))
print("started", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_servers_end_with_whoever_started_them(tmp_path: Path, how: signal.Signals) -> None:
    port = free_port()
    argv = [sys.executable, "-c", PARENT, str(port), str(tmp_path / "log")]
    parent = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        wait_until(lambda: listens(port))  # a process of the server's own, as vLLM has some
        parent.send_signal(how)
        parent.wait(60)
        wait_until(lambda: not listens(port))
    finally:
        parent.kill()


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    code = "print('starting'); raise ValueError('no kernel for this machine')"
    server = OwnServer([sys.executable, "-c", code], {}, free_port(), tmp_path / "servers" / "log")
    with pytest.raises(RunError, match="start vLLM: it has ended: ValueError: no kernel for this machine"):
        server.wait(lambda name: nullcontext(), "start vLLM", "base-1")
    gone = OwnServer([str(tmp_path / "nothing")], {}, free_port(), tmp_path / "other")
    with pytest.raises(RunError, match="No such file"):
        gone.wait(lambda name: nullcontext(), "start vLLM", "base-1")


def test_a_server_of_somebody_else_on_the_port_is_not_taken_for_ours(
    tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stic_eval.engines import own_server
    from tests.support.vllm_server import serving_model

    with serving_model(tiny_vlm) as stranger:
        ports = iter([stranger.port, free_port()])
        monkeypatch.setattr(own_server, "free_port", lambda: next(ports))
        own = engine(config(tiny_vlm, device="cpu", output=tmp_path / "run"))
        try:
            own.answers()
            assert own._endpoint().base_url != stranger.url and not stranger.asked
            assert len(list((tmp_path / "run" / "servers").iterdir())) == 2
        finally:
            own.close()


def test_servers_end_together_where_one_cannot_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stic_eval.engines import own_server

    ended: list[int] = []
    together = threading.Barrier(2, timeout=30)

    class Second(Exception):
        pass

    class Fake:
        def __init__(self, command: Any, environment: Any, port: int, log: Path) -> None:
            if log.stem.endswith("-2"):
                raise Second

        def end(self) -> None:
            together.wait()
            ended.append(1)

    monkeypatch.setattr(own_server, "OwnServer", Fake)
    monkeypatch.setattr(vllm_command, "served_folder", lambda *_: "/m")
    own = engine(config("pocket", device="cpu", output=tmp_path / "run"))
    own.__dict__["gpu_groups"] = ((), (), ())
    with pytest.raises(Second):
        own.answers()
    assert len(ended) == 2 and not own._servers


def test_it_is_asked_past_proxies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    port = free_port()
    server = OwnServer([sys.executable, "-m", "http.server", f"{port}"], {}, port, tmp_path / "log")
    try:
        wait_until(lambda: server.get("/"))
        assert not server.post("/sleep?level=1"), "it knows none"
    finally:
        server.end()


AT = "11-30 18:01:39 [core.py:1120]"
REFUSED = f"""\
(APIServer pid=7) ERROR {AT} ModuleNotFoundError: No module named 'torchvision'
Traceback (most recent call last):
  File "main.py", line 8, in <module>
    raise ValidationError("no")
pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, Model architectures ['X'] failed to be inspected. [type=value_error]
    For further information visit a page
"""
ELSEWHERE = f"""\
(EngineCore pid=9) ERROR {AT} ValueError: There is no module or parameter named 'vision_tower.encoder'
(EngineCore pid=9) Process EngineCore:
(APIServer pid=7) Traceback (most recent call last):
(APIServer pid=7)     raise RuntimeError("Engine core initialization failed. See root cause above.")
(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. Failed: {{}}
"""
UNKNOWN = "usage: vllm serve [options]\nvllm: error: unrecognized arguments: --api-server-count\n"


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (REFUSED, "ValidationError: 1 validation error for ModelConfig Value error, Model architectures"),
        (
            ELSEWHERE,
            "it has ended: ValueError: There is no module or parameter named 'vision_tower.encoder' ",
        ),
        (UNKNOWN, "error: unrecognized arguments: --api-server-count"),
    ],
)
def test_the_reason_is_found_among_all_that_it_prints(tmp_path: Path, log: str, why: str) -> None:
    """As vLLM 0.32 words it."""
    code = f"import sys; print({log!r}); sys.exit(1)"
    server = OwnServer([sys.executable, "-c", code], {}, free_port(), tmp_path / "log")
    with pytest.raises(RunError) as refused:
        server.wait(lambda name: nullcontext(), "start vLLM", "base-1")
    assert why in str(refused.value) and "\n" not in str(refused.value)


def test_what_it_is_called_with(tmp_path: Path) -> None:
    settings = config("pocket", server={"tensor_parallel": 2}, trust_remote_code=True)
    profile, template = SHIPPED["llava-1.5"], tmp_path / "t.jinja"
    how = {"name": "base-1", "port": 8001, "dtype": "bfloat16", "profile": profile, "template": template}
    found = vllm_command.flags(settings, ("vllm", "serve"), "/m", rank=100, gpu=True, **how)  # type: ignore[arg-type]
    text = shlex.join(found)
    assert found[0] == "/m" and "--max-lora-rank 128" in text and "--enable-sleep-mode" in text
    assert "--tensor-parallel-size 2" in text and f"--chat-template {template}" in text
    assert "--trust-remote-code" in text and "--mm-processor-kwargs" not in text  # images are padded before
    own = ("vllm", "serve", "--max-num-seqs=4", "--max_lora_rank", "8", "-asc", "2", "--no-enforce-eager")
    less = vllm_command.flags(settings, own, "/m", rank=9, gpu=False, **how)  # type: ignore[arg-type]
    there = {"--max-num-seqs", "--max-lora-rank", "--api-server-count", "--enforce-eager"}
    assert not there & set(less) and "--enable-lora" in less
    assert vllm_command.whole(own, less)[:4] == ["vllm", "serve", "/m", "--max-num-seqs=4"]
    assert vllm_command.whole(("./start", "-q", "fp8"), ["/m", "--port", "1"])[3:] == ["/m", "--port", "1"]
    own = ("vllm", "serve", "--max-num-seqs=4", "--dtype", "float16")
    less = vllm_command.flags(settings, own, "/m", rank=0, gpu=False, **how)  # type: ignore[arg-type]
    assert not {"--max-num-seqs", "--dtype", "--enable-lora"} & set(less) and "--enforce-eager" in less
    slow = vllm_command.flags(settings, ("vllm", "serve"), "/m", rank=8, gpu=False, **how)  # type: ignore[arg-type]
    assert "--max-num-seqs 2" in text and "--max-num-seqs 1" in shlex.join(slow), "on a CPU one at a time"
    variables = vllm_command.environment(settings, ("2", "3"), True)
    assert variables["CUDA_VISIBLE_DEVICES"] == "2,3" and variables["HF_HUB_OFFLINE"] == "1"
    on_a_cpu = vllm_command.environment(settings, (), False)
    assert on_a_cpu["VLLM_CPU_OMP_THREADS_BIND"] == "nobind" and on_a_cpu["TORCH_COMPILE_DISABLE"] == "1"
    assert "TORCH_COMPILE_DISABLE" not in variables


def test_gpus_are_shared_out_to_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "device_of", lambda device: "cuda")
    monkeypatch.setattr(devices, "gpus", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    two = {"tensor_parallel": 2}
    assert engine(config("pocket")).gpu_groups == (("0",),)
    assert engine(config("pocket", gpus=4, server=two)).gpu_groups == (("0", "1"), ("2", "3"))
    assert len(engine(config("pocket", gpus="auto")).gpu_groups) == 8
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6,7")
    assert engine(config("pocket", gpus="auto", server=two)).gpu_groups == (("5", "6"),)
    with pytest.raises(UserError, match="there are 3 GPUs; give a multiple of 2"):
        _ = engine(config("pocket", gpus=3, server=two)).gpu_groups


def test_on_a_cluster_it_is_planned_by_what_workers_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "device_of", lambda device: "cpu")
    settings = config("pocket", server={"tensor_parallel": 2})
    with pytest.raises(UserError, match="--tensor-parallel 2: needs GPUs, and there are none here"):
        engine(settings).check()
    far, here = engine(settings), engine(config("pocket"))
    far.computed_on("cuda", "bfloat16")
    far.check()
    assert (far.dtype, far.local.dtype, far.local.device, far.gpu) == ("bfloat16", "bfloat16", "cuda", True)
    assert "in bfloat16 by vLLM" in far.described() and far.identity() != here.identity()


def test_so_is_what_is_trained_beside_somebody_elses_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from stic_eval.engines.openai import OpenAIEngine

    monkeypatch.setattr(devices, "device_of", lambda device: "cpu")
    for stated, known in (("pocket", True), (None, False)):
        server = ServerConfig(base_url="http://localhost:1/v1", model_id=stated)
        settings = RunConfig(model="m", engine="openai", server=server)
        far = OpenAIEngine(settings, lambda name: nullcontext(), lambda: False)
        far.computed_on("cuda", "bfloat16")
        far.check()
        assert not known or (far.local.device, far.local.dtype) == ("cuda", "bfloat16")


def test_a_tower_has_the_names_that_vllm_knows(tiny_vlm: Path, tmp_path: Path) -> None:
    import torch
    from safetensors import safe_open

    from stic_eval.models.hf_model import HFModel

    served = Path(vllm_command.served_folder(str(tiny_vlm), tmp_path, "f" * 64))
    assert served != tiny_vlm and vllm_command.served_folder(str(served), tmp_path, "e" * 64) == str(served)
    (file,) = served.glob("*.safetensors")
    with safe_open(file, framework="pt") as opened:
        names = [name for name in opened.keys() if "vision_tower" in name]  # noqa: SIM118
    assert names and all("vision_tower.vision_model." in name for name in names)
    one, other = (HFModel.load(str(path), device="cpu", dtype="float32").model for path in (tiny_vlm, served))
    there = dict(other.named_parameters())
    assert all(torch.equal(value, there[name]) for name, value in one.named_parameters())


def test_the_version_is_that_of_the_commands_own_python(tmp_path: Path) -> None:
    own = tmp_path / "vllm"
    own.write_text(f"#!{sys.executable}\n")
    own.chmod(0o755)
    unknown = vllm_command.version_of((str(own), "serve"))
    assert unknown == f"unknown ({file_sha256(own)[:12]})", "what the command holds stands for it"
    assert vllm_command.version_of((sys.executable, "-m", "tests.support.vllm_server", "serve")) == "0.32.0"
    assert os.environ["PYTHONPATH"] == str(ROOT)


def test_what_a_command_says_itself_is_in_keys(tmp_path: Path) -> None:
    template = tmp_path / "a.jinja"
    template.write_text("{{ messages }}")
    plain = engine(config("pocket", device="cpu")).identity()

    def with_flags(more: str) -> str:
        return engine(config("pocket", device="cpu", server={"command": f"{SCRIPTED} {more}"})).identity()

    packed = with_flags("--quantization fp8 --max-model-len 512")
    assert (
        len({plain, packed, with_flags("--quantization fp8"), with_flags(f"--chat-template {template}")}) == 4
    )
    assert packed == with_flags("-q=fp8 --max_model_len=512"), "however it is spelled"
    same = shutil.copy(template, tmp_path / "b.jinja")
    assert with_flags(f"--chat-template {template}") == with_flags(f"--chat-template {same}")
    assert plain == with_flags("--gpu-memory-utilization 0.5 --max-num-seqs 4"), "that changes no answer"


@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        ("--dtype float16", "give --dtype outside"), ("-tp 2", "give --tensor-parallel apart"),
        ("--tensor_parallel_size=2", "give --tensor-parallel apart"), ("--port 9", "leave it out"),
        ("--host=0.0.0.0", "leave it out"), ("--served-model", "leave it out"),
        ("-dp 4", "give --gpus apart"),
        ("some/model", "the model is appended"),
    ],
)  # fmt: skip
def test_what_others_have_to_say_a_command_may_not(flags: str, advice: str) -> None:
    with pytest.raises(UserError, match=rf"--serve-command .*{advice}") as refused:
        engine(config("pocket", device="cpu", server={"command": f"{SCRIPTED} {flags}"})).check()
    assert "\n" not in str(refused.value)


def test_servers_that_ended_to_make_room_are_started_before_they_are_asked(
    monkeypatch: pytest.MonkeyPatch, adapters: tuple[Path, Path]
) -> None:
    """Where an adapter is measured here, servers that cannot sleep have ended."""
    own = engine(config("pocket"))
    started: list[Any] = []

    class Fake:
        models = ()

        def answers(self, adapter: Path | None) -> Any:
            if len(started) == 1:  # the adapter is measured in this process
                own._make_room()
            return f"a model at servers {len(started)}"

    def start(rank: int) -> None:
        started.append(rank)
        own.__dict__.update(_servers=[Sleeper(False)], _served=Fake(), _rank=rank)

    own.__dict__["gpu"] = True
    monkeypatch.setattr(own, "_start", start)
    assert own.answers(adapters[0]) == "a model at servers 2" and len(started) == 2


class Sleeper:
    """A server that may be put to sleep, or not."""

    alive = True

    def __init__(self, willing: bool) -> None:
        self.willing, self.told, self.ended = willing, list[str](), False

    def post(self, path: str) -> bool:
        self.told.append(path)
        return self.willing

    def end(self) -> None:
        self.ended = True


@pytest.mark.parametrize("willing", [True, False])
def test_servers_on_gpus_make_room_for_training(willing: bool) -> None:
    own, server = engine(config("pocket")), Sleeper(willing)
    served: Any = SimpleNamespace(models=[])
    own.__dict__.update(gpu=True, _servers=[server], _served=served, _rank=8)
    own.release()
    own.release()
    assert server.told == ["/sleep?level=1"] and server.ended is not willing
    if willing:
        assert own._awake(8) is served and server.told[-1] == "/wake_up" and not own._asleep
        assert own._awake(8) is served and len(server.told) == 2
    else:
        assert own._servers == [] and own._served is None


def test_on_a_cpu_servers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    own, server = engine(config("pocket", device="cpu")), Sleeper(True)
    own.__dict__.update(_servers=[server], _served=SimpleNamespace(models=[]), _rank=8)
    own.release()
    assert not server.told and not server.ended


def test_an_adapter_that_no_server_takes_is_told_before_anything_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"seva": {"lora": {"r": 1024}}}
    settings = config("pocket", device="cpu").model_copy(
        update={"methods": ("seva",), "method_options": options}
    )
    with pytest.raises(UserError, match=r"lora\.r: an adapter of rank 1024 is larger than vLLM accepts"):
        engine(settings).check()
