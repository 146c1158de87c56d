"""vLLM, which this program starts: one server for each GPU, or for each group of GPUs that hold the model.

Servers answer and score; adapters are trained in this process, and loaded at the servers. They run in an
environment of their own, for vLLM wants another transformers than this program.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, ClassVar

from stic_eval.contracts.engine import Ask, Engine, Estimate, Step
from stic_eval.engines import runtime_adapters, vllm_command
from stic_eval.engines.hf import HFEngine
from stic_eval.engines.stated_weights import notes_on_weights
from stic_eval.errors import UserError
from stic_eval.models import devices
from stic_eval.models.fingerprint import adapter_fingerprint
from stic_eval.setting_paths import flag_of
from stic_eval.settings import RunConfig
from stic_eval.store import cache_dir, content_key

if TYPE_CHECKING:
    from stic_eval.engines.own_server import OwnServer
    from stic_eval.engines.served import Expectations, Served
    from stic_eval.models.connection import Endpoint
    from stic_eval.models.server_model import ServerModel

_PORTS = 3  # times that free ports are looked for, where somebody else is faster to take one
# What says how transformers loads a model, and means nothing to vLLM.
_OF_TRANSFORMERS = ("batch_size", "attn", "load_in_4bit", "load_in_8bit")


class VLLMEngine(Engine):
    """A model at servers of this program's own."""

    config: RunConfig

    name: ClassVar[str] = "vllm"
    trains: ClassVar[bool] = True

    @classmethod
    def settled(cls, config: RunConfig, given: Mapping[str, Any], named: bool) -> RunConfig:
        """Refuses what somebody else's server, or transformers, would act on."""
        server = config.server
        for flag, value in (
            ("--base-url", server.base_url), ("--adapter-name", server.adapters),
            ("--model-id", server.model_id), ("--api-key-env", server.api_key_env),
        ):  # fmt: skip
            if value:
                raise UserError(f"{flag}: is for a server that somebody else runs; add --engine openai")
        for name in _OF_TRANSFORMERS:
            if name in given or (name.startswith("load_in") and getattr(config, name)):
                raise UserError(f"{flag_of(name)}: vLLM decides that; leave it out with --engine vllm")
        return config

    def __init__(self, config: RunConfig, step: Step, answered: Callable[[], bool]) -> None:
        super().__init__(config, step, answered)
        self._servers: list[OwnServer] = []
        self._served: Served | None = None
        # The base model's name, by which no other run's server is taken for one of this run.
        self._base = f"base-{token_hex(4)}"
        self._rank, self._starts = 0, 0
        self._asleep, self._here = False, True

    @cached_property
    def local(self) -> HFEngine:
        """The same weights in this process."""
        return HFEngine(self.config.model_copy(update={"engine": HFEngine.name}), self.step, self.answered)

    @cached_property
    def command(self) -> tuple[str, ...]:
        """What starts a server."""
        return vllm_command.command_of(self.config)

    @property
    def version(self) -> str:
        """The version of vLLM."""
        return vllm_command.version_of(self.command)

    @cached_property
    def dtype(self) -> str:  # type: ignore[override]
        """The type of the weights."""
        return self.local.dtype

    @cached_property
    def profile(self) -> Any:
        """How the model is asked; None: as its checkpoint has it."""
        return self.local.profile

    @cached_property
    def model(self) -> str:  # type: ignore[override]
        """The base model's content."""
        return self.local.model

    def check(self) -> None:
        """Looks at device and command, how many GPUs there are, and how large adapters are going to be."""
        self.local.check()
        _ = self.command
        if self._here:
            _ = self.gpu_groups
        if self._known_rank:
            runtime_adapters.allowed_rank(self._known_rank)

    def computed_on(self, device: str, dtype: str) -> None:
        """Takes in what device and type of weights come to where servers run and adapters are trained."""
        self.local.computed_on(device, dtype)
        self.dtype, self.gpu, self._here = dtype, device == "cuda", False

    @cached_property
    def gpu(self) -> bool:
        """Whether servers run on GPUs."""
        return devices.device_of(self.config.device) == "cuda"

    @cached_property
    def gpu_groups(self) -> tuple[tuple[str, ...], ...]:
        """The GPUs of each server; one group of none on a CPU.

        Raises:
            UserError: There are not so many.
        """
        together = self.config.server.tensor_parallel
        if not self.gpu:
            if together > 1:
                raise UserError(f"--tensor-parallel {together}: needs GPUs, and there are none here")
            return ((),)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        there = [*map(str, range(devices.gpus()))]
        there = [one.strip() for one in visible.split(",") if one.strip()] if visible else there
        wanted = len(there) // together * together if self.config.gpus == "auto" else self.config.gpus
        if wanted < 1 or wanted % together or wanted > len(there):
            raise UserError(
                f"--gpus {self.config.gpus} --tensor-parallel {together}: there are {len(there)} GPUs; give "
                f"a multiple of {together} up to that"
            )
        return tuple(tuple(there[at : at + together]) for at in range(0, wanted, together))

    def identity(self, adapter: Path | None = None) -> str:
        """Weights by content, their type, how the model is asked; engine, version and flags; adapter."""
        own = self.profile.content if self.profile is not None else {}
        tags = self.config.thinking.more_tags
        more: list[Any] = [way for way in (own, tags) if way]
        said = vllm_command.key_of(self.command)
        more += [{"flags": said}] if said else []
        found = content_key([self.name, self.version, self.model, self.dtype, *more])
        return adapter_fingerprint(found, adapter)

    # ------------------------------------------------------------ answers

    def answers(self, adapter: Path | None = None) -> ServerModel:
        """The model with an adapter, at servers that are started for it if need be.

        Raises:
            UserError: A server cannot be started as it is asked for.
            RunError: One has not started, or has not applied the adapter.
        """
        rank = 0 if adapter is None else runtime_adapters.rank_of(adapter)
        while True:
            served = self._awake(rank)
            found = served.answers(adapter)
            # Where the adapter was looked at in this process, they had made room for it: those that could not
            # be put to sleep have ended, and others are asked for it, that now is known here.
            if self._awake(rank) is served:
                return found

    likelihoods = answers

    def _awake(self, rank: int) -> Served:
        """Servers that answer, and take adapters of a rank."""
        lost = self._served is not None and any(known.gone for known in self._served.models)
        if self._served is not None and not lost and rank <= self._rank and self._all_alive:
            if self._asleep:
                self._give_back_weights()
                self._asleep = not all(server.post("/wake_up") for server in self._servers)
            if not self._asleep:
                return self._served
        self._end_servers()
        self._give_back_weights()
        self._start(max(rank, self._rank, self._known_rank))
        assert self._served is not None
        return self._served

    @property
    def _all_alive(self) -> bool:
        return all(server.alive for server in self._servers)

    @property
    def _known_rank(self) -> int:
        trained = any(method != "baseline" for method in self.config.methods)
        return vllm_command.first_rank(self.config) if trained or self.config.adapters else 0

    def _start(self, rank: int) -> None:
        from stic_eval.engines.own_server import PortTaken
        from stic_eval.engines.served import Served, check_alike
        from stic_eval.store import atomic_write

        if self.profile is not None and self.profile.chat_template:
            atomic_write(self._template, self.profile.chat_template)
        for left in reversed(range(_PORTS)):
            try:
                self._start_servers(rank)
                break
            except PortTaken:
                if not left:
                    raise
        self._rank, self._asleep = rank, False
        endpoint = self._endpoint()
        self._served = Served(endpoint, self.expectations, self._ask)
        if endpoint.others:
            check_alike([self._ask(one) for one in endpoint.each()])

    @property
    def _template(self) -> Path:
        return cache_dir() / "templates" / f"{content_key(self.profile and self.profile.content)[:32]}.jinja"

    def _start_servers(self, rank: int) -> None:
        """Starts them all, or none."""
        from stic_eval.engines.own_server import OwnServer, free_port

        config, logs = self.config, self.config.folder / "servers"
        folder = vllm_command.served_folder(config.model, cache_dir(), self.model)
        self._starts += 1
        try:
            for number, gpus in enumerate(self.gpu_groups):
                port = free_port()
                flags = vllm_command.flags(
                    config, self.command, folder, name=self._base, port=port, dtype=self.dtype, rank=rank,
                    profile=self.profile, template=self._template, gpu=self.gpu,
                )  # fmt: skip
                command = vllm_command.whole(self.command, flags)
                environment = vllm_command.environment(config, gpus, self.gpu)
                log = logs / f"vllm-{os.getpid()}-{self._starts}-{number}.log"
                self._servers.append(OwnServer(command, environment, port, log))
            for number, server in enumerate(self._servers, 1):
                which = f" {number} of {len(self._servers)}" if len(self._servers) > 1 else ""
                server.wait(self.step, f"start vLLM {self.version}{which}", self._base)
        except BaseException:
            self._end_servers()
            raise

    def _endpoint(self) -> Endpoint:
        from stic_eval.models.connection import Endpoint

        first, *others = (f"{server.root}/v1" for server in self._servers)
        own = self.config.server
        return Endpoint(
            first, self._base, timeout=own.timeout, attempts=own.attempts, concurrency=own.concurrency,
            flag="--model", prefix="--", others=tuple(others),
        )  # fmt: skip

    def _ask(self, endpoint: Endpoint, **more: Any) -> ServerModel:
        from stic_eval.engines.served import pad_color
        from stic_eval.models.server_model import ServerModel

        system = self.profile.system_prompt if self.profile is not None else ""
        tags, pad = self.config.thinking.more_thinking, pad_color(self.local)
        return ServerModel(endpoint, self.answered(), system, tags, pad=pad, **more)

    # ------------------------------------------------------------ this process

    def trainable(self, adapter: Path | None = None) -> Any:
        """The same weights in this process, for which servers on GPUs make room."""
        self._make_room()
        return self.local.trainable(adapter)

    @cached_property
    def expectations(self) -> Expectations:
        """What this process makes of adapters, which servers have to make of them, too."""
        from stic_eval.engines.served import Expectations

        return Expectations(self.local, self.trainable)

    def trained(self, adapter: Path) -> None:
        """Writes down what this process makes of an adapter."""
        self.expectations.trained(adapter)

    def release(self) -> None:
        """Gives back the memory of servers and weights, for whoever trains in other processes."""
        self._make_room()
        self._give_back_weights()

    def _make_room(self) -> None:
        """Puts servers on GPUs to sleep, or ends them; on a CPU both fit, or neither would."""
        if not self.gpu or not self._servers or self._asleep:
            return
        if all(server.post("/sleep?level=1") for server in self._servers):
            self._asleep = True
        else:
            self._end_servers()

    def _give_back_weights(self) -> None:
        """Takes the weights out of a GPU that servers are going to use."""
        if self.gpu:
            self.local.release()

    def _end_servers(self) -> None:
        if self._servers:
            with ThreadPoolExecutor(len(self._servers)) as pool:  # each may take half a minute
                list(pool.map(lambda server: server.end(), self._servers))
        self._servers.clear()
        self._served = None

    def close(self) -> None:
        """Ends the servers."""
        self._end_servers()

    # ------------------------------------------------------------ for people

    def described(self) -> str:
        """Who answers, in words for a log."""
        many = len(self.gpu_groups) if self._here else 1  # of each worker's
        by = f"{many} servers of vLLM {self.version}" if many > 1 else f"vLLM {self.version}"
        each = self.config.server.tensor_parallel
        split = f", each on {each} GPUs" if each > 1 else ""
        return f"{self.config.model} in {self.dtype} by {by}{split}"

    def plan_notes(self, asks: Collection[Ask], adapters: bool) -> list[str]:
        """What is started, and what is done in this process."""
        found = [f"answered by servers that are started for it: {self.described()}"]
        if self.gpu:
            found.append("not run so far on a GPU: starting, waking and sleeping of servers there")
        return [*found, *(notes_on_weights(self.local, asks) if adapters or asks else [])]

    def notes(self, rows: Mapping[str, Any]) -> list[str]:
        """What a table says about who answers."""
        return [f"Answered by vLLM {self.version}, the model's weights in {self.dtype}."]

    def estimate(self, generations: int, steps: int) -> Estimate | None:
        """As of the model in this process: one server's speed is not known."""
        return self.local.estimate(generations, steps)

    def size(self) -> tuple[float, float]:
        """Parameters of the model, and bytes of each."""
        return self.local.size()


engine = VLLMEngine
