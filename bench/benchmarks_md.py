"""Writes docs/benchmarks.md from what the benchmark files declare: `python -m bench.benchmarks_md`.

`--check` fails if the page is not what would be written, and changes nothing.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from bench.rewriting import markdown_table
from stic_eval import registry
from stic_eval.contracts.benchmark import Benchmark, Departure, FolderLayout, HubData
from stic_eval.evals.sources import samples
from stic_eval.types import Record, Sample

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"

HEAD = """\
# Benchmarks and protocols

Written from the files in `benchmarks/` by `python -m bench.benchmarks_md`; change those, not this page.

Choose a protocol with `--protocol NAME`, and any option with `-o benchmarks.<name>.<option>=<value>`. The
table and every run's files name the variant. Rows come from the hub at the revision given here, from a local
copy, from VLMEvalKit's TSV (`-o rows.<name>=vlmeval`), or from a folder in one of the layouts listed (`-o
rows.<name>=FOLDER`). Unscored answers are counted and left out, never treated as wrong.

The program tries a data set's current id on the hub first, then its earlier ids ("before"), each at its own
revision. It uses a copy of a pinned commit in the local cache under any of these ids, without asking the hub;
with `--offline` it tries nothing else. A line says if an id is not available or is redirected. `--dry-run`
and a run's manifest name the id and revision in use. Most `lmms-lab/*` data sets of images were moved to
`lmms-lab-encoder/*` (lmms-eval, pull request 1416), which keeps their commits: the public history of
`lmms-lab-encoder/ChartQA` ends in the commit pinned here. For the other data sets this is assumed and was not
checked. `lmms:` tasks try both ids as well, at `main` unless `revision` says otherwise.

A protocol decides the question's text, the decoding and how answers are read. The text around the question
and the treatment of the picture belong to the model, under every protocol and in `lmms:` columns alike: see
[profiles](profiles.md). For LLaVA-1.5 that is Vicuna's template with LLaVA's system sentence. Under `llava`
this is what LLaVA's scripts send, padded picture included. Under `lmms` the conversation is the one that
lmms-eval's `llava_hf` falls back to (`--force_simple`, for a tokenizer without a template), with the padded
picture. By default lmms-eval 0.7.3 uses the processor's own template, without a system sentence, and lets the
processor crop the picture; `--profile none` does the same.

A *departure* is an intended difference from lmms-eval. Scoring has no others: the tests in `tests/parity/`
compare it with lmms-eval's own functions on at least 10,000 generated answers for each benchmark.

Decoding is greedy, up to the number of new tokens of the variant. For every benchmark, including plug-ins and
`lmms:` tasks, change it with `-o benchmarks.<name>.max_new_tokens=4096`, `.temperature=0.7`, `.top_p=0.9` and
`.stop=["..."]` (the first of these texts ends the answer and is left out). Changes are part of the
evaluation's key, and the table shows them beside the protocol. Under `lmms`, answers to TextVQA, LLaVA-Bench
and MMBench end before `ASSISTANT:`, like the tasks' `until` in lmms-eval 0.7.3. Its `llava_hf` reads that
setting but ignores it, while its models of Qwen2-VL and others follow it.

Thinking before an answer is not scored: [models that think](models.md#models-that-think).
"""


JUDGES = """\
## Judges, and figures by other judges

Scores of LLaVA-Bench and MM-Vet depend on the judge, and different tools use different judges:

| whose code | LLaVA-Bench | MM-Vet |
| --- | --- | --- |
| the authors' | `gpt-4-0314` (LLaVA, `eval_gpt_review_bench.py`) | `gpt-4-0613` (`mm-vet_evaluator.py`) |
| STIC's | `gpt-4-0613` (its `eval_gpt_review_bench.py`) | `gpt-4-0613` (its `eval_mm_vet.py`) |
| VLMEvalKit's tables | `gpt-4-1106-preview` | `gpt-4-1106-preview` |
| stic-eval | the one that you name | the one that you name |

Neither STIC's code nor its README says whether the paper's figures come from the judge that the code names.
Rows of its table 1 may have different judges: those of LLaVA-v1.5-7B (65.4 and 31.1) are the figures of
LLaVA's model zoo.

The known differences come from single gradings, and some from newly generated answers:

- LLaVA-Bench, `gpt-4-1106-preview` against `gpt-4-0314`: 1.1 to 6.1 points lower for the five models that
  VLMEvalKit's `results/LLaVABench.md` lists under both (LLaVA-v1.5-7B 60.7 and 63.4, -13B 64.6 and 70.7,
  InstructBLIP-7B 59.8 and 60.9, -13B 53.5 and 58.2, ShareGPT4V-13B 66.6 and 72.6). A user got 66.6 for
  LLaVA-v1.6-Mistral-7B, for which LLaVA's model zoo has 83.2 (VLMEvalKit, issue 194).
- MM-Vet, `gpt-4-1106-preview` against the official leaderboard (VLMEvalKit's `results/MMVet.md`):
  LLaVA-v1.5-7B 32.7 and 31.1, -13B 38.3 and 36.3, InstructBLIP-7B 33.1 and 26.2, ShareGPT4V-7B 34.7 and 37.6,
  mPLUG-Owl2 24.1 and 36.3: no common direction. InternVL's README for it (`internvl_chat/eval/mmvet`) calls
  the official server's scores significantly higher than VLMEvalKit's.
- MM-Vet of Qwen-VL-Chat: 45.7 by `gpt-4-0613`, 48.2 and 48.5 by MM-Vet's own server (VLFeedback, issue 6).
- `gpt-4-0314` is no longer available (lmms-eval, issue 64), so LLaVA's figures cannot be reproduced.

Such differences are as large as the gains that papers report. Therefore:

- `table --published` says under the table who graded what, even with `--no-notes`.
- Published figures are never tested against measured ones.
- Runs with columns graded by different judges do not merge.
- `compare` leaves out, with a note, a benchmark with answers graded by different judges. This includes
  ScienceQA, MMBench and MathVista, where a judge reads what rules cannot. It also leaves out benchmarks
  graded by different versions of this program.

To compare, run both with the same `--judge`: answers are cached, and nothing is generated again.
"""


def page() -> str:
    """The whole page. Benchmarks of other packages are left out."""
    known = registry.benchmarks()
    own = (known.get(name) for name in known.names())
    built_in = [one for one in own if _module(one).startswith("stic_eval.benchmarks.")]
    return "\n".join([HEAD, _overview(built_in), *(_section(one) for one in built_in), JUDGES])


def _module(benchmark: Benchmark) -> str:
    return str(getattr(benchmark.vary, "__module__", ""))


def _overview(benchmarks: list[Benchmark]) -> str:
    rows = [
        [
            f"[{one.title}](#{_anchor(one.title)})",
            f"`{one.name}`",
            f"{one.source.rows:,}",
            _coded(variants(one)),
            _judge(one),
        ]
        for one in benchmarks
    ]
    return markdown_table(("benchmark", "name", "n", "variants, the default first", "judge"), rows)


def variants(benchmark: Benchmark) -> list[Benchmark]:
    """The benchmark under every choice of its options, each variant once, the default first."""
    found = {benchmark.variant: benchmark}
    if benchmark.options is not None and benchmark.vary is not None:
        fields = benchmark.options.model_fields
        # The first field, the protocol, changes fastest: the protocols come first.
        for chosen in product(*(_values(field.annotation) for field in reversed(fields.values()))):
            values = dict(zip(reversed(fields), chosen, strict=True))
            one = benchmark.vary(benchmark.options.model_validate(values))
            found.setdefault(one.variant, one)
    return list(found.values())


def _values(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if annotation is bool:
        return [False, True]
    # `bool | None`: None is to leave it out.
    return [value for part in get_args(annotation) for value in _values(part)]


def _section(benchmark: Benchmark) -> str:
    parts = [f"## {benchmark.title}", _intro(benchmark)]
    facts = [
        ["metric", benchmark.metric],
        ["judge", _judge(benchmark)],
        ["broken down by", ", ".join(f"`{label}`" for label in labels(benchmark)) or "nothing"],
        ["column of the paper's table 1", benchmark.paper_column or "none"],
        ["version", str(benchmark.version)],
    ]
    parts.append(markdown_table(("", ""), facts))
    parts.append("### Variants\n\n" + _variants(benchmark))
    if benchmark.options is not None:
        parts.append("\n".join(_options(benchmark.options)))
    parts.append("### Data\n\n" + "\n".join(_data(benchmark)))
    parts.append("### Sources\n\n" + "\n".join(f"- {source}" for source in benchmark.sources))
    parts.append("### Departures\n\n" + "\n".join(_departures(benchmark)))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _intro(benchmark: Benchmark) -> str:
    doc = inspect.getdoc(sys.modules[_module(benchmark)]) or ""
    return doc.split("\n\n")[0].replace("\n", " ")


def _judge(benchmark: Benchmark) -> str:
    if benchmark.judging is None:
        return "none"
    return "grades every answer" if benchmark.judged else "reads what rules cannot"


def labels(benchmark: Benchmark) -> list[str]:
    """The kinds of labels that results are broken down by, as the embedded rows show them."""
    records = [_right(sample) for sample in samples(benchmark, "pocket")]
    return list(dict.fromkeys(label.split("/")[0] for label in benchmark.aggregate(records).breakdown))


def _right(sample: Sample) -> Record:
    return Record(
        sample.id, "", (), sample.target, sample.group, None, "", None, 1.0, 1.0, None, 0.0, 0, sample.meta
    )


def _variants(benchmark: Benchmark) -> str:
    rows = [
        [
            f"`{one.variant}`" if one.variant else "",
            one.protocol,
            f"{one.generation.max_new_tokens:,}",
            f"{one.source.rows:,}",
        ]
        for one in variants(benchmark)
    ]
    return markdown_table(("variant", "protocol", "new tokens", "n"), rows)


def _options(options: type[BaseModel]) -> Iterator[str]:
    meaning = described(options)
    for name, field in options.model_fields.items():
        default = "left out" if field.default is None else _written(field.default)
        values = ", ".join(_written(value) for value in _values(field.annotation))
        yield f"- `{name}` ({values}; default {default}): {meaning[name]}"


def _written(value: Any) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def described(options: type[BaseModel]) -> dict[str, str]:
    """Option -> its meaning, from the docstring's section `Attributes`.

    Raises:
        KeyError: An option has none.
    """
    _, _, attributes = (inspect.getdoc(options) or "").partition("Attributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {8,}.+)*)", attributes, re.MULTILINE)
    found = {name: " ".join(text.split()) for name, text in entries}
    return {name: found[name] for name in options.model_fields}


def _data(benchmark: Benchmark) -> Iterator[str]:
    seen: dict[HubData, list[str]] = {}
    for one in variants(benchmark):
        seen.setdefault(one.source, []).append(one.variant)
    for hub, names in seen.items():
        which = "" if len(seen) == 1 else f" ({', '.join(f'`{name}`' for name in names)})"
        config = f", configuration `{hub.name}`" if hub.name else ""
        at = f"split `{hub.split}`, revision `{hub.revision}`, n = {hub.rows:,}"
        yield f"- hub: `{hub.path}`{config}, {at}{which}"
        yield from (f"  - before: `{old.path}`, revision `{old.revision}`" for old in hub.former)
    for layout in benchmark.layouts:
        yield f"- {layout.name}: {_files(layout)}"
    yield f"- VLMEvalKit: `{benchmark.vlmeval}`" if benchmark.vlmeval else "- VLMEvalKit: none"


def _files(layout: FolderLayout) -> str:
    files = ", ".join(f"`{pattern}`" for pattern in layout.files.values())
    where = "at the paths that the rows name" if layout.images == "." else f"in `{layout.images}/`"
    return f"{files}, images {where}"


def _departures(benchmark: Benchmark) -> Iterator[str]:
    made = variants(benchmark)
    every: dict[Departure, list[str]] = {}
    for one in made:
        for departure in one.departures:
            every.setdefault(departure, []).append(one.variant)
    for departure, names in every.items():
        only = "" if len(names) == len(made) else f" (in {', '.join(f'`{name}`' for name in names)})"
        yield f"- {departure.what}{only}\n  - why: {departure.why}\n  - example: {departure.example}"
    if not every:
        yield "None."


# ---------------------------------------------------------------- Markdown


def _coded(benchmarks: list[Benchmark]) -> str:
    return "; ".join(f"`{one.variant}`" for one in benchmarks if one.variant)


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9-]", "", title.lower().replace(" ", "-"))


def main() -> None:
    """Writes the page, or checks that it has been written."""
    new = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(new, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != new:
        sys.exit(f"{PAGE.name} is not what the benchmark files say: python -m bench.benchmarks_md")


if __name__ == "__main__":
    main()
