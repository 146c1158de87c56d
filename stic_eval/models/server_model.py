"""A vision-language model behind an OpenAI-compatible server, such as vLLM, SGLang or a hosted API."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from stic_eval.errors import RunError, UserError
from stic_eval.images import ref_from_pil, square
from stic_eval.models.canaries import check_going_on, check_likelihoods
from stic_eval.models.chat_wire import Chat, Reply
from stic_eval.models.connection import Endpoint
from stic_eval.models.detokenize import cut_answer
from stic_eval.models.image_encoding import encode_image, media_type
from stic_eval.models.openai_client import Client, Failure
from stic_eval.models.server_likelihood import GivenAnswer, server_likelihoods
from stic_eval.store import content_key
from stic_eval.thinking_tags import THINKING, TagPair
from stic_eval.types import ImageRef, Likelihood, Request, Response

T = TypeVar("T")

# So many requests that fail, with none that is answered, and the server is not to be had.
_HOPELESS = 32


class Here(Protocol):
    """The same model in this process."""

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        """As a VLM does."""
        ...

    def likelihoods(self, asked: Iterable[GivenAnswer]) -> Iterator[tuple[GivenAnswer, Likelihood]]:
        """As a scorer does."""
        ...


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
        pad: Colour of squares that images are padded to before they are sent; None: they are not.
        here: Gives the same model in this process, for what no server can be given: noise on a model's own
            input. None: there is none.
        recover: As the client has it.

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
        *,
        pad: tuple[int, int, int] | None = None,
        here: Callable[[], Here] | None = None,
        recover: Callable[[str], None] | None = None,
    ) -> None:
        self.endpoint, self._known, self._system = endpoint, known, system_prompt
        self._pad, self._here, self._recover = pad, here, recover
        self._tags = (*THINKING, *tags)
        self.fingerprint = server_fingerprint(endpoint.base_url, endpoint.model, system_prompt)
        self._client = Client(endpoint, recover=recover)
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
        noisy: list[Request] = []

        def work(request: Request) -> Response:
            return _answer(client, request, self._messages(request), self._tags)

        for request, response in client.stream(self._for_server(requests, noisy), work):
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
        if noisy and self._here is not None:
            yield from self._here().generate(noisy)

    def likelihoods(self, asked: Iterable[GivenAnswer]) -> Iterator[tuple[GivenAnswer, Likelihood]]:
        """How likely given answers are: see `stic_eval.models.server_likelihood`.

        Raises:
            UserError: An image cannot be read, or the server tells no such thing.
            RunError: It has not answered.
        """
        client, noisy = self._asking(), list[GivenAnswer]()
        plain = [one for one in asked if self._is_for_server(one, one[0], noisy)]
        if plain and not self._scores:
            check_likelihoods(client)
            self._scores = self._goes_on = True
        yield from server_likelihoods(client, plain, self._messages)
        if noisy and self._here is not None:
            yield from self._here().likelihoods(noisy)

    def tells_likelihoods(self) -> bool:
        """Whether the server tells how likely given answers are."""
        try:
            self.check(likelihoods=True)
        except UserError:
            if self._client.gone is not None:
                raise
            return False
        return True

    def check(self, *, going_on: bool = False, likelihoods: bool = False) -> None:
        """Makes sure that the server does what is going to be asked of it.

        Raises:
            UserError: It does not.
        """
        client = self._asking()
        if likelihoods and not self._scores:
            check_likelihoods(client)
            self._scores = self._goes_on = True
        if going_on and not self._goes_on:
            check_going_on(client)
            self._goes_on = True

    def _asking(self) -> Client:
        if self._client.stopped:  # an earlier call ended before its time
            self._client = Client(self.endpoint, recover=self._recover)
        return self._client

    def _for_server(self, requests: Iterable[Request], noisy: list[Request]) -> Iterator[Request]:
        """Requests as they come, when it is known that the server can answer such; others are put aside."""
        for request in requests:
            if self._is_for_server(request, request, noisy):
                if request.messages[-1].role == "assistant":
                    self.check(going_on=True)
                yield request

    def _is_for_server(self, item: T, request: Request, noisy: list[T]) -> bool:
        if self._here is None or all(image.diffusion is None for image in request.images):
            return True
        noisy.append(item)
        return False

    def _messages(self, request: Request) -> list[dict[str, Any]]:
        """The turns in OpenAI's shape; images stand before the first user turn's text, as data URLs."""
        own = any(message.role == "system" for message in request.messages[:1])
        system = self._system if not own else ""
        turns: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        images = request.images
        for message in request.messages:
            text = message.text.encode("utf-8", "replace").decode()  # half a surrogate pair is no JSON text
            content: str | list[dict[str, Any]] = text
            if message.role == "user" and images:
                urls = [_data_url(self._encode(image)) for image in images]
                pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
                content, images = [*pictures, {"type": "text", "text": text}], ()
            turns.append({"role": message.role, "content": content})
        return turns

    def _encode(self, image: ImageRef) -> bytes:
        if self._pad is not None and image.diffusion is None:
            image = ref_from_pil(square(image.load(), self._pad), image.source)
        return encode_image(image)


def _answer(
    client: Client, request: Request, messages: Sequence[Mapping[str, Any]], tags: Sequence[TagPair]
) -> Response:
    """Asks one request; runs in a thread of the client."""
    how = request.generation
    greedy = how.temperature <= 0
    chat = Chat(
        messages=messages,
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


def _data_url(data: bytes) -> str:
    return f"data:{media_type(data)};base64,{base64.b64encode(data).decode()}"
