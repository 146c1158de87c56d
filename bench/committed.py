"""What `results/` holds: folders, methods, seeds and ablations. Whatever makes or reads a part asks here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.versions import RECORD, tree
from stic_eval.store import content_key, file_sha256

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
POCKET = RESULTS / "pocket"  # the main run
METHODS = POCKET / "methods"  # STIC beside other methods
ABLATIONS_FOLDER = POCKET / "ablations"

SEEDS = (0, 1, 2, 3, 4)  # of the main run and of `components`
FEW = (0, 1, 2)  # of the rest
CONTROLS = ("sft", "positive_only", "stic_stage1", "stic")  # rows of the main run
RIVALS = ("stic", "seva", "sima", "csr", "rlaif_v_lite", "sft", "positive_only")


@dataclass(frozen=True)
class Ablation:
    """A shipped ablation as it is run here.

    Attributes:
        spared: Flags that leave out what this model or two cores are spared.
        figures: Beside the gains.
        seeds: Training seeds of every cell.
    """

    spared: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    seeds: tuple[int, ...] = FEW


ABLATIONS: Mapping[str, Ablation] = {
    "components": Ablation(figures=("progression",), seeds=SEEDS),
    "negatives": Ablation(),
    "image-source": Ablation(),
    "prompts": Ablation(),
    "infusion": Ablation(),
    "released-code-quirks": Ablation(),
    "data-fraction": Ablation(figures=("scaling",)),
    "alpha-beta": Ablation(),
    # More than half of the model's width.
    "lora-rank": Ablation(("--exclude", "rank=128"), ("scaling",)),
    "iterations": Ablation(("--exclude", "iterations=3")),
    "corruption": Ablation(("--exclude", "corruption=noise,diffusion,crop,blur,blank"), ("heatmap",)),
}


def program() -> str:
    """Content key of what decides a run's outcome beside its command.

    Versions, which `bench.versions` proves to stand for their code; methods as syntax trees, since what they
    plan has no version; settings and the model by content. So neither a name nor a comment makes results old.
    """
    units = json.loads(RECORD.read_text(encoding="utf-8"))
    methods = [tree(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "methods").rglob("*.py"))]
    data = [
        file_sha256(path)
        for folder in ("stic_eval", "methods", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".yaml", ".safetensors", ".json") and path.name != "gates.json"
    ]
    return content_key([{name: unit["version"] for name, unit in units.items()}, methods, sorted(data)])
