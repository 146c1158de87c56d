"""Small questions that show whether a server does what it is asked for, before its answers are believed.

What a server does not know it mostly ignores, and answers something else with status 200.
"""

from __future__ import annotations

from stic_eval.errors import UserError
from stic_eval.models.chat_wire import Chat
from stic_eval.models.openai_client import Client, Failure
from stic_eval.models.server_likelihood import untold

_BEGUN = (
    {"role": "user", "content": "Count from one to ten."},
    {"role": "assistant", "content": "One, two, three,"},
)
_TOLD = ({"role": "user", "content": "Say yes."}, {"role": "assistant", "content": "Yes"})


def check_likelihoods(client: Client) -> None:
    """Makes sure that a server tells how likely a given answer is.

    Raises:
        UserError: It does not.
    """
    check_going_on(client)
    try:
        reply = client.ask(Chat(_TOLD, max_tokens=1, scored=True))
    except Failure as failure:
        raise UserError(f"{client.place}: refuses to tell how likely an answer is: {failure}") from None
    if not reply.prompt or len(reply.prompt) != reply.n_prompt:
        raise untold(client)


def check_going_on(client: Client) -> None:
    """Makes sure that a server goes on from a reply that has begun, where a request ends in one.

    By the tokens of the prompt: where the turn is left open, neither its end nor the beginning of another
    reply is among them.

    Raises:
        UserError: It does not, or it does not count them, so that nobody knows.
    """
    line = client.place
    what = "a reply that has begun, which this run asks for"
    advice = "ask vLLM or SGLang, or let the model run here (--engine hf)"
    asked = Chat(_BEGUN, max_tokens=1)
    try:
        open_, closed = client.ask(asked), client.ask(asked, going_on=False)
    except Failure as failure:
        raise UserError(f"{line} refuses to go on from {what}: {failure}; {advice}") from None
    if not open_.n_prompt or not closed.n_prompt:
        raise UserError(
            f"{line} does not count a prompt's tokens, so it is unknown whether it continues from "
            f"{what}; {advice}"
        )
    if open_.n_prompt >= closed.n_prompt:
        raise UserError(
            f"{line} ignores continue_final_message: it starts a new answer instead of continuing from "
            f"{what}; "
            f"{advice}"
        )
