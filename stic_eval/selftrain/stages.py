"""The stages that methods are put together from; one that several methods share has one key.

Each function takes settings and gives a `Stage` whose parameters hold what changes its output and
nothing else. Versions are kept here, beside the work that they stand for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from stic_eval.selftrain.method import Data, Stage, StageContext
from stic_eval.store import append_jsonl, read_jsonl, request_key
from stic_eval.train.lora import LoraSettings
from stic_eval.train.preferences import local_random, pair_requests, positives, write_pairs
from stic_eval.train.settings import PairSettings, Training
from stic_eval.types import Generation, Message, Request

Infusion = Literal["own", "none", "shuffled"]


def _own(settings: Training) -> dict[str, Any]:
    """A training's own fields, whatever a subclass has beside them."""
    return settings.model_dump(mode="json", include=set(Training.model_fields))


def pairs(settings: PairSettings, data: Data) -> Stage:
    """`pairs.parquet`: preferred and dispreferred descriptions of unlabeled images, by the base model."""
    own = PairSettings.model_validate(settings.model_dump(include=set(PairSettings.model_fields)))
    prompts = data.prompts
    count = min(own.images, len(data.images))

    def run(ctx: StageContext) -> None:
        asked = list(pair_requests(ctx.data.images[: own.images], prompts, own, ctx.seed))
        requests = [request for pair in asked for request in (pair.chosen, pair.rejected)]
        answers = _answers(ctx, None, requests, "ask for pairs")
        report = write_pairs(asked, answers, ctx.out / "pairs.parquet", own)
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.negatives.items())
        ctx.log(
            f"{report.pairs} pairs ({kinds}); {report.identical} with equal answers, {report.dropped} dropped"
        )

    params = own.model_dump(mode="json") | {"prompts": prompts.model_dump(mode="json")}
    return Stage("pairs", 1, run, params, reads=("images",), generations=2 * count)


