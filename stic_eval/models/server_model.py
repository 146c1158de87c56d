"""A vision-language model behind an OpenAI-compatible server, such as vLLM, SGLang or a hosted API."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from stic_eval.errors import RunError, UserError
from stic_eval.models.canaries import check_going_on, check_likelihoods
from stic_eval.models.chat_wire import Chat, Reply
from stic_eval.models.connection import Endpoint
from stic_eval.models.detokenize import cut_answer
from stic_eval.models.image_encoding import encode_image, media_type
from stic_eval.models.openai_client import Client, Failure
from stic_eval.models.server_likelihood import GivenAnswer, server_likelihoods
from stic_eval.store import content_key
from stic_eval.thinking_tags import THINKING, TagPair
from stic_eval.types import Likelihood, Request, Response

# So many requests that fail, with none that is answered, and the server is not to be had.
_HOPELESS = 32


def server_fingerprint(base_url: str, model: str, system_prompt: str = "") -> str:
    """What answers of a served model are filed under: address and name are all that is known of it.

    A system prompt that it is sent counts as well.
    """
    return content_key(["openai", base_url.rstrip("/"), model, *([system_prompt] if system_prompt else [])])


class ServerModel:
    """Asks a server, many requests at once; a `VLM` of `stic_eval.contracts.engine`.

    Args:
        endpoint: The server, the model's name there, and how patiently it is asked.
        known: The model has answered before, so that what fails is the request's own trouble.
        system_prompt: Sent as the first message of conversations that have no system turn; empty: none.
        tags: More tags of what it may think, in which nothing is looked for that ends an answer.

    Attributes:
        fingerprint: Of address, name and system prompt.

    Raises:
        UserError: The address is none, or the key is no header value.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        known: bool = False,
        system_prompt: str = "",
        tags: Sequence[TagPair] = (),
    ) -> None:
        self.endpoint, self._known, self._system = endpoint, known, system_prompt
        self._tags = (*THINKING, *tags)
        self.fingerprint = server_fingerprint(endpoint.base_url, endpoint.model, system_prompt)
        self._client = Client(endpoint)
        self._goes_on = self._scores = False  # which is found out when it is first asked to

    @property
    def gone(self) -> UserError | RunError | None:
        """Why the server is not to be asked again; None: it may answer."""
        return self._client.gone

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        """Yields every request with its response as replies come; takes requests as they are needed.

        A request that fails for good has a response that says so (`finish_reason` is `failed`, `why`
        the reason): others may do better, and the next start asks it again.

        Raises:
            UserError: No request can succeed (wrong key, address or model; nothing at all is answered), an
                image cannot be read, or the server does not go on from a reply that has begun.
        """
        client, failed, why = self._asking(), 0, ""
        bound = max(_HOPELESS, 2 * self.endpoint.concurrency)
        for request, response in client.stream(
            self._checked(requests), lambda r: _answer(client, r, self._system, self._tags)
        ):
            if response.why is not None:
                failed, why = failed + 1, response.why
                if failed >= bound and not (self._known or client.served):
                    break
            yield request, response
        if failed and not (self._known or client.served):
            raise UserError(
                f"{self.endpoint.flag} {self.endpoint.model}: the server at {self.endpoint.base_url} "
                f"answered none of {failed} request{'' if failed == 1 else 's'}: {why}"
            )

    def likelihoods(self, asked: Iterable[GivenAnswer]) -> Iterator[tuple[GivenAnswer, Likelihood]]:
        """How likely given answers are: see `stic_eval.models.server_likelihood`.

        Raises:
            UserError: An image cannot be read, or the server tells no such thing.
            RunError: It has not answered.
        """
        client = self._asking()
        if not self._scores:
            check_likelihoods(client)
            self._scores = self._goes_on = True
        yield from server_likelihoods(client, asked, lambda request: _messages(request, self._system))

    def _asking(self) -> Client:
        if self._client.stopped:  # an earlier call ended before its time
            self._client = Client(self.endpoint)
        return self._client

    def _checked(self, requests: Iterable[Request]) -> Iterator[Request]:
        """Requests as they come, when it is known that the server can answer such."""
        for request in requests:
            if request.messages[-1].role == "assistant" and not self._goes_on:
                check_going_on(self._client)
                self._goes_on = True
            yield request


def _answer(client: Client, request: Request, system: str, tags: Sequence[TagPair]) -> Response:
    """Asks one request; runs in a thread of the client."""
    how = request.generation
    greedy = how.temperature <= 0
    chat = Chat(
        messages=_messages(request, system),
        max_tokens=how.max_new_tokens,
        temperature=0.0 if greedy else how.temperature,
        seed=None if greedy else how.seed,
        top_p=1.0 if greedy else how.top_p,
        stop=how.stop,
    )
    try:
        reply = client.ask(chat)
    except Failure as failure:
        return Response("", 0, "failed", why=str(failure))
    return _response(reply, how.stop, tags)


def _response(reply: Reply, stop: Sequence[str], tags: Sequence[TagPair]) -> Response:
    if reply.finish_reason == "content_filter":  # what is left of the text is not what the model said
        return Response("", 0, "failed", reply.seconds, why="cut by the server's content filter")
    finish: Any = "length" if reply.finish_reason == "length" else "stop"
    text = cut_answer(reply.text, stop, tags).strip()  # some servers leave in what ended it
    return Response(text, reply.n_tokens, finish, reply.seconds, thinking=reply.thinking.strip())


def _messages(request: Request, system: str) -> list[dict[str, Any]]:
    """The turns in OpenAI's shape; images stand before the first user turn's text, as data URLs."""
    own = any(message.role == "system" for message in request.messages[:1])
    turns: list[dict[str, Any]] = [{"role": "system", "content": system}] if system and not own else []
    images = request.images
    for message in request.messages:
        text = message.text.encode("utf-8", "replace").decode()  # half a surrogate pair is no JSON text
        content: str | list[dict[str, Any]] = text
        if message.role == "user" and images:
            urls = [_data_url(encode_image(image)) for image in images]
            pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            content, images = [*pictures, {"type": "text", "text": text}], ()
        turns.append({"role": message.role, "content": content})
    return turns


def _data_url(data: bytes) -> str:
    return f"data:{media_type(data)};base64,{base64.b64encode(data).decode()}"
