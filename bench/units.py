"""What each version stands for: its files, where it is, and what it is now."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

EVALS, MODELS, TRAINING, POCKET = (f"stic_eval/{name}" for name in ("evals", "models", "training", "pocket"))

# What units import and no result depends on: messages, names, storage by content, sizes, transport.
ASIDE = {
    "benchmarks/__init__.py", f"{EVALS}/__init__.py", f"{EVALS}/lmms/__init__.py",
    "stic_eval/digests.py", "stic_eval/documents.py", "stic_eval/errors.py", "stic_eval/plugins.py",
    "stic_eval/library_messages.py", "stic_eval/dataset_messages.py",
    "stic_eval/printable.py", "stic_eval/registry.py", "stic_eval/plugin_code.py", "stic_eval/store.py",
    "stic_eval/stage_store.py", "stic_eval/lease.py", "stic_eval/entry_points.py",
    "stic_eval/durable_files.py", "stic_eval/process_identity.py",
    f"{MODELS}/fingerprint.py",
    f"{MODELS}/devices.py", f"{MODELS}/weight_memory.py", f"{MODELS}/adapter_values.py",
    f"{MODELS}/connection.py",
    f"{TRAINING}/pair_formats.py", f"{TRAINING}/training_memory.py",
    # Of which nothing is read (tests/unit/training/test_trackers.py).
    f"{TRAINING}/trackers.py", f"{TRAINING}/tracking_callback.py",
    # Who trains a stage, and where: what comes out is the same (tests/unit/training/test_gang.py).
    *(f"{TRAINING}/{name}.py" for name in ("gang", "gang_launch", "item_files", "ranks", "worker")),
    *(f"stic_eval/contracts/{name}.py" for name in ("curves", "engine", "method", "solver")),
    # `data check`, `data prepare`, `score` and `judge`, whose results are not kept; what keys are made of.
    *(
        f"{EVALS}/{name}.py"
        for name in (
            "agreement", "answer_summaries", "inspect_logs", "row_images", "row_storage",
            "data_check", "data_preparation", "predictions",
            "given_answers", "evaluation_versions",
        )
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """What one version stands for.

    Attributes:
        files: Patterns of files; `file:NAME,NAME` stands for these definitions with what of the file they
            use, or these entries, alone.
        version: The version: a number, or several.
        where: What to raise.
        imported: Its files' imports belong to it, unless a unit of `EVERYWHERE` has them.
    """

    files: tuple[str, ...]
    version: Callable[[], Any]
    where: str
    imported: bool = False


def _evaluation(name: str) -> Any:
    from stic_eval.evals import evaluation_versions

    return getattr(evaluation_versions, name)


def _lmms() -> Any:
    from stic_eval.evals.lmms import benchmark

    return benchmark._VERSION


def _pocket() -> Any:
    from stic_eval.pocket.rows import VERSION

    return VERSION


def _requests() -> Any:
    from stic_eval.store import REQUEST_VERSION

    return REQUEST_VERSION


def _solvers() -> dict[str, int]:
    from stic_eval import registry

    return {name: registry.solvers().get(name).version for name in SOLVERS}


def _benchmark(name: str) -> Any:
    from stic_eval import registry

    return registry.benchmarks().get(name).version


def _stages(*methods: str) -> dict[str, int]:
    from stic_eval import registry
    from stic_eval.contracts.method import Data
    from stic_eval.experiment.variants import stages
    from stic_eval.training.prompt_sets import load_prompts

    found: dict[str, int] = {}
    for method in map(registry.methods().get, methods):
        plan = method.plan(method.config(), Data((), (), "images", "sft", load_prompts()))
        found |= {stage.name: stage.version for stage in stages(plan.adapter)}
    return found


def _pairs(method: str) -> Any:
    return _stages(method)["pairs"]


def _all(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}.py" for name in names)


BENCHMARKS = ("chartqa", "llava_bench", "mathvista", "mmbench", "mmvet", "scienceqa", "textvqa")
SOLVERS = ("direct", "describe_and_respond", "self_consistency")
# Pairs, of any method.
MAKING = _all("stic_eval", "selftrain/pair_making", "models/clip", "training/preference_pairs")
EVERYWHERE = ("runner", "rows")  # in the key of every evaluation, and no benchmark's own
UNITS = {
    "runner": Unit(
        (*_all(EVALS, "runner", "clusters", "constant_answers", "scoring/aggregate", "scoring/__init__"),
         *_all("stic_eval", "benchmark_protocols", "types", "thinking_tags", "contracts/benchmark"),
         f"{MODELS}/thinking.py",
         "stic_eval/setting_groups.py:ThinkingConfig", "stic_eval/experiment/work.py:evaluate"),
        partial(_evaluation, "RUNNER"), "RUNNER in stic_eval/evals/evaluation_versions.py",
    ),
    "rows": Unit(
        _all(EVALS, "sources", "opened_rows", "data_places", "hub", "data_files", "rows", "arrow_rows",
             "json_files", "tsv_files", "released_folders", "image_cells", "columns", "remote_images",
             "row_faults", "image_roots"),
        partial(_evaluation, "ROWS"), "ROWS in stic_eval/evals/evaluation_versions.py",
    ),
    "solvers": Unit(
        _all("stic_eval/solvers", *SOLVERS, "requests"), _solvers, "version in a file of stic_eval/solvers",
    ),
    "scoring": Unit(
        (*_all(EVALS, "rule_grading", "judging", "option_matcher", "answer_extractor", "judge_replies",
               "official_prompts"),
         *_all(f"{EVALS}/scoring", "choice", "keyfacts", "mathvista", "relaxed", "subjects", "vqa"),
         f"{POCKET}/world.py:COLORS,OBJECT_SIZES,POSITIONS,SHAPES"),
        partial(_evaluation, "SCORING"), "SCORING in stic_eval/evals/evaluation_versions.py",
    ),
    **{
        name: Unit(
            (f"benchmarks/{name}.py",), partial(_benchmark, name), f"version in benchmarks/{name}.py", True,
        )
        for name in BENCHMARKS
    },
    "lmms": Unit((f"{EVALS}/lmms/*.py",), _lmms, f"_VERSION in {EVALS}/lmms/benchmark.py"),
    "pocket": Unit(
        (*_all(POCKET, "rows", "tasks", "questions", "language", "world"), f"{POCKET}/prompts.yaml:plain"),
        _pocket, f"_WORLD (pictures) or VERSION (questions) in {POCKET}/rows.py",
    ),
    "requests": Unit(
        (f"{MODELS}/*.py", *_all("stic_eval", "images", "image_budgets", "profiles"),
         "stic_eval/store.py:request_key"),
        _requests, "REQUEST_VERSION in stic_eval/store.py",
    ),
    "stages": Unit(
        (*_all("stic_eval", "selftrain/stages", "corruptions", "models/single_tile", "saved_datasets"),
         *MAKING,
         *_all("stic_eval/contracts", "corruption", "loss"), "stic_eval/selftrain/stage_runner.py:run_stage",
         "stic_eval/config_layers.py:from_yaml,shipped_files",
         *_all(TRAINING, "dpo", "sft", "training_loop", "losses", "lora", "instruction_data"),
         *_all(TRAINING, "checkpoints", "step_rows", "trainer_arguments"),
         *_all(TRAINING, "length_limits", "learning_check", "row_sharing", "prompt_sets", "hyperparameters")),
        partial(_stages, "sft", "positive_only", "stic"),
        "the version of a stage in stic_eval/selftrain/stages.py",
    ),
    **{
        name: Unit((f"methods/{name}.py", *MAKING), partial(_pairs, name), f"version in methods/{name}.py")
        for name in ("csr", "rlaif_v_lite", "seva", "sima")
    },
}  # fmt: skip


# ---------------------------------------------------------------- which files


def imports(root: Path, file: str) -> set[str]:
    """The files of this program that a file imports, at its top or in functions; not for types alone."""
    named = _imported((root / file).read_text(encoding="utf-8"))
    found = {_file(root, inner) or _file(root, outer) for outer, inner in named}
    return {file for file in found if file is not None and file != "stic_eval/__init__.py"}


@cache
def _imported(text: str) -> set[tuple[str, str]]:
    """(module, what of it) of all imports: of `from a import b`, ("a", "a.b"), which may be a module."""
    found: set[tuple[str, str]] = set()
    todo: list[ast.AST] = [ast.parse(text)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {(node.module, f"{node.module}.{alias.name}") for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {(alias.name, alias.name) for alias in node.names}
        todo += ast.iter_child_nodes(node)
    return found


def _file(root: Path, module: str) -> str | None:
    name = module.replace(".", "/")
    for package in ("benchmarks", "methods"):
        name = name.removeprefix("stic_eval/") if name.startswith(f"stic_eval/{package}") else name
    return next((path for path in (f"{name}.py", f"{name}/__init__.py") if (root / path).is_file()), None)


def files(root: Path, name: str) -> list[str]:
    """The files of a unit, some with the definitions that count."""
    unit = UNITS[name]
    found: list[str] = []
    for pattern in unit.files:
        if "*" in pattern:
            theirs = {pattern for other in UNITS.values() for pattern in other.files if other is not unit}
            matching = (path.relative_to(root).as_posix() for path in root.glob(pattern))
            found += [path for path in matching if path not in ASIDE | theirs and "__init__" not in path]
        else:
            found.append(pattern)
    todo = list(found) if unit.imported else []
    shared = {pattern.partition(":")[0] for other in EVERYWHERE for pattern in UNITS[other].files}
    while todo:
        for file in sorted(imports(root, todo.pop())):
            if file.startswith(EVALS) and file not in {*found, *shared, *ASIDE}:
                found.append(file)
                todo.append(file)
    return sorted(found)
