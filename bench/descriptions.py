"""What the pocket model says it sees, held against what was drawn: `python -m bench.descriptions`.

Object-level precision and recall of descriptions of validation pictures, under each kind of prompt and
of spoilt pictures, with and without adapters. A claim is an object with its place, colour and shape, a
colour with its value, or the word on a sign; a claim that is wrong in any part is wrong.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from stic_eval.images import corrupt
from stic_eval.models.hf_model import HFModel
from stic_eval.pocket.language import claims, truth
from stic_eval.pocket.recipe import prompts
from stic_eval.pocket.rows import picture
from stic_eval.pocket.world import Split, draw_spec
from stic_eval.types import Generation, ImageRef, Message, Request

TRAINED = ("stic_stage1", "stic", "positive_only")


def measure(model: HFModel, n: int, split: Split = "val") -> dict[str, dict[str, float]]:
    """Condition -> precision and recall in percent, and claims per picture."""
    specs = [draw_spec(split, 500_000 + seed) for seed in range(n)]
    images = [picture(spec, split, 500_000 + seed) for seed, spec in enumerate(specs)]
    said = prompts()
    conditions: dict[str, tuple[Sequence[str], list[ImageRef]]] = {
        "step-by-step prompt": ([said["step_by_step"]], images),
        "plain prompts": (said["plain"], images),
        "first plain prompt (DaR)": (said["plain"][:1], images),
        "misleading prompts": (said["misleading"], images),
        "plain prompts, low resolution": (said["plain"], [corrupt(image, "low_res") for image in images]),
        "plain prompts, colour jitter": (said["plain"], [corrupt(image, "jitter") for image in images]),
    }
    result = {}
    for name, (asked, shown) in conditions.items():
        requests = [
            Request((Message("user", asked[i % len(asked)]),), (image,), Generation(max_new_tokens=96))
            for i, image in enumerate(shown)
        ]
        # Requests are told apart by identity: two may be equal only if their pictures are.
        texts = {id(request): response.text for request, response in model.generate(requests)}
        made = [claims(texts[id(request)]) for request in requests]
        right = sum(len(claimed & truth(spec)) for claimed, spec in zip(made, specs, strict=True))
        claimed, there = sum(map(len, made)), sum(len(truth(spec)) for spec in specs)
        result[name] = {
            "precision": round(100 * right / max(1, claimed), 1), "recall": round(100 * right / there, 1),
            "claims": round(claimed / n, 2),
        }  # fmt: skip
    return result


def adapters() -> dict[str, Path]:
    """Adapters under the pocket preset and seed 0; trained if they are not there."""
    argv = [str(Path(sys.executable).parent / "stic-eval"), "train", "--quiet"]
    argv += ["--method", ",".join(TRAINED)]
    lines = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    return {name: Path(folder) for name, _, folder in (line.partition(": ") for line in lines)}


def main() -> None:
    """Measures, prints Markdown, and writes it where it is told to."""
    parser = argparse.ArgumentParser(prog="python -m bench.descriptions", description=__doc__)
    parser.add_argument("-n", type=int, default=400, help="pictures (default: %(default)s)")
    parser.add_argument("--base-only", action="store_true", help="leave out the adapters")
    parser.add_argument("--out", type=Path, help="folder for descriptions.md and descriptions.json")
    args = parser.parse_args()
    base = HFModel.load("pocket")
    measured = {"base": measure(base, args.n)}
    for name, folder in ({} if args.base_only else adapters()).items():
        measured[name] = measure(base.with_adapter(folder), args.n)
    lines = [
        "| descriptions by | under | precision | recall | claims a picture |",
        "|---|---|---:|---:|---:|",
    ]
    for model, conditions in measured.items():
        lines += [
            f"| {model} | {under} | {f['precision']:.1f} | {f['recall']:.1f} | {f['claims']:.2f} |"
            for under, f in conditions.items()
        ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "descriptions.md").write_text(text, encoding="utf-8")
        (args.out / "descriptions.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
