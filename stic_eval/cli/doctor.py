"""`stic-eval doctor`: what this machine has, and what to do about each problem."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stic_eval.errors import UserError
from stic_eval.flags import Flag
from stic_eval.printable import printable
from stic_eval.waiting_threads import setting

if TYPE_CHECKING:
    from stic_eval.experiment import integrity

_NAMED = 5  # models of a server


def doctor(
    base_url: Annotated[str | None, Flag("Also check this OpenAI-compatible server.")] = None,
    api_key_env: Annotated[
        str | None, Flag("Environment variable with that server's key.", metavar="NAME")
    ] = None,
    cache: Annotated[bool, Flag("Check every file of the cache instead: answers, stages, images.")] = False,
    repair: Annotated[
        bool,
        Flag("With --cache: save readable answers, and set damaged stages aside to be made again."),
    ] = False,
    run: Annotated[str | None, Flag("Check the files of a run's folder instead.", metavar="RUN")] = None,
) -> None:
    """Check versions, device, memory, cache, optional extras, and a server if one is given."""
    if repair and not cache:
        raise UserError("--repair: mends the cache; give --cache as well")
    if cache or run:
        raise typer.Exit(1 if _check_files(cache, repair, run) else 0)
    problems = 0
    for name, value, advice in [*_checks(), *([_server(base_url, api_key_env)] if base_url else [])]:
        mark = "ok  " if not advice else "warn" if advice.startswith("optional") else "FAIL"
        problems += mark == "FAIL"
        print(f"{mark}  {name}: {value}" + (f"\n      -> {advice}" if advice else ""))
    if problems:
        raise typer.Exit(1)


def _check_files(cache: bool, repair: bool, run: str | None) -> int:
    """Looks at a cache and a run's folder, and says what is wrong; gives how many faults are left."""
    from stic_eval.experiment import integrity
    from stic_eval.report import runs
    from stic_eval.store import cache_dir

    places: list[tuple[Path, Iterator[integrity.Finding]]] = []
    if cache:
        places.append((cache_dir(), integrity.check_cache(cache_dir(), repair)))
    if run:
        folder = runs.find(run)
        places.append((folder, integrity.check_run(folder)))
        if (own := folder / "cache").is_dir():  # of one that was started over
            places.append((own, integrity.check_cache(own, repair)))
    left = 0
    for place, findings in places:
        checked, faults = 0, 0
        for finding in findings:
            checked += 1
            if finding.fault:
                mark = "mend" if finding.mended else "FAIL"
                faults += not finding.mended
                where = finding.path.relative_to(place)
                print(printable(f"{mark}  {where}: {finding.fault}\n      -> {finding.advice}"))
        print(f"{'FAIL' if faults else 'ok  '}  {place}: {checked} checked, {faults} damaged")
        for path in integrity.set_aside(place):
            print(f"      {path.relative_to(place)}: was set aside; delete it when you no longer need it")
        left += faults
    return left


def _checks() -> list[tuple[str, str, str]]:
    """(what, what was found, what to do or empty) for everything that matters."""
    return [
        *_versions(),
        _device(),
        _memory(),
        _cache(),
        *_disk(),
        *_extras(),
        *_torchvision(),
        _judge(),
        _vllm(),
        _pocket(),
        *_plugins(),
    ]


def _versions() -> list[tuple[str, str, str]]:
    import sys
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    found = [
        (
            "python",
            sys.version.split()[0],
            "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer",
        )
    ]
    for line in requires("stic-eval") or ():
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            have = version(requirement.name)
        except PackageNotFoundError:
            found.append((requirement.name, "missing", f'pip install "{requirement}"'))
            continue
        fits = requirement.specifier.contains(have, prereleases=True)
        found.append((requirement.name, have, "" if fits else f'pip install "{requirement}"'))
    return found


def _device() -> tuple[str, str, str]:
    try:
        import torch
    except Exception as error:  # a broken install can raise OSError as well as ImportError
        return "device", f"torch cannot be imported: {error}", "reinstall torch for this machine"
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return "device", f"cuda: {name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free", ""
    if torch.backends.mps.is_available():
        return "device", "mps (Apple GPU)", ""
    return (
        "device",
        f"cpu, {torch.get_num_threads()} threads, {setting()}",
        "optional: models of billions of parameters need a GPU",
    )


def _memory() -> tuple[str, str, str]:
    import psutil

    memory = psutil.virtual_memory()
    text = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB available"
    return (
        "memory",
        text,
        "" if memory.available > 3 * 2**30 else "free some: the pocket run needs up to 3 GiB",
    )


def _cache() -> tuple[str, str, str]:
    from stic_eval.experiment.inputs import unwritable
    from stic_eval.store import cache_dir

    folder = cache_dir()
    reason = unwritable(folder)
    return (
        "cache",
        str(folder),
        f"{reason}: set STIC_EVAL_CACHE to a folder you can write to" if reason else "",
    )


def _disk() -> list[tuple[str, str, str]]:
    import shutil

    from stic_eval.store import cache_dir

    folder = cache_dir()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return [
        (
            "disk",
            f"{free / 2**30:.1f} GiB free",
            "" if free > 2**30 else "free at least 1 GiB, or move STIC_EVAL_CACHE",
        )
    ]