def preference(made: Stage, *, beta: float, alpha: float, training: Training, lora: LoraSettings) -> Stage:
    """`adapter/`: a new adapter on the base, trained on pairs by regularised DPO."""
    own = Training.model_validate(_own(training))

    def run(ctx: StageContext) -> None:
        from stic_eval.train.dpo import train_preferences

        with ctx.progress("preference training", None) as step:
            train_preferences(
                ctx.model(None), ctx.needs["pairs"] / "pairs.parquet", ctx.out,
                beta=beta, alpha=alpha, training=own, lora=lora, seed=ctx.seed, progress=step.update,
            )  # fmt: skip

    params = {"beta": beta, "alpha": alpha, "training": _own(own), "lora": lora.model_dump(mode="json")}
    return Stage("preference", 1, run, params, needs=(made,), steps=own.steps(made.generations // 2))


def positive_sft(made: Stage, *, training: Training, lora: LoraSettings) -> Stage:
    """`adapter/`: a new adapter on the base, fine-tuned to give the preferred answers of pairs."""
    own = Training.model_validate(_own(training))

    def run(ctx: StageContext) -> None:
        from stic_eval.train.sft import train_sft

        with (
            positives(ctx.needs["pairs"] / "pairs.parquet", ctx.out / "rows") as items,
            ctx.progress("fine-tuning on preferred descriptions", None) as step,
        ):
            train_sft(
                ctx.model(None), items, ctx.out,
                training=own, lora=lora, seed=ctx.seed, max_length=None, progress=step.update,
            )  # fmt: skip

    params = {"training": _own(own), "lora": lora.model_dump(mode="json")}
    return Stage("positive_sft", 1, run, params, needs=(made,), steps=own.steps(made.generations // 2))


def descriptions(
    adapter: Stage | None, data: Data, *, items: int, temperature: float, top_p: float, max_new_tokens: int
) -> Stage:
    """`descriptions.jsonl`: the images of the instruction data, described under plain prompts.

    Args:
        adapter: Stage whose adapter describes; None: the base model does.
        data: Counts the items, and has the prompts.
        items: How many items, from the front.
        temperature: Of sampling; 0 is greedy.
        top_p: Nucleus mass.
        max_new_tokens: Bound on a description.
    """
    plain = data.prompts.plain

    def run(ctx: StageContext) -> None:
        asked: list[Request] = []
        for item in ctx.data.sft_items[:items]:
            draw = local_random("description", ctx.seed, item.image.sha256, item.turns)
            prompt, seed = draw.choice(plain), draw.getrandbits(31)
            decoding = Generation(max_new_tokens, temperature, top_p, seed if temperature > 0 else 0)
            asked.append(Request((Message("user", prompt),), (item.image,), decoding))
        folder = ctx.needs[adapter.name] / "adapter" if adapter else None
        answers = _answers(ctx, folder, asked, "describe the images of the instruction data")
        path = ctx.out / "descriptions.jsonl"
        path.unlink(missing_ok=True)
        rows = zip(ctx.data.sft_items[:items], asked, strict=True)
        append_jsonl(
            path,
            [
                {"id": item.id, "image": item.image.sha256, "prompt": request.messages[0].text,
                 "description": answers[request_key(request)]}
                for item, request in rows
            ],
        )  # fmt: skip

    params = {
        "items": items, "plain": list(plain), "temperature": temperature, "top_p": top_p,
        "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    count = min(items, len(data.sft_items))
    needs = (adapter,) if adapter else ()
    return Stage("descriptions", 1, run, params, needs=needs, reads=("sft",), generations=count)


def infused_sft(
    data: Data,
    *,
    items: int,
    training: Training,
    lora: LoraSettings,
    max_length: int | None,
    described: Stage | None = None,
    start: Stage | None = None,
    infusion: Infusion = "own",
) -> Stage:
    """`adapter/`: fine-tuned on instruction data, with descriptions in front of the instructions.

    Args:
        data: Counts the items.
        items: How many items, from the front.
        training: Steps, rates and batches.
        lora: Size of a new adapter.
        max_length: Tokens of a row.
        described: Stage with the descriptions; None: instructions stay as they are.
        start: Stage whose adapter is gone on from; None: a new one.
        infusion: `own` descriptions, or `shuffled` ones of other items' images.
    """
    own = Training.model_validate(_own(training))

    def run(ctx: StageContext) -> None:
        from stic_eval.train.sft import infuse, train_sft

        chosen: Sequence[Any] = ctx.data.sft_items[:items]
        if described is not None:
            rows = read_jsonl(ctx.needs[described.name] / "descriptions.jsonl")
            texts = [row["description"] for row in rows]
            if infusion == "shuffled":
                texts = shuffled(texts, ctx.seed)
            chosen = [infuse(item, text) for item, text in zip(chosen, texts, strict=True)]
        with ctx.progress("fine-tuning", None) as step:
            train_sft(
                ctx.model(None), chosen, ctx.out,
                training=own, lora=lora, seed=ctx.seed, max_length=max_length,
                start=ctx.needs[start.name] / "adapter" if start else None, progress=step.update,
            )  # fmt: skip

    params: dict[str, Any] = {"items": items, "training": _own(own), "max_length": max_length}
    if start is None:
        params["lora"] = lora.model_dump(mode="json")
    if described is not None:
        params["infusion"] = infusion
    count = min(items, len(data.sft_items))
    needs = tuple(stage for stage in (described, start) if stage is not None)
    name = "sft" if described is None else "infused_sft"
    return Stage(name, 1, run, params, needs=needs, reads=("sft",), steps=own.steps(count))


def shuffled(texts: Sequence[str], seed: int) -> list[str]:
    """Each text at another one's place: the order is drawn, then all move on by one."""
    order = list(range(len(texts)))
    local_random("shuffled", seed).shuffle(order)
    moved = list(texts)
    for position, index in enumerate(order):
        moved[index] = texts[order[(position + 1) % len(order)]]
    return moved


def _answers(
    ctx: StageContext, adapter: Path | None, requests: Sequence[Request], what: str
) -> Mapping[str, str]:
    """Content key of each request -> the model's answer."""
    found: dict[str, str] = {}
    with ctx.progress(what, len(requests)) as step:
        for done, (request, response) in enumerate(ctx.vlm(adapter).generate(requests), 1):
            found[request_key(request)] = response.text
            step.update(done, len(requests))
    return found
