"""What users of neighbouring tools type: understood as it is, or answered by what to write instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_SPELLINGS = {"latex": "tex", "markdown": "md"}
# lmms-eval's arguments of a model -> the option that says the same.
_MODEL_ARGS = {
    "pretrained": "--model", "model": "--model", "model_version": "--model", "revision": "--revision",
    "dtype": "--dtype", "device": "--device", "batch_size": "--batch-size", "attn_implementation": "--attn",
    "trust_remote_code": "--trust-remote-code", "load_in_4bit": "--load-in-4bit",
    "load_in_8bit": "--load-in-8bit", "peft": "--adapter", "adapter": "--adapter", "base_url": "--base-url",
    "max_concurrent": "--concurrency", "timeout": "--timeout", "chat_template": "--chat-template",
    "system_prompt": "--system-prompt",
}  # fmt: skip
_GEN_KWARGS = {"max_new_tokens": "max_new_tokens", "max_gen_toks": "max_new_tokens", "until": "stop",
               "temperature": "temperature", "top_p": "top_p"}  # fmt: skip


def spelling(word: str) -> str:
    """An option or a choice as it is spelled here: with hyphens, and formats by their short names."""
    return _SPELLINGS.get(word, word.replace("_", "-"))


def advice(option: str, argv: Sequence[str]) -> str | None:
    """What to write instead of an option that only neighbouring tools have; None: they do not have it either.

    Args:
        option: As it is spelled here, e.g. `--model-args`.
        argv: The command line, for the option's value.
    """
    if option not in _ADVICE:
        return None
    command = argv[0] if argv else ""
    if (command, option) == ("train", "--data"):
        return None
    typed, value = option, ""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, rest = word.partition("=")
        if spelling(name) == option:
            typed, value = name, rest if equals else following
    said = _ADVICE[option]
    return f"{typed}: {said if isinstance(said, str) else said(value)}"


# Flags that take no value, and what their values look like elsewhere.
_SWITCHES = {"--trust-remote-code", "--load-in-4bit", "--load-in-8bit"}
_OFF = ("false", "0", "no", "n", "none", "")


def _model_args(value: str) -> str:
    def flag(key: str, given: str) -> str:
        name = _MODEL_ARGS[key]
        if name in _SWITCHES:
            return "" if given.lower() in _OFF else name
        return f"{name} {given}"

    return _each(value, _MODEL_ARGS, flag, "--model ID --dtype bfloat16")


def _gen_kwargs(value: str) -> str:
    def setting(key: str, given: str) -> str:
        return f"-o benchmarks.NAME.{_GEN_KWARGS[key]}={given}"

    return _each(value, _GEN_KWARGS, setting, "-o benchmarks.NAME.max_new_tokens=64")


def _each(value: str, known: dict[str, str], write: Callable[[str, str], str], example: str) -> str:
    """Every `key=value` of a list in its own words."""
    pairs = [part.strip().partition("=") for part in value.split(",")]
    written = [write(key, given) for key, equals, given in pairs if equals and key in known]
    others = [key for key, equals, _ in pairs if equals and key not in known]
    rest = f" (nothing here corresponds to {', '.join(others)})" if others else ""
    if written and not any(written):
        return f"leave it out{rest}"
    text = f"`{' '.join(filter(None, written))}`" if written else f"e.g. `{example}`"
    return f"write {text} instead{rest}"


_ADVICE: dict[str, str | Callable[[str], str]] = {
    "--model-args": _model_args,
    "--gen-kwargs": _gen_kwargs,
    "--num-fewshot": "benchmarks are asked without examples; leave it out",
    "--log-samples": "every answer is written to records/ in the folder of the results anyway; leave it out",
    "--apply-chat-template": "a chat template is always applied, the model's or that of --chat-template; "
    "leave it out",
    "--data": "write `--benchmarks NAME,...` instead (`stic-eval ls benchmarks` lists them)",
    "--work-dir": "write `--output DIR` instead",
}
