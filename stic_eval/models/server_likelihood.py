"""How likely a model at a server holds given answers, by vLLM's `prompt_logprobs`.

The server is given the conversation with the answer as its open end, and tells the log-probability of each of
its tokens. Those of the answer are the ones behind what the conversation without it begins with alike: as in
`stic_eval.models.likelihood`, white space that the template writes in front of an answer is the answer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stic_eval.errors import RunError, UserError
from stic_eval.models.chat_wire import Chat
from stic_eval.models.openai_client import Client, Failure
from stic_eval.types import Generation, Likelihood, Message, Request

GivenAnswer = tuple[Request, str]
Messages = Callable[[Request], Sequence[Mapping[str, Any]]]
_NO_DECODING = Generation(max_new_tokens=1)


def server_likelihoods(
    client: Client, asked: Iterable[GivenAnswer], messages: Messages
) -> Iterator[tuple[GivenAnswer, Likelihood]]:
    """Scores answers, those to one request one after the other, many requests at once.

    Args:
        client: The server's.
        asked: (request, answer), as `stic_eval.models.likelihood` has it.
        messages: A request's turns in OpenAI's shape.

    Yields:
        Every question with its likelihood, alike ones once; 0 nats of 0 tokens where an answer has none.

    Raises:
        UserError: The server tells no log-probabilities of prompts.
        RunError: It has not answered.
    """
    together: dict[Request, list[GivenAnswer]] = {}
    for request, answer in dict.fromkeys(asked):
        together.setdefault(replace(request, generation=_NO_DECODING), []).append((request, answer))

    def work(request: Request) -> list[tuple[GivenAnswer, Likelihood]]:
        head = _tokens(client, messages(request))
        found = []
        for one in together[request]:
            whole = _tokens(client, messages(_with(request, one[1]))) if one[1] else head
            pairs = enumerate(zip(head, whole, strict=False))
            start = next((at for at, (a, b) in pairs if a[0] != b[0]), min(len(head), len(whole)))
            own = whole[start:]
            found.append((one, Likelihood(sum(logp for _, logp in own), len(own))))
        return found

    for _, found in client.stream(together, work):
        yield from found


def _with(request: Request, answer: str) -> Request:
    *before, last = request.messages
    if last.role == "assistant":
        return replace(request, messages=(*before, Message("assistant", last.text + answer)))
    return replace(request, messages=(*request.messages, Message("assistant", answer)))


def _tokens(client: Client, messages: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, float], ...]:
    try:
        reply = client.ask(Chat(messages, max_tokens=1, scored=True))
    except Failure as failure:
        raise RunError(
            f"{client.place}: did not return how likely an answer is: {failure}; what it returned so far "
            "is kept"
        ) from None
    if reply.prompt is None:
        raise untold(client)
    return reply.prompt


def untold(client: Client) -> UserError:
    """That the server tells no log-probabilities of prompts."""
    return UserError(
        f"{client.place}: ignores prompt_logprobs, so it cannot tell how likely an answer is, which this "
        "run needs; ask vLLM, or let the model run here (--engine hf)"
    )
