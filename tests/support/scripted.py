"""A model that says what a test has written down, and what a method makes pairs with in front of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from stic_eval import registry
from stic_eval.config import options_of
from stic_eval.contracts.engine import VLM
from stic_eval.contracts.method import Data, Progress, SFTItem, Stage, StageContext, items_key
from stic_eval.contracts.solver import Asking
from stic_eval.experiment.inputs import prompt_set
from stic_eval.selftrain.pair_making import Making
from stic_eval.selftrain.stage_runner import run_stage
from stic_eval.settings import RunConfig
from stic_eval.solvers.describe_and_respond import first_prompt
from stic_eval.stage_store import StageStore
from stic_eval.store import ResponseStore, content_key
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import Generation, ImageRef, Likelihood, Request, Response, Sample

Asked = tuple[Request, str]


def no_answer(request: Request) -> str:
    raise AssertionError(f"asked {request}")


def no_score(request: Request, answer: str) -> float:
    raise AssertionError(f"scored {answer!r}")


class Scripted:
    """Answers and scores by functions.

    Args:
        answer: Request -> text, or the whole response.
        score: (request, answer) -> nats.

    Attributes:
        asked: Requests so far, in order.
        scored: Answers that were scored, in order.
    """

    fingerprint = "scripted"

    def __init__(
        self,
        answer: Callable[[Request], str | Response] = no_answer,
        score: Callable[[Request, str], float] = no_score,
    ) -> None:
        self.asked: list[Request] = []
        self.scored: list[Asked] = []
        self._answer, self._score = answer, score

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        """Yields answers from the last request to the first: any order will do."""
        for request in reversed(list(requests)):
            self.asked.append(request)
            said = self._answer(request)
            if isinstance(said, str):
                said = Response(said, len(said.split()) + 1, "stop")
            yield request, said

    def likelihoods(self, asked: Iterable[Asked]) -> Iterator[tuple[Asked, Likelihood]]:
        """Yields scores, a word a token, from the last one to the first."""
        for request, answer in reversed(list(dict.fromkeys(asked))):
            self.scored.append((request, answer))
            yield (request, answer), Likelihood(self._score(request, answer), len(answer.split()))


class Quiet:
    """A report that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.updates: list[tuple[str, int | None, int, int | None]] = []

    def log(self, line: str) -> None:
        self.lines.append(line)

    line = log

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Progress]:
        updates = self.updates

        class Step:
            def update(self, done: int, new: int | None = None) -> None:
                updates.append((name, total, done, new))

        yield Step()


def pictures(count: int) -> tuple[ImageRef, ...]:
    """References to images of one colour each."""
    return tuple(
        ImageRef(f"{i:064x}", f"{i}.png", partial(Image.new, "RGB", (8, 8), (i, i, i))) for i in range(count)
    )


def talks(count: int, *turns: tuple[str, str]) -> tuple[SFTItem, ...]:
    """Items of instruction data; `{n}` in a turn is the item's number."""
    turns = turns or (("user", "What is {n}?"), ("assistant", "The right answer {n}."))
    return tuple(
        SFTItem(str(i), image, tuple((role, text.replace("{n}", str(i))) for role, text in turns))
        for i, image in enumerate(pictures(count))
    )


def solving(name: str = "direct", **options: Any) -> dict[str, Any]:
    """A solver, its options and a prompt set, as `runner.evaluate` takes them."""
    solver = registry.solvers().get(name)
    return {"solver": solver, "options": solver.options(**options), "prompts": load_prompts()}


def solved(
    samples: Sequence[Sample], model: VLM, generation: Generation, name: str = "direct", **options: Any
) -> Iterator[tuple[Sample, str | None, Response]]:
    """What a solver of a name makes of samples; an answer is read as it is, without spaces around it."""
    by = solving(name, **options)
    asking = Asking(generation, lambda sample, text: text.strip() or None, by["prompts"])
    return by["solver"].solve(samples, model, asking, by["options"])


def first(config: RunConfig) -> str:
    """What describe-and-respond of a run asks first."""
    solver = registry.solvers().get("describe_and_respond")
    return first_prompt(options_of(config, solver), prompt_set(config))  # type: ignore[arg-type]


def data_of(images: int = 0, items: int = 0, **more: Any) -> Data:
    """So many pictures and items as a run's data."""
    shown, told = pictures(images), talks(items)
    keys = content_key([image.sha256 for image in shown]), items_key(told)
    return Data(shown, told, *keys, **{"prompts": load_prompts(), **more})


def making(
    model: Scripted,
    out: Path,
    *,
    images: Sequence[ImageRef] = (),
    items: Sequence[SFTItem] = (),
    prompts: dict[str, tuple[str, ...]] | None = None,
    seed: int = 0,
    iteration: int = 1,
    report: Quiet | None = None,
) -> Making:
    """What a method's function is given, with a scripted model behind it."""
    told = report or Quiet()

    def likelihoods(folder: Path | None, asked: Sequence[Asked]) -> Iterator[Likelihood]:
        found = dict(model.likelihoods(asked))
        return iter([found[one] for one in asked])

    def no_model(folder: Path | None) -> Any:
        raise AssertionError("pairs are made without weights in this process")

    context = StageContext(
        out=out, needs={}, model=no_model, vlm=lambda folder: model, likelihoods=likelihoods,
        data=data_of(), seed=seed, log=told.log, progress=told.step,
        device="cpu",
    )  # fmt: skip
    return Making(images, items, prompts or {"plain": ("Describe.",)}, iteration, None, context)


class Lab:
    """Where stages are run in front of a scripted model."""

    def __init__(self, folder: Path, model: Scripted) -> None:
        self.store, self.report, self.model = StageStore(folder / "stages"), Quiet(), model
        self.views: list[Path | None] = []
        self._responses = ResponseStore(folder / "responses.sqlite")

    def _view(self, adapter: Path | None) -> Any:
        self.views.append(adapter)
        return self.model

    def run(self, made: Stage, data: Data, seed: int = 0) -> Path:
        return run_stage(
            made, data=data, seed=seed, fingerprint="base", model=self._view, answers=self._view,
            scorer=self._view, responses=lambda: self._responses, store=self.store, report=self.report,
        )  # fmt: skip


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The pairs that a stage has written."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(folder / "pairs.parquet").to_pylist()
    return rows
