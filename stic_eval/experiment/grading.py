"""Who grades, and how tables and manifests say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stic_eval.contracts.benchmark import Benchmark
    from stic_eval.contracts.method import Report
    from stic_eval.evals.judging import CachedJudge
    from stic_eval.setting_groups import JudgeConfig
    from stic_eval.settings import RunConfig


def judge_of(config: JudgeConfig, cache: Path, fresh: bool = False) -> CachedJudge | None:
    """The judge that a configuration names, None without one. Nothing is sent.

    Args:
        config: Who, and how it is reached.
        cache: Where its replies are kept.
        fresh: Ask for everything anew.

    Raises:
        UserError: Its protocol needs lmms-eval, which is not installed.
    """
    if config.model is None:
        return None
    from stic_eval.evals.judging import CachedJudge

    return CachedJudge(config, cache, fresh=fresh)


def identity(judge: CachedJudge | None) -> Mapping[str, Any] | None:
    """Whatever of a judge decides its verdicts: model, protocol, replies a sample, temperature."""
    if judge is None:
        return None
    settings = judge.settings
    return {
        "model": settings.model,
        "protocol": judge.protocol,
        "samples": settings.samples,
        "temperature": settings.temperature,
    }


def check_key(
    judge: CachedJudge | None, config: RunConfig, benchmarks: Sequence[Benchmark], report: Report
) -> None:
    """Says now that the judge has no key, not after hours of answers; it may need none if all is cached."""
    import os

    from stic_eval.evals.data_places import is_pocket

    asked = [b for b in benchmarks if b.judging is not None and not is_pocket(config.rows_of(b.name))]
    name = config.judge.api_key_env
    if judge is not None and asked and name and not os.environ.get(name):
        report.line(f"warning: {name} is not set, so judge {judge.model} cannot be asked about new answers")


def protocol_text(benchmark: Benchmark) -> str:
    """A benchmark's protocol by name and content, for under a table."""
    return f"protocol {benchmark.variant}; {benchmark.protocol}" if benchmark.variant else benchmark.protocol


def grader_text(benchmark: Benchmark, rows: str, judge: CachedJudge | None) -> str:
    """Who grades a benchmark's open answers, for under a table; empty where nothing is left open.

    Args:
        benchmark: Which.
        rows: Where its rows come from.
        judge: Who is configured.
    """
    from stic_eval.evals.data_places import is_pocket
    from stic_eval.evals.rule_grading import RULE_NOTE

    if is_pocket(rows):
        return RULE_NOTE if benchmark.judged else ""
    if benchmark.judging is None:
        return ""
    if judge is not None:
        times = f", {judge.settings.samples} replies each" if judge.settings.samples > 1 else ""
        return f"judge {judge.settings.model} ({judge.protocol}){times}"
    return "needs a judge (--judge MODEL)" if benchmark.judged else ""
