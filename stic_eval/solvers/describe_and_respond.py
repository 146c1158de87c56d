"""Describe-and-respond: the image is described, then the question asked with the description (STIC, 2024)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stic_eval.contracts.engine import VLM
from stic_eval.contracts.method import PromptSet
from stic_eval.contracts.solver import Asking, Solved, Solver
from stic_eval.solvers.requests import next_of, request_of, with_seed
from stic_eval.types import Generation, Request, Response, Sample


class Options(BaseModel):
    """What the first pass asks, and how its answer reaches the second.

    Attributes:
        prompt: What the first pass asks; None takes the first prompt of `prompt_role` in the prompt set.
        prompt_role: Which of the set's prompts that is; the paper takes a plain one.
        separator: Between description and question, at inference and in the instruction data that stage 2
            trains on. The paper has one newline, its code two.
        sees_image: Whether the first pass is given the image. The released MMBench script gives none.
        max_new_tokens: Bound on the description's tokens.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    prompt: str | None = None
    prompt_role: Literal["plain", "step_by_step", "misleading"] = "plain"
    separator: str = "\n"
    sees_image: bool = True
    max_new_tokens: int = Field(default=1024, ge=1)


def first_prompt(options: Options, prompts: PromptSet) -> str:
    """What the first pass asks."""
    if options.prompt:
        return options.prompt
    found: str | tuple[str, ...] = getattr(prompts, options.prompt_role)
    return found if isinstance(found, str) else found[0]


def solve(samples: Sequence[Sample], model: VLM, asking: Asking, options: Options) -> Iterator[Solved]:
    """Has each image described once, and asks its questions with the description before them.

    Two conversations that know nothing of each other; the image is there in the second as well. A
    sample without image is asked directly, for there is nothing to describe.

    Yields:
        Every sample once, with the description that it was asked with. Tokens and seconds of the
        answer include the description's, which the answer would not be there without. Where the
        description failed, or was cut while the model was thinking, that is the answer.
    """
    prompt = first_prompt(options, asking.prompts)
    describing = Generation(max_new_tokens=options.max_new_tokens)
    described: dict[Request, Response] = {}
    waiting: dict[Request, list[Sample]] = {}  # for a description that has been asked for
    answering: dict[Request, deque[Sample]] = {}
    ready: deque[Sample] = deque()
    source = iter(samples)

    def first(sample: Sample) -> Request:
        if not options.sees_image:  # one description, whatever the image
            return request_of(prompt, (), describing)
        return request_of(prompt, sample.images, describing)

    def request_for(sample: Sample) -> Request:
        text = sample.question
        if sample.images:
            text = f"Image description:\n{described[first(sample)].text}{options.separator}{text}"
        request = request_of(text, sample.images, with_seed(asking.generation, sample.id))
        answering.setdefault(request, deque()).append(sample)
        return request

    def feed() -> Iterator[Request]:
        """Questions whose image is described come first: a model may still have the image in memory."""
        while True:
            if ready:
                yield request_for(ready.popleft())
                continue
            sample = next(source, None)
            if sample is None:
                return
            wanted = first(sample)
            if not sample.images or wanted in described:
                ready.append(sample)
            elif wanted in waiting:
                waiting[wanted].append(sample)
            else:
                # Each image is described once, however many questions are asked about it.
                waiting[wanted] = [sample]
                yield wanted

    going = True
    while going:
        going = False
        for request, response in model.generate(feed()):
            going = True
            if request in waiting:
                same = waiting.pop(request)
                # Not kept: a later question asks for it once more.
                if response.finish_reason == "failed" or response.unclosed:
                    for sample in same:
                        yield sample, None, response
                else:
                    described[request] = response
                    ready.extend(same)
                continue
            sample = next_of(answering, request)
            if not sample.images:
                yield sample, None, response
                continue
            before = described[first(sample)]
            tokens, seconds = response.n_tokens + before.n_tokens, response.seconds + before.seconds
            yield sample, before.text, replace(response, n_tokens=tokens, seconds=seconds)


def key(options: Options, prompts: PromptSet) -> Any:
    """What the answers depend on: the wording of the first prompt, wherever it comes from, and the rest."""
    return [first_prompt(options, prompts), options.model_dump(exclude={"prompt", "prompt_role"})]


solver = Solver(
    name="describe_and_respond",
    title="DaR",
    suffix="dar",
    options=Options,
    solve=solve,
    requests=lambda options: 2,
    key=key,
)
