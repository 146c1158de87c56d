"""Adapters that a server loads while it runs: vLLM's and SGLang's dialects, and what goes wrong with them.

An adapter's name is made of its content, and it is never loaded in the place of another: servers keep what
they have computed under an adapter's name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from stic_eval.errors import RunError, UserError
from stic_eval.models.connection import Connection, Endpoint, NoReply, error_of
from stic_eval.models.fingerprint import adapter_fingerprint
from stic_eval.printable import printable
from stic_eval.store import read_object

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes for `--max-lora-rank`
_BODY = 1 << 20
_SHOWN = 200


@dataclass(frozen=True)
class Dialect:
    """How a kind of server is asked to load adapters, and for answers with one.

    Attributes:
        name: As `owned_by` of its models has it.
        below: What of the base URL the paths are appended to: all of it, or what stands before `/v1`.
        joined: Whether an adapter is asked for as `base:adapter`.
    """

    name: str
    below: str = ""
    joined: bool = False

    def url(self, base_url: str, what: str) -> str:
        """The address of `load_lora_adapter`, or `unload_lora_adapter`."""
        return f"{base_url.rstrip('/').removesuffix(self.below)}/{what}"

    def asked_as(self, base: str, adapter: str) -> str:
        """What a request names as the model."""
        return f"{base}:{adapter}" if self.joined else adapter


VLLM, SGLANG = Dialect("vllm"), Dialect("sglang", "/v1", joined=True)


def rank_of(adapter: Path) -> int:
    """An adapter's largest rank."""
    found = read_object(adapter / "adapter_config.json")
    pattern = found.get("rank_pattern")
    more = pattern.values() if isinstance(pattern, dict) else ()
    return max((int(rank) for rank in (found.get("r"), *more) if isinstance(rank, int)), default=1)


def allowed_rank(rank: int) -> int:
    """The smallest of vLLM's bounds that lets a rank in.

    Raises:
        UserError: It is larger than all of them.
    """
    for bound in RANKS:
        if rank <= bound:
            return bound
    raise UserError(f"lora.r: an adapter of rank {rank} is larger than vLLM accepts; set it to {RANKS[-1]}")


def name_of(adapter: Path) -> str:
    """An adapter's name at servers, by its content."""
    return f"stic-{adapter_fingerprint('', adapter)[:24]}"


def is_there(endpoint: Endpoint) -> bool:
    """Whether a server answers anything at all."""
    return _owners(endpoint) is not None


def dialect_of(endpoint: Endpoint) -> Dialect:
    """The dialect of servers, by who their models are owned by; vLLM's where they do not say.

    Raises:
        UserError: They have more than one.
        RunError: None of them answers.
    """
    said = [owners for one in endpoint.each() if (owners := _owners(one)) is not None]
    if not said:
        raise RunError(f"{_place(endpoint)}: does not answer; answers so far are kept")
    found = {SGLANG if SGLANG.name in owners else VLLM for owners in said}
    if len(found) > 1:
        raise UserError(
            f"{endpoint.prefix}base-url {','.join(endpoint.base_urls)}: some are vLLM, others SGLang; give "
            "servers of one kind"
        )
    return found.pop()


def _owners(endpoint: Endpoint) -> set[str] | None:
    """Who a server's models are owned by; None: it does not answer."""
    import httpx2

    headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
    try:
        reply = httpx2.get(f"{endpoint.base_url.rstrip('/')}/models", headers=headers, timeout=10.0)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError):
        return None
    try:
        return {str(model.get("owned_by")) for model in reply.json()["data"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()


def check_loads(endpoint: Endpoint, dialect: Dialect) -> None:
    """Makes sure, before anything is trained, that a server loads adapters at run time.

    Raises:
        UserError: It does not.
        RunError: It cannot be asked.
    """
    status, text = _post(endpoint, dialect, "load_lora_adapter", "stic-none", "/nonexistent/stic-none")
    if _knows_none(status, text):
        raise UserError(_loads_none(endpoint))
    if status in (401, 403):
        raise UserError(f"{_place(endpoint)}: refuses to load adapters (HTTP {status}): is the key right?")


def load(endpoint: Endpoint, dialect: Dialect, adapter: Path) -> bool:
    """Has a server load an adapter, unless it has it.

    Returns:
        Whether it was loaded by this call.

    Raises:
        UserError: It cannot, by how it was started or where the adapter lies.
        RunError: It failed.
    """
    name = name_of(adapter)
    status, text = _post(endpoint, dialect, "load_lora_adapter", name, str(adapter.absolute()))
    if status == 200:
        return True
    if status == 400 and re.search(r"already (been )?(loaded|registered)|already exists", text):
        return False
    place = f"{_place(endpoint)}: adapter {adapter}"
    if _knows_none(status, text):
        raise UserError(_loads_none(endpoint))
    if "No adapter found" in text or "No such file" in text:
        raise UserError(
            f"{place}: the server finds no adapter there; it must see the same folder (share the cache, "
            f"STIC_EVAL_CACHE, or run it on this machine): HTTP {status}: {text}"
        )
    if "max_lora_rank" in text or "LoRA rank" in text:
        rank = rank_of(adapter)
        raise UserError(
            f"{place}: its rank {rank} is more than the server accepts; start it with --max-lora-rank "
            f"{allowed_rank(rank)}, or train with -o lora.r=...: HTTP {status}: {text}"
        )
    raise RunError(f"{place}: the server has not loaded it: HTTP {status}: {text}")


def unload(endpoint: Endpoint, dialect: Dialect, name: str) -> None:
    """Has a server forget an adapter; whether it does is of no consequence."""
    try:
        _post(endpoint, dialect, "unload_lora_adapter", name, None)
    except RunError:
        return


def _post(endpoint: Endpoint, dialect: Dialect, what: str, name: str, path: str | None) -> tuple[int, str]:
    """Status, and the error's text in one line."""
    body = {"lora_name": name} | ({} if path is None else {"lora_path": path})
    line = Connection(endpoint.api_key, endpoint.timeout, _BODY)
    try:
        status, _, data = line.post(dialect.url(endpoint.base_url, what), json.dumps(body).encode())
    except NoReply as gone:
        raise RunError(f"{_place(endpoint)}: does not answer ({gone}); its answers so far are kept") from None
    finally:
        line.close()
    text = error_of(data).removeprefix(": ")
    if endpoint.api_key:
        text = text.replace(endpoint.api_key, "[key]")
    return status, printable(" ".join(text.split()))[:_SHOWN]


def _knows_none(status: int, text: str) -> bool:
    """Whether a server has no such address at all, or was started without adapters."""
    return (status in (404, 405) and text in ("Not Found", "Method Not Allowed", "")) or bool(
        re.search(r"(LoRA|lora) is not enabled|enable[-_]lora", text)
    )


def _loads_none(endpoint: Endpoint) -> str:
    return (
        f"{_place(endpoint)}: loads no adapters at run time; start vLLM with --enable-lora "
        "--api-server-count 1 and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, or name an adapter that it has "
        "(--adapter-name METHOD=NAME)"
    )


def _place(endpoint: Endpoint) -> str:
    return f"{endpoint.prefix}base-url {endpoint.base_url}"
