"""A chat completion as it goes over the wire: the body of a request, and what is read out of a reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stic_eval.documents import from_json
from stic_eval.models.connection import error_of

_THINKING = ("reasoning_content", "reasoning")


@dataclass(frozen=True)
class Chat:
    """One request.

    Attributes:
        messages: `{"role": ..., "content": ...}`; content is a text or a list of parts. Where the last one is
            the assistant's, the model is to go on from it.
        seed: Sent if it is given.
        top_p: Nucleus mass; sent if it is below 1.
        stop: Texts that end the reply; sent if there are any.
        scored: Asks for the log-probabilities of the prompt's tokens, as vLLM gives them.
        weighed: Asks for the log-probabilities of the reply's tokens.
    """

    messages: Sequence[Mapping[str, Any]]
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    top_p: float = 1.0
    stop: Sequence[str] = ()
    scored: bool = False
    weighed: bool = False

    def body(self, model: str, limit: str, *, going_on: bool = True) -> dict[str, Any]:
        """The body of the request.

        Args:
            model: The model's name at the server.
            limit: What it calls the bound on tokens.
            going_on: Whether a reply that has begun is gone on with: vLLM's and SGLang's dialect.
        """
        body: dict[str, Any] = {
            "model": model,
            "messages": [dict(message) for message in self.messages],
            "temperature": self.temperature,
            limit: self.max_tokens,
        }
        if self.seed is not None:
            body["seed"] = self.seed
        if self.top_p < 1:
            body["top_p"] = self.top_p
        if self.stop:
            body["stop"] = list(self.stop)
        if going_on and self.messages and self.messages[-1].get("role") == "assistant":
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        if self.scored:
            body["prompt_logprobs"] = 0  # of the token that there is alone
        if self.weighed:
            body["logprobs"] = True
        return body


@dataclass(frozen=True)
class Reply:
    """What the server answered.

    Attributes:
        text: The message's content; empty if the server gave a reason to finish instead.
        finish_reason: `stop`, `length`, `content_filter`, `refusal`, or whatever the server says.
        n_tokens: Generated tokens, if the server counts them, else 0.
        seconds: From sending the request that succeeded to its last byte.
        thinking: What the server has told from the content: `reasoning_content`, or `reasoning` as newer
            versions of vLLM call it.
        n_prompt: Tokens of the prompt, if the server counts them, else 0.
        prompt: Id and log-probability of each token of the prompt, the first one's 0; None: not told.
        weights: Log-probability of each token of the reply; empty: not told.
    """

    text: str
    finish_reason: str
    n_tokens: int = 0
    seconds: float = 0.0
    thinking: str = ""
    n_prompt: int = 0
    prompt: tuple[tuple[int, float], ...] | None = None
    weights: tuple[float, ...] = ()


class NoMessage(Exception):
    """A reply that is no completion, with the reason."""


def read_reply(data: bytes, seconds: float, clean: Callable[[str], str]) -> Reply:
    """What a body of status 200 says.

    Args:
        data: The body, untrusted.
        seconds: That it took.
        clean: Makes a text of it fit to be kept.

    Raises:
        NoMessage: It is no completion.
    """
    try:
        parsed = from_json(data)
        choice = parsed["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
        thinking = next((t for t in map(message.get, _THINKING) if isinstance(t, str) and t), "")
        usage = parsed.get("usage") or {}
        counted, before = usage.get("completion_tokens"), usage.get("prompt_tokens")
        prompt, weights = _prompt(parsed.get("prompt_logprobs")), _weights(choice.get("logprobs"))
    except (ValueError, OverflowError) as error:
        raise NoMessage(f"the reply is not JSON ({type(error).__name__})") from None
    except (KeyError, IndexError, TypeError, AttributeError):
        raise NoMessage(f"the reply has no message{error_of(data)}") from None
    finish = finish if isinstance(finish, str) else "stop"
    if isinstance(refusal, str) and refusal and not text:
        text, finish = refusal, "refusal"
    if text is None and (thinking or finish in ("content_filter", "length")):
        text = ""
    if not isinstance(text, str):
        raise NoMessage("the reply's content is no text")
    n_tokens, n_prompt = _count(counted), _count(before)
    return Reply(clean(text), finish, n_tokens, seconds, clean(thinking), n_prompt, prompt, weights)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else 0


def _prompt(given: Any) -> tuple[tuple[int, float], ...] | None:
    """VLLM's `prompt_logprobs`: nothing of the first token, of each other one {id: {"logprob": ...}}."""
    if not given:
        return None
    found = []
    for one in given:
        token, told = next(iter(one.items())) if one else (-1, {"logprob": 0.0})
        found.append((int(token), float(told["logprob"])))
    return tuple(found)


def _weights(given: Any) -> tuple[float, ...]:
    """OpenAI's `logprobs` of a choice."""
    tokens = (given or {}).get("content") or []
    return tuple(float(one["logprob"]) for one in tokens)