def _extras() -> list[tuple[str, str, str]]:
    from importlib.util import find_spec

    uses = {
        "matplotlib": ('"stic-eval[figures]"', "`plot` and the report's figures"),
        "openpyxl": ('"stic-eval[xlsx]"', "answers in workbooks"),
        # Beside any torch: by itself it would bring a torchvision of another build.
        "lmms_eval": (
            '"stic-eval[lmms]" && pip install --no-deps lmms-eval==0.7.3',
            "tasks of lmms-eval, official judge prompts",
        ),
        "pytest": ('"stic-eval[test]"', "running the tests"),
        "bitsandbytes": ("bitsandbytes", "--load-in-4bit and --load-in-8bit"),
        "flash_attn": ("flash-attn", "--attn flash_attention_2"),
    }
    found = []
    for module, (package, use) in uses.items():
        have = find_spec(module) is not None
        found.append(
            (
                module,
                "installed" if have else "not installed",
                "" if have else f"optional, for {use}: pip install {package}",
            )
        )
    return found


def _torchvision() -> list[tuple[str, str, str]]:
    """Nothing here needs it, but transformers imports one that is there, and one of another build ends it."""
    from importlib import import_module
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    if find_spec("torchvision") is None:
        return []
    have = {}
    for name in ("torch", "torchvision"):
        try:
            have[name] = version(name)
        except PackageNotFoundError:
            have[name] = "of unknown version"
    try:
        import_module("torchvision")
    except Exception as error:  # operators that are not there are a RuntimeError, libraries an OSError
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        text = f"{have['torchvision']} does not fit torch {have['torch']}: {printable(first)[:200]}"
        advice = "pip uninstall torchvision, which nothing here needs, or install its build for this torch"
        return [("torchvision", text, advice)]
    return [("torchvision", have["torchvision"], "")]


def _server(base_url: str, variable: str | None) -> tuple[str, str, str]:
    """Asks a server for the names of its models, which costs it nothing."""
    import os

    from stic_eval.engines import openai
    from stic_eval.models.connection import Endpoint, check_key, check_url

    key = os.environ.get(variable, "").strip() if variable else None
    if key == "":
        return "server", base_url, f"--api-key-env {variable}: that environment variable is not set"
    endpoint = Endpoint(base_url, "", api_key=key, prefix="--")
    chat = check_url(endpoint)
    check_key(endpoint)
    reply, names = openai.list_models(chat.removesuffix("/chat/completions"), key)
    reply = printable(reply)
    if reply.startswith(("HTTP 401", "HTTP 403")):
        return "server", f"{base_url}: {reply}", "needs a key, or a different one: see --api-key-env"
    if names is None and reply.startswith("cannot"):
        return "server", base_url, f"{reply}: is it up, at that address?"
    if names is None:
        # Not every server has such a list, so this may be one; or it is none.
        return (
            "server",
            f"{base_url}: lists no models (it answered {reply})",
            "optional: is the address right?",
        )
    names = [printable(name) for name in names]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    listed = f"{', '.join(names[:_NAMED])}{more}" if names else "it names none"
    return "server", f"{base_url} answers; models for --model and --adapter-name: {listed}", ""


def _judge() -> tuple[str, str, str]:
    import os

    from stic_eval.evals import official_prompts
    from stic_eval.setting_groups import JudgeConfig

    name = JudgeConfig().api_key_env
    protocol = official_prompts.PROTOCOL if official_prompts.available() else "stic-eval-1"
    if os.environ.get(name):
        return "judge", f"{name} is set; prompts: {protocol}", ""
    return (
        "judge",
        f"{name} is not set; prompts: {protocol}",
        "optional, for LLaVA-Bench and MM-Vet: set it, or name another variable or a local server with "
        "--judge-api-key-env and --judge-base-url (pocket rows need no judge)",
    )


def _vllm() -> tuple[str, str, str]:
    from stic_eval.engines.vllm_command import find_vllm, version_of

    found = find_vllm()
    if found is None:
        return (
            "vllm",
            "not found",
            "optional, for --engine vllm: install it into its own environment, .venv-vllm",
        )
    return "vllm", f"{version_of((str(found), 'serve'))}, {found}", ""


def _pocket() -> tuple[str, str, str]:
    from importlib.resources import files

    folder = files("stic_eval.pocket") / "model"
    present = folder.is_dir() and any(item.name.endswith(".safetensors") for item in folder.iterdir())
    return "pocket model", "present" if present else "missing", "" if present else "reinstall stic-eval"


def _plugins() -> list[tuple[str, str, str]]:
    from stic_eval import registry
    from stic_eval.errors import UserError

    found = [("plug-in", file.error, "correct it, or take it away") for file in registry.methods().broken()]
    for reg in (registry.benchmarks(), registry.methods()):
        broken = []
        for name in reg.names():
            try:
                reg.get(name)
            except UserError as error:
                broken.append(str(error))
        found.append(
            (
                f"{reg.kind}s",
                f"{len(reg.names()) - len(broken)} of {len(reg.names())} load",
                "; ".join(broken),
            )
        )
    return found
