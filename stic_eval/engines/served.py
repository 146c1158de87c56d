"""A model at servers whose weights this program has too: it trains adapters, and has them loaded there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.engines import runtime_adapters
from stic_eval.errors import RunError, UserError
from stic_eval.models import adapter_canary
from stic_eval.models.adapter_canary import Measured
from stic_eval.models.fingerprint import checkpoint_file
from stic_eval.models.server_model import ServerModel
from stic_eval.store import cache_dir, content_key, read_object

if TYPE_CHECKING:
    from stic_eval.contracts.engine import Ask
    from stic_eval.engines.hf import HFEngine
    from stic_eval.engines.runtime_adapters import Dialect
    from stic_eval.models.connection import Endpoint

# CLIP's, which a processor has that does not say.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_LOG = logging.getLogger("stic_eval.run")


def pad_color(local: HFEngine) -> tuple[int, int, int] | None:
    """The colour of squares that the model's images are padded to; None: they are sent as they are.

    As `stic_eval.models.profile_processor` pads in this process; no server knows that of LLaVA-1.5.
    """
    if local.profile is None or not local.profile.processor.get("do_pad"):
        return None
    for name in ("processor_config.json", "preprocessor_config.json"):
        found: Any = read_object(checkpoint_file(local.config.model, local.config.revision, name))
        mean = (found.get("image_processor") or found).get("image_mean")
        if mean:
            break
    red, green, blue = (int(value * 255) for value in mean or _MEAN)
    return red, green, blue


def check_alike(models: Sequence[ServerModel]) -> None:
    """Makes sure that servers which are to be one model are it.

    Raises:
        UserError: One does not answer, or answers otherwise than the first.
        RunError: One fails at a fixed question.
    """
    first, *others = models
    expected = _measure(first)
    for other in others:
        found = _measure(other)
        if not adapter_canary.agree(expected, found):
            raise UserError(
                f"{other.endpoint.prefix}base-url {other.endpoint.base_url}: answers fixed questions "
                f"differently from {first.endpoint.base_url}; replicas must have the same model, in the "
                "same type, under the same name"
            )


class Expectations:
    """What this process makes of fixed questions with the adapters that it has trained.

    Args:
        local: The weights in this process.
        here: Gives them with an adapter; whoever runs servers makes room for them.
    """

    def __init__(self, local: HFEngine, here: Callable[[Path | None], Any]) -> None:
        self._local, self.here = local, here

    @property
    def rounding(self) -> float:
        """What the weights' type moves a log-probability by, in nats a token."""
        config = self._local.config
        return adapter_canary.PACKED if config.quantization else adapter_canary.ROUNDING[self._local.dtype]

    def _note(self, adapter: Path) -> Path:
        key = content_key([self._local.fingerprint(adapter), adapter_canary.VERSION])
        return cache_dir() / "canaries" / f"{key[:32]}.json"

    def of(self, adapter: Path) -> tuple[Measured, Measured] | None:
        """What was written down of the base model and an adapter; None: nothing."""
        return adapter_canary.remembered(self._note(adapter))

    def trained(self, adapter: Path, *, load: bool = False) -> None:
        """Writes down what this process makes of the fixed questions, with and without an adapter.

        Args:
            load: Loads the weights for it where they are not in memory.
        """
        if (self._local.loaded or load) and self.of(adapter) is None:
            views = [self.here(one) for one in (None, adapter)]
            adapter_canary.remember(
                self._note(adapter), [adapter_canary.measure(view, view) for view in views]
            )


