"""Executes a plan's stages: each once, whoever asks for it, and what was killed goes on."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.contracts.method import Data, Report, Stage, StageContext
from stic_eval.errors import RunError, UserError
from stic_eval.models.adapter_values import check_adapter_values
from stic_eval.models.fingerprint import adapter_fingerprint
from stic_eval.models.response_cache import CachedVLM, cached_likelihoods
from stic_eval.models.thinking import ThinkingVLM
from stic_eval.plugin_code import foreign
from stic_eval.selftrain.stage_costs import came_from
from stic_eval.setting_groups import ThinkingConfig
from stic_eval.stage_store import StageStore
from stic_eval.store import REQUEST_VERSION, ResponseStore, content_key
from stic_eval.training import gang
from stic_eval.types import Likelihood, Request, Response

if TYPE_CHECKING:
    from stic_eval.contracts.engine import VLM, Scorer
    from stic_eval.models.hf_model import HFModel

_THINKING = ThinkingConfig()
_PACKAGES = ("stic-eval", "torch", "transformers", "trl", "peft")


def stage_key(
    stage: Stage,
    data: Data,
    fingerprint: str,
    seed: int,
    known: dict[int, str] | None = None,
    *,
    thinking: ThinkingConfig = _THINKING,
    adapter_dtype: str = "",
) -> str:
    """The content key (64 hex digits) of what a stage puts out.

    Args:
        stage: The stage. Its name, version, parameters and the keys of its needs count.
        data: The inputs. Those count that the stage reads, directly, and as many of them as it takes.
        known: Keys that were computed before with the same other arguments, by the stages' identity; a
            stage may be needed along many paths.
        thinking: How what the model thinks is told from its answers; in keys where it is not the default, of
            stages that ask the model. Of one that is no part of this program nobody knows whether it does.
        adapter_dtype: As the engine has it; in keys of stages that ask the model with an adapter.

    Raises:
        TypeError: A parameter has no content key (it is no JSON value).
    """
    known = {} if known is None else known
    if id(stage) in known:
        return known[id(stage)]
    content = {
        "name": stage.name,
        "version": stage.version,
        "params": stage.params,
        "needs": [
            stage_key(need, data, fingerprint, seed, known, thinking=thinking, adapter_dtype=adapter_dtype)
            for need in stage.needs
        ],
        "reads": {kind: data.key(kind, stage.takes(kind)) for kind in stage.reads},
        "requests": REQUEST_VERSION,
        "model": fingerprint,
        "seed": seed,
    }
    content |= _departure(stage, data)
    if code := foreign(stage.run, *stage.code):
        content["code"] = code
    if thinking.changed and (stage.generations or code):
        content["thinking"] = thinking.changed
    if adapter_dtype and (stage.generations or stage.asks or code) and _has_trained(stage):
        content["adapter_dtype"] = adapter_dtype
    known[id(stage)] = content_key(content)
    return known[id(stage)]


def _has_trained(stage: Stage) -> bool:
    """Whether there may be an adapter among what a stage needs."""
    return any(need.trains or foreign(need.run, *need.code) or _has_trained(need) for need in stage.needs)


def _departure(stage: Stage, data: Data) -> dict[str, str]:
    """How images are shown to a model that a stage trains, where that is not as when it answers."""
    departs = stage.trains and data.training_images != "as_generated"
    return {"training_images": data.training_images} if departs else {}


def stages_by_key(stage: Stage, key_of: Callable[[Stage], str]) -> dict[str, Stage]:
    """Content key -> stage, of all that a stage needs and of itself, the first first, each once."""
    found: dict[str, Stage] = {}
    for need in stage.needs:
        found |= stages_by_key(need, key_of)
    return found | {key_of(stage): stage}


def run_stage(
    stage: Stage,
    *,
    data: Data,
    seed: int,
    fingerprint: str,
    model: Callable[[Path | None], HFModel],
    answers: Callable[[Path | None], VLM],
    scorer: Callable[[Path | None], Scorer | None],
    responses: Callable[[], ResponseStore],
    store: StageStore,
    report: Report,
    thinking: ThinkingConfig = _THINKING,
    stop: tuple[str, ...] = (),
    device: str = "auto",
    adapter_dtype: str = "",
) -> Path:
    """Gives the folder of a stage's output; computes it, and what it needs, if it is not there.

    A stage that fails or is killed leaves its work folder, where its next attempt goes on.

    Args:
        model: Gives the base model with an adapter folder attached, or as it is for None: for training.
        answers: As `Engine.answers`.
        scorer: As `Engine.likelihoods`.
        thinking: How what the model thinks is told from its answers.
        stop: Texts that end its answers; `fingerprint` has them.
        device: As settings name it, for what a stage computes beside the model.
        adapter_dtype: As the engine has it.

    Raises:
        RunError: Two needs of the stage share a name, it asks for likelihoods that nobody tells, or a
            server has left some of its questions unanswered.
    """
    again = partial(
        run_stage, data=data, seed=seed, fingerprint=fingerprint, model=model, responses=responses,
        store=store, report=report, thinking=thinking, stop=stop, answers=answers, scorer=scorer,
        device=device, adapter_dtype=adapter_dtype,
    )  # fmt: skip
    key_of = partial(
        stage_key, data=data, fingerprint=fingerprint, seed=seed, known={}, thinking=thinking,
        adapter_dtype=adapter_dtype,
    )  # fmt: skip
    key = key_of(stage)
    # Before its needs: they may have been cleared away since it was made of them.
    if done := store.sound(stage.name, key, report.line):
        return done
    names = [need.name for need in stage.needs]
    if len(set(names)) < len(names):
        raise RunError(f"stage {stage.name}: two of its needs have the same name ({', '.join(names)})")
    needs = {need.name: again(need) for need in stage.needs}
    asked: Counter[str] = Counter()

    def vlm(adapter: Path | None) -> VLM:
        own = adapter_fingerprint(fingerprint, adapter, adapter_dtype)
        cached = CachedVLM(lambda: answers(adapter), own, responses())
        return _Counted(ThinkingVLM(cached.generate, own, thinking, stop), asked)

    def likelihoods(adapter: Path | None, what: Sequence[tuple[Request, str]]) -> Iterator[Likelihood]:
        asked["scored"] += len(what)
        own = adapter_fingerprint(fingerprint, adapter, adapter_dtype)

        def make() -> Scorer:
            found = scorer(adapter)
            if found is None:
                raise RunError(f"stage {stage.name}: it needs likelihoods, which the engine does not give")
            return found

        return cached_likelihoods(make, own, responses(), what)

    with store.lock(stage.name, key):
        if done := store.sound(stage.name, key, report.line):  # by another process, meanwhile
            return done
        out = store.work_dir(stage.name, key)
        report.log(f"stage {stage.name}: begins in {out}" + (" (resumed)" if any(out.iterdir()) else ""))
        start = time.monotonic()
        context = StageContext(
            out=out,
            needs=needs,
            model=model,
            vlm=vlm,
            likelihoods=likelihoods,
            data=data,
            seed=seed,
            log=report.log,
            progress=report.step,
            device=device,
        )
        try:
            stage.run(context)
        except (UserError, RunError):
            raise
        except Exception as error:
            if store.holds(stage.name, key):
                raise
            raise RunError(
                f"stage {stage.name}: {out} was deleted during its work, or another process has taken "
                "the stage over; the same command continues"
            ) from error
        seconds = time.monotonic() - start
        shutil.rmtree(out / gang.FOLDER, ignore_errors=True)  # of an attempt by several processes
        _check_adapter(stage, out)
        manifest = _manifest(stage, data, fingerprint, seed, seconds, key_of)
        if asked["unclosed"]:
            report.line(
                f"stage {stage.name}: {asked['unclosed']} of {asked['generations']} answers were cut while "
                "the model was thinking, and are left out; give it more room: -o thinking.max_new_tokens=..."
            )
        before = [(one, own) for own, one in stages_by_key(stage, key_of).items() if own != key]
        more = {"asked": dict(asked), "came_from": came_from(before, store)}
        folder = store.finish(stage.name, key, {**manifest, **more})
    report.log(f"stage {stage.name}: done in {seconds:.1f} s, {folder}")
    return folder


def _check_adapter(stage: Stage, out: Path) -> None:
    """Lets no adapter into the cache that training has broken.

    Raises:
        RunError: It holds NaN, infinities or values beyond all measure.
    """
    try:
        check_adapter_values(out / "adapter", "its adapter")
    except UserError as error:
        raise RunError(f"stage {stage.name}: training has diverged: {error}") from error


class _Counted:
    """A model that counts what it is asked, known answers included: what the stage costs on its own."""

    def __init__(self, vlm: VLM, asked: Counter[str]) -> None:
        self.fingerprint, self._vlm, self._asked = vlm.fingerprint, vlm, asked

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        """The fingerprint of the model behind."""
        failed, why = 0, ""
        for request, response in self._vlm.generate(requests):
            self._asked["generations"] += 1
            if response.unclosed:
                self._asked["unclosed"] += 1
            if response.finish_reason == "failed":  # which is no answer that anything could be made of
                failed, why = failed + 1, response.why or ""
                continue
            yield request, response
        if failed:
            raise RunError(
                f"{failed} of its requests have no answer: {why}; the same command asks them again"
            )


def _manifest(
    stage: Stage, data: Data, fingerprint: str, seed: int, seconds: float, key_of: Callable[[Stage], str]
) -> dict[str, Any]:
    """Where the output came from. Nothing of it is in the key that is not in `stage_key`."""
    return {
        "version": stage.version,
        "params": {**stage.params, **_departure(stage, data)},
        "needs": {need.name: key_of(need) for need in stage.needs},
        "model": fingerprint,
        "seed": seed,
        "seconds": round(seconds, 2),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
