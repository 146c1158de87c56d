"""How well the embedded model judges itself: `python -m bench.selfjudge`, on validation pictures.

What RLAIF-V lite, SIMA and CSR rest on, measured with the prompts of their presets: whether sentences that
the model has said of a picture (sampled under a plain prompt) are right, which the picture's specification
tells. Written to `results/pocket/methods/selfjudge.json`; `python -m bench.methods_md` shows it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from scipy.stats import rankdata

from bench.committed import METHODS
from methods.sima import read_verdict
from stic_eval import config
from stic_eval.models.hf_model import HFModel
from stic_eval.pocket import language
from stic_eval.pocket.rows import picture
from stic_eval.pocket.world import draw_spec
from stic_eval.selftrain.pair_making import fill, question, sentences
from stic_eval.training.hyperparameters import Describing
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import ImageRef

OUT = METHODS / "selfjudge.json"
_PICTURES, _SAMPLES = 200, 2
Said = tuple[ImageRef, str, str, bool]  # picture, its true description, a sentence, whether it is right


def said(model: HFModel, plain: str) -> list[Said]:
    """Sentences that the model has said of validation pictures, each once."""
    specs = [draw_spec("val", seed, "any") for seed in range(_PICTURES)]
    shown = [picture(spec, "val", seed) for seed, spec in enumerate(specs)]
    how = Describing(temperature=1.0, max_new_tokens=96)
    asked = [
        (spec, question(plain, image, how, n))
        for spec, image in zip(specs, shown, strict=True)
        for n in range(_SAMPLES)
    ]
    answers = dict(model.generate(request for _, request in asked))
    found: dict[tuple[str, str], Said] = {}
    for spec, request in asked:
        image = request.images[0]
        for sentence in sentences(answers[request].text):
            claims = language.claims(sentence)
            if claims:
                right = claims <= language.truth(spec)
                found[image.sha256, sentence] = (image, language.describe(spec), sentence, right)
    return list(found.values())


def auc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """The share of pairs in which the right one scores higher (Mann and Whitney 1947); 0.5 is chance."""
    ranks, positive = rankdata(scores), sum(right)
    total = sum(rank for rank, is_right in zip(ranks.tolist(), right, strict=True) if is_right)
    return float((total - positive * (positive + 1) / 2) / (positive * (len(right) - positive)))


def main() -> None:
    """Measures, prints and writes."""
    model = HFModel.load("pocket")
    options = config.load(flags={"methods": ("sima", "csr", "rlaif_v_lite")}).method_options
    prompts = load_prompts("pocket")
    rows = said(model, prompts.plain[0])
    right = [row[3] for row in rows]
    how = Describing()

    def logps(asked: Sequence[tuple[Any, str]]) -> list[float]:
        found = dict(model.likelihoods(dict.fromkeys(asked)))
        return [found[one].logp / max(1, found[one].n_tokens) for one in asked]

    rlaif = options["rlaif_v_lite"]["pairs"]
    checks = [question(fill(rlaif["check_prompt"], claim=text), image, how) for image, _, text, _ in rows]
    yes, no = (logps([(check, verdict) for check in checks]) for verdict in rlaif["verdicts"])
    seen = logps([(question(prompts.step_by_step, image, how), text) for image, _, text, _ in rows])
    blind = logps([(question(prompts.step_by_step, None, how), text) for _, _, text, _ in rows])
    sima = options["sima"]["pairs"]
    wrong = [row for row in rows if not row[3]]
    judging = Describing(temperature=0.0, max_new_tokens=sima["judge_max_new_tokens"])
    # Either order, so that a liking for one place is worth nothing.
    orders = [
        question(
            fill(sima["judge_prompt"], reference=true, first=first, second=second, question=""),
            image,
            judging,
        )
        for image, true, text, _ in wrong
        for first, second in ((true, text), (text, true))
    ]
    replies = dict(model.generate(orders))
    verdicts = [read_verdict(replies[one].text, tuple(sima["verdicts"])) for one in orders]
    hits = [verdict == number % 2 for number, verdict in enumerate(verdicts) if verdict is not None]
    found = {
        "sentences": len(rows),
        "right": sum(right),
        "rlaif_v_lite": round(auc([a - b for a, b in zip(yes, no, strict=True)], right), 3),
        "csr": round(auc([a - b for a, b in zip(seen, blind, strict=True)], right), 3),
        "sima": round(sum(hits) / len(hits), 3) if hits else None,
        "sima_read": len(hits),
        "sima_asked": len(orders),
    }
    print(json.dumps(found, indent=1))
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
