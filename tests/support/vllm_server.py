"""A server with vLLM's API and a real tiny model behind it: prompts and logits are made by transformers.

It shares no code with the client, nor with the engine of this process but for loading weights. Errors are
worded as vLLM 0.32 words them. `python -m tests.support.vllm_server serve FOLDER --port N` is `vllm serve`.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Reply = tuple[int, Any]  # status; a JSON value, or a text


@dataclass
class Conduct:
    """How it behaves, in what tests vary.

    Attributes:
        name: The base model's name.
        dialect: `vllm` or `sglang`.
        runtime_adapters: Whether adapters may be loaded.
        max_rank: Largest rank of an adapter.
        likelihoods: Whether the prompt's log-probabilities are told.
        going_on: Whether replies that have begun are gone on with.
        blind: It sees none of the folders that it is given.
        inert: Adapters are loaded, and not applied.
        shift: Added to every logit of token 5: another model, nearly.
        before: Called with each completion's body before it is answered.
        dies: Whether it ends with a path and a body that it is sent.
    """

    name: str = "base"
    dialect: str = "vllm"
    runtime_adapters: bool = True
    max_rank: int = 128
    likelihoods: bool = True
    going_on: bool = True
    blind: bool = False
    inert: bool = False
    shift: float = 0.0
    before: Callable[[dict[str, Any]], None] = lambda body: None
    dies: Callable[[str, dict[str, Any]], bool] = lambda path, body: False


@dataclass
class Brain:
    """A model that is asked in turn.

    Attributes:
        folder: Of the model.
        adapters: Name -> folder.
    """

    folder: Path
    conduct: Conduct = field(default_factory=Conduct)
    adapters: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from stic_eval.models.hf_model import HFModel

        self._base = HFModel.load(str(self.folder), device="cpu", dtype="float32")
        self._lock = threading.Lock()

    def complete(self, body: dict[str, Any]) -> Reply:
        """A chat completion."""
        name = body["model"]
        if self.conduct.dialect == "sglang":
            name = name.partition(":")[2] or name
        if name != self.conduct.name and name not in self.adapters:
            return _error(404, f"The model `{name}` does not exist.")
        with self._lock:
            return 200, self._complete(body, None if self.conduct.inert else self.adapters.get(name))

    def _complete(self, body: dict[str, Any], adapter: Path | None) -> dict[str, Any]:
        import torch

        processor, network = self._base.processor, self._base.with_adapter(adapter).model
        text, images = self._prompt(body)
        inputs = processor(
            text=[text],
            images=images or None,
            return_tensors="pt",
            add_special_tokens=not text.startswith("<s>"),
        )
        ids, greedy = inputs["input_ids"][0], body["temperature"] == 0
        how = {} if greedy else {"temperature": body["temperature"], "top_p": body.get("top_p", 1.0)}
        if not greedy:
            torch.manual_seed(body["seed"])
        with torch.inference_mode():
            found = network.generate(
                **inputs, max_new_tokens=body["max_tokens"], do_sample=not greedy, output_logits=True,
                return_dict_in_generate=True, **how,
            )  # fmt: skip
            scores = network(**inputs).logits[0].float() if "prompt_logprobs" in body else None
        new = found.sequences[0, len(ids) :]
        ended = int(new[-1]) == processor.tokenizer.eos_token_id
        message = {"role": "assistant", "content": processor.tokenizer.decode(new, skip_special_tokens=True)}
        choice: dict[str, Any] = {"message": message, "finish_reason": "stop" if ended else "length"}
        if body.get("logprobs"):
            each = [one[0].float().log_softmax(-1) for one in found.logits]
            told = [{"logprob": float(one[token])} for one, token in zip(each, new, strict=True)]
            choice["logprobs"] = {"content": told}
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(new)}
        reply = {"choices": [choice], "usage": usage}
        if scores is not None and self.conduct.likelihoods:
            shifted = scores.clone()
            shifted[:, 5] += self.conduct.shift
            logps = shifted[:-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
            pairs = zip(ids[1:].tolist(), logps.tolist(), strict=True)
            reply["prompt_logprobs"] = [None, *({str(i): {"logprob": p, "rank": 1}} for i, p in pairs)]
        return reply

    def _prompt(self, body: dict[str, Any]) -> tuple[str, list[Any]]:
        from PIL import Image

        turns, images = [], []
        for message in body["messages"]:
            parts = message["content"]
            parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts
            pictures = [one["image_url"]["url"] for one in parts if one["type"] == "image_url"]
            for url in pictures:
                images.append(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))
            texts = [one for one in parts if one["type"] == "text"]
            turns.append({"role": message["role"], "content": [{"type": "image"}] * len(pictures) + texts})
        how = {"add_generation_prompt": True}
        if self.conduct.going_on and body.get("continue_final_message"):
            how = {"add_generation_prompt": body["add_generation_prompt"], "continue_final_message": True}
        return self._base.processor.apply_chat_template(turns, tokenize=False, **how), images

    def load(self, body: dict[str, Any]) -> Reply:
        """`load_lora_adapter`."""
        name, folder = body["lora_name"], Path(body["lora_path"])
        assert not body.get("load_inplace")
        if not self.conduct.runtime_adapters:
            return 404, {"detail": "Not Found"}
        if name in self.adapters:
            return _error(400, f"The lora adapter '{name}' has already been loaded. If you want to load the "
                               "adapter in place, set 'load_inplace' to True.")  # fmt: skip
        if self.conduct.blind or not (folder / "adapter_config.json").is_file():
            return _error(404, f"Loading lora {name} failed: No adapter found for {folder}")
        rank = json.loads((folder / "adapter_config.json").read_text())["r"]
        if rank > self.conduct.max_rank:
            text = f"LoRA rank {rank} is greater than max_lora_rank {self.conduct.max_rank}."
            return _error(500, f"Loading lora {name} failed: {text}")
        self.adapters[name] = folder
        done = f"Success: LoRA adapter '{name}' added successfully."
        return 200, {"success": True} if self.conduct.dialect == "sglang" else done

    def unload(self, body: dict[str, Any]) -> Reply:
        """`unload_lora_adapter`."""
        if self.adapters.pop(body["lora_name"], None) is None:
            return _error(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
        return 200, f"Success: LoRA adapter '{body['lora_name']}' removed successfully."

    def models(self) -> Reply:
        """`/v1/models`."""
        own, base = self.conduct.dialect, self.conduct.name
        listed = [{"id": base, "owned_by": own, "parent": None}]
        listed += [{"id": name, "owned_by": own, "parent": base} for name in self.adapters]
        return 200, {"data": listed}


def _error(status: int, message: str) -> Reply:
    return status, {"error": {"message": message, "type": "Error", "code": status}}


class VLLMServer:
    """Such a model at an address.

    Attributes:
        url: The base URL, with `/v1`.
        dead: Whether it hangs up on everybody.
        asked: Bodies of completions.
        loads: Bodies of adapters that were to be loaded, with the answer's status.
    """

    def __init__(self, brain: Brain, port: int = 0) -> None:
        self.brain, self.asked, self.loads = brain, list[dict[str, Any]](), list[tuple[dict[str, Any], int]]()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"{}")
                self._answer(*server.post(self.path, body))

            def do_GET(self) -> None:
                if server.dead:
                    self._answer(0, None)
                    return
                known = {
                    "/health": (200, ""),
                    "/v1/models": brain.models(),
                    "/version": (200, {"version": "0"}),
                }
                self._answer(*known.get(self.path, (404, {"detail": "Not Found"})))

            def _answer(self, status: int, value: Any) -> None:
                if status == 0:  # it is gone
                    self.close_connection = True
                    self.connection.shutdown(2)
                    return
                data = (value if isinstance(value, str) else json.dumps(value)).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                if not isinstance(sys.exc_info()[1], OSError):  # clients hang up on purpose
                    super().handle_error(request, client_address)

        self._http = Quiet(("127.0.0.1", port), Handler)
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.dead = False

    def post(self, path: str, body: dict[str, Any]) -> Reply:
        """What is answered to a body at a path."""
        if self.dead or self.brain.conduct.dies(path, body):
            self.dead = True
            return 0, None
        prefix = "" if self.brain.conduct.dialect == "sglang" else "/v1"
        if path == f"{prefix}/load_lora_adapter":
            status, value = self.brain.load(body)
            self.loads.append((body, status))
            return status, value
        if path == f"{prefix}/unload_lora_adapter":
            return self.brain.unload(body)
        if path != "/v1/chat/completions":
            return 404, {"detail": "Not Found"}
        self.asked.append(body)
        self.brain.conduct.before(body)
        reply = self.brain.complete(body)
        return (0, None) if self.dead else reply

    def serve(self) -> None:
        """Answers until it is closed."""
        self._http.serve_forever(0.02)

    def close(self) -> None:
        """Ends it."""
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def serving_model(folder: Path, **conduct: Any) -> Iterator[VLLMServer]:
    """A server of a model folder in threads of this process."""
    server = VLLMServer(Brain(folder, Conduct(**conduct)))
    threading.Thread(target=server.serve, daemon=True).start()
    try:
        yield server
    finally:
        server.close()


def main(argv: list[str]) -> None:
    """As `vllm serve FOLDER --port N --served-model-name NAME --max-lora-rank R ...`."""
    import argparse

    if argv == ["--version"]:
        print("0.32.0")
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", default="base")
    parser.add_argument("--max-lora-rank", type=int, default=16)
    options, _ = parser.parse_known_args(argv)
    conduct = Conduct(options.served_model_name, max_rank=options.max_lora_rank)
    server = VLLMServer(Brain(options.folder, conduct), options.port)
    print("ready", flush=True)
    server.serve()


if __name__ == "__main__":
    main(sys.argv[1:])