class Served:
    """A model at one or several servers, and the same in this process.

    Args:
        endpoint: The servers, and the base model's name there.
        expectations: What this process makes of adapters.
        ask: Makes a model that is asked at servers; (endpoint, what else `ServerModel` takes).
    """

    def __init__(
        self, endpoint: Endpoint, expectations: Expectations, ask: Callable[..., ServerModel]
    ) -> None:
        self.endpoint, self._expectations, self._ask = endpoint, expectations, ask
        self._models: dict[str, ServerModel] = {}
        self._bases: dict[str, Measured] = {}
        # By address and adapter: those that were loaded here, and what servers made of those that they apply.
        self._loaded: set[tuple[str, str]] = set()
        self._shown: dict[tuple[str, str], Measured] = {}
        self._lock = threading.RLock()
        self._kind: Dialect | None = None

    @property
    def models(self) -> Sequence[ServerModel]:
        """All that have been asked."""
        return list(self._models.values())

    def answers(self, adapter: Path | None = None) -> ServerModel:
        """The model with an adapter, which every server has then loaded and shown to have applied.

        Raises:
            UserError: A server cannot load it.
            RunError: It has not applied it.
        """
        name = "" if adapter is None else runtime_adapters.name_of(adapter)
        if name not in self._models:
            recover = None
            if adapter is not None:
                self._load(adapter)
                recover = lambda url: self._load_again(adapter, url)  # noqa: E731  of this adapter
            asked = self._named(name)
            self._models[name] = self._ask(
                asked, here=lambda: self._expectations.here(adapter), recover=recover
            )
        return self._models[name]

    def _named(self, name: str, base_url: str = "") -> Endpoint:
        model = self._dialect.asked_as(self.endpoint.model, name) if name else self.endpoint.model
        one = replace(self.endpoint, model=model)
        return replace(one, base_url=base_url, others=()) if base_url else one

    @property
    def _dialect(self) -> Dialect:
        if self._kind is None:
            self._kind = runtime_adapters.dialect_of(self.endpoint)
        return self._kind

    def check(self, asks: Collection[Ask], adapters: bool) -> None:
        """As `Engine.prepare`.

        Raises:
            UserError: A server cannot do it.
        """
        for one in self.endpoint.each():
            self._ask(one).check(going_on="going on" in asks, likelihoods="likelihoods" in asks)
            if adapters:
                runtime_adapters.check_loads(one, self._dialect)

    def _load(self, adapter: Path) -> None:
        """Has every server load an adapter, and makes sure that it has applied it.

        One that is gone is left out: should it come back, it does not know the adapter, and is given it then.
        """
        with self._lock:
            there = [self._load_at(adapter, url) for url in self.endpoint.base_urls]
        if not any(there):
            raise RunError(
                f"{self.endpoint.prefix}base-url {','.join(self.endpoint.base_urls)}: none of them "
                "answers any more; answers so far are kept"
            )

    def _load_again(self, adapter: Path, url: str) -> None:
        """Has a server load an adapter that it has forgotten."""
        with self._lock:
            self._load_at(adapter, url)

    def _load_at(self, adapter: Path, url: str) -> bool:
        """Whether a server answers with an adapter; if not, others do, and it has gone."""
        name = runtime_adapters.name_of(adapter)
        try:
            fresh = runtime_adapters.load(self._named("", url), self._dialect, adapter)
            if fresh:
                self._loaded.add((url, name))
            if fresh or (url, name) not in self._shown:
                self._check_applied(adapter, name, url)
        except (UserError, RunError):
            if not self.endpoint.others or runtime_adapters.is_there(self._named("", url)):
                raise
            place = f"{self.endpoint.prefix}base-url {url}"
            _LOG.warning("%s: no longer answers; adapter %s is asked of the others", place, adapter)
            return False
        return True

    def _check_applied(self, adapter: Path, name: str, url: str) -> None:
        where = f"{self.endpoint.prefix}base-url {url}: adapter {adapter}"
        if url not in self._bases:
            self._bases[url] = _measure(self._ask(self._named("", url)))
        there = self._bases[url], _measure(self._ask(self._named(name, url)))
        expectations, rounding = self._expectations, self._expectations.rounding
        if (before := self._shown.get((url, name))) is not None:
            # The weights here are not asked: servers would have to make room with requests under way.
            if not adapter_canary.is_back(there[0], before, there[1], rounding):
                raise RunError(f"{where}: the server's answers differ from those before it forgot it")
            return
        found, what = adapter_canary.judge(there, expectations.of(adapter), rounding)
        if found in ("not verifiable", "not applied") and expectations.of(adapter) is None:
            # Only whoever has the weights can tell an adapter that does little from one that was left out.
            expectations.trained(adapter, load=True)
            found, what = adapter_canary.judge(there, expectations.of(adapter), rounding)
        if found == "not applied":
            raise RunError(
                f"{where}: the server has loaded it but not applied it: fixed answers change {what}"
            )
        if found == "another":
            raise RunError(
                f"{where}: the server's answers differ from those of the model that it was trained on "
                f"(is it the same model, in the same type (--dtype), with the same chat template?): {what}"
            )
        self._shown[url, name] = there[1]
        if found == "not verifiable":
            _LOG.warning("adapter %s: whether the server has applied it is not verifiable: %s", adapter, what)
        elif expectations.of(adapter) is None:
            _LOG.info(
                "adapter %s is applied by %s: %s; compared with the server's base model alone, because "
                "it was not measured where it was trained", adapter, url, what,
            )  # fmt: skip
        else:
            _LOG.info("adapter %s is applied by %s: %s", adapter, url, what)

    def close(self) -> None:
        """Has the servers forget what they have loaded for this run."""
        for url, name in self._loaded:
            runtime_adapters.unload(self._named("", url), self._dialect, name)
        self._loaded.clear()


def _measure(model: ServerModel) -> Measured:
    try:
        return adapter_canary.measure(model, model if model.tells_likelihoods() else None)
    except RunError as error:
        if model.gone is not None:
            raise
        where = f"{model.endpoint.prefix}base-url {model.endpoint.base_url}"
        raise RunError(f"{where}: {error}; answers so far are kept") from error
