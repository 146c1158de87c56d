"""The stages that methods are put together from; one that several methods share has one key.

Each function takes settings and gives a `Stage` whose parameters hold what changes its output and
nothing else. Versions are kept here, beside the work that they stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from stic_eval import registry
from stic_eval.contracts.curves import PREFERENCE_CURVES, TUNING_CURVES
from stic_eval.contracts.method import Data, Stage, StageContext
from stic_eval.plugin_code import foreign
from stic_eval.selftrain.pair_making import imported_pairs, made_pairs, own_fields, tell
from stic_eval.store import append_jsonl, read_jsonl, request_key
from stic_eval.training.hyperparameters import (
    Describing,
    FineTuning,
    PairSettings,
    PreferenceLoss,
    PreferenceTraining,
    Training,
    share,
)
from stic_eval.training.lora import LoraSettings
from stic_eval.training.losses import check_per_pair
from stic_eval.training.preference_pairs import local_random, pair_requests, positives, write_pairs
from stic_eval.types import Generation, Message, Request

__all__ = [
    "descriptions", "imported_pairs", "infused_sft", "made_pairs", "pairs", "positive_sft", "preference",
    "rounds", "shuffle_apart",
]  # fmt: skip

# Limits of fine-tuning that cut nothing, whatever they count; in version 1 they counted images. 1,024 is the
# embedded model's, whose rows have at most some 300 tokens with their image. Where it once cut all answers
# of another model's rows away, training taught nothing: such a stage is found by its adapter, not by its key.
_NEVER_REACHED = (None, 1024)

Infusion = Literal["own", "none", "shuffled"]
# What infusion had before it could be set, as the released code: with two newlines keys are as they were.
_FORMER_SEPARATOR = "\n\n"
Reference = Literal["previous", "base"]


def _changed_fields(settings: BaseModel, *names: str) -> dict[str, Any]:
    """Those of these fields that differ from their defaults.

    Parameters that came to a stage later enter its key in this way: what was made before them, and is
    what their defaults make, keeps its key.
    """
    fields = type(settings).model_fields
    return {
        name: getattr(settings, name) for name in names if getattr(settings, name) != fields[name].default
    }


def _training_params(training: Training) -> dict[str, Any]:
    """Settings of training as a stage's parameters; a limit on text, which came later, where there is one."""
    own = {"training": training.model_dump(mode="json", exclude={"max_length"})}
    return own | _changed_fields(training, "max_length")


def pairs(settings: PairSettings, data: Data, by: Stage | None = None, iteration: int = 1) -> Stage:
    """`pairs.parquet`: preferred and dispreferred descriptions of unlabeled images.

    Args:
        data: Counts the images, and has the prompts.
        by: Stage whose adapter gives both answers; None: the base model does.
        iteration: Of stage 1, from 1 on; each makes its own draws.
    """
    if data.pairs is not None and by is None:
        return imported_pairs(data)
    own = own_fields(PairSettings, settings)
    prompts = data.prompts
    count = share(own.images, own.fraction, len(data.images))

    def run(ctx: StageContext) -> None:
        asked = list(pair_requests(ctx.data.images[:count], prompts, own, ctx.seed, iteration))
        requests = [request for pair in asked for request in (pair.chosen, pair.rejected)]
        folder = ctx.needs[by.name] / "adapter" if by else None
        answers = _answers(ctx, folder, requests, "ask for pairs")
        whole = [p for p in asked if {request_key(p.chosen), request_key(p.rejected)} <= answers.keys()]
        report = write_pairs(whole, answers, ctx.out / "pairs.parquet", own)
        cut = {"with an answer cut while thinking": len(asked) - len(whole)}
        tell(ctx, report, own, cut if len(whole) < len(asked) else {}, "stage 1")

    constants = {"near_duplicates": {"similarity"}, "length_balance": {"length_ratio"}}
    unused = {"fraction", "chosen_prompt", "similarity", "length_ratio"} - constants.get(own.filter, set())
    params = own.model_dump(mode="json", exclude=unused) | _changed_fields(own, "chosen_prompt")
    params |= {"images": count, "corruptions": own.mix if own.p_corrupt > 0 else {}}
    params["prompts"] = prompts.model_dump(mode="json")
    if iteration > 1:
        params["iteration"] = iteration
    needs = (by,) if by else ()
    generations = 2 * min(count, len(data.images))
    code = tuple(registry.corruptions().get(kind).spoil for kind in params["corruptions"])
    return Stage(
        "pairs", 1, run, params,
        needs=needs, reads=("images",), generations=generations, code=code, kind="pairs",
    )  # fmt: skip


def preference(
    made: Stage,
    *,
    loss: PreferenceLoss,
    training: Training,
    lora: LoraSettings,
    start: Stage | None = None,
    reference: Reference = "previous",
) -> Stage:
    """`adapter/`: trained on pairs by regularised DPO.

    Args:
        start: Stage whose adapter is gone on from; None: a new one on the base.
        reference: What the model is held to: the adapter that it starts from, or the base.

    Raises:
        UserError: A pair's loss depends on other pairs.
    """
    own, constants = own_fields(Training, training), own_fields(PreferenceLoss, loss)

    def run(ctx: StageContext) -> None:
        from stic_eval.training.dpo import train_preferences

        with ctx.progress("preference training", None) as step:
            train_preferences(
                ctx.model(None), ctx.needs[made.name] / "pairs.parquet", ctx.out,
                loss=constants, training=own, lora=lora, seed=ctx.seed, images=ctx.data.training_images,
                start=ctx.needs[start.name] / "adapter" if start else None, reference=reference,
                progress=step.update, log=ctx.log,
            )  # fmt: skip

    params: dict[str, Any] = {"beta": loss.beta, "alpha": loss.alpha, **_training_params(own)}
    params |= _changed_fields(constants, "rejected_logp")
    if loss.alpha > 0:
        params |= _changed_fields(constants, "alpha_over")
    named = constants.loss_title if constants.loss_weights != {"sigmoid": 1.0} else ""
    if named:
        params["loss"] = {
            one.name: {"weight": weight, **constants.constants_of(one)} for weight, one in constants.parts()
        }
    if start is None:
        params["lora"] = lora.model_dump(mode="json")
    else:
        params["reference"] = reference
    needs = (made,) if start is None else (made, start)
    steps = own.steps(made.rows or made.generations // 2)
    code = tuple(one.compute for _, one in constants.parts())
    if foreign(*code):  # of our own tests know
        check_per_pair(constants)
    return Stage(
        "preference", 1, run, params,
        needs=needs, steps=steps, code=code, trains=True, kind="pair_training", curves=PREFERENCE_CURVES,
        loss=named,
    )  # fmt: skip


def rounds(
    make: Callable[..., Stage],
    iterations: int,
    *,
    training: PreferenceTraining,
    lora: LoraSettings,
    reference: Reference = "previous",
) -> Stage | None:
    """`adapter/`: in each iteration pairs by the last adapter, then preference training that goes on from it.

    Args:
        make: Gives the stage with pairs, of `by` (stage whose adapter answers, or None) and `iteration` (from
            1 on): `made_pairs` with all else bound.
        iterations: How many; 0 trains nothing.
        reference: What later iterations are held to: the adapter that they start from, or the base.
    """
    adapter: Stage | None = None
    for iteration in range(1, iterations + 1):
        made = make(by=adapter, iteration=iteration)
        adapter = preference(
            made, loss=training, training=training, lora=lora, start=adapter, reference=reference
        )
    return adapter


def positive_sft(made: Stage, *, training: Training, lora: LoraSettings) -> Stage:
    """`adapter/`: a new adapter on the base, fine-tuned to give the preferred answers of pairs."""
    own = own_fields(Training, training)

    def run(ctx: StageContext) -> None:
        from stic_eval.training.sft import train_sft

        with (
            positives(ctx.needs[made.name] / "pairs.parquet", ctx.out / "rows") as items,
            ctx.progress("fine-tuning on preferred descriptions", None) as step,
        ):
            train_sft(
                ctx.model(None), items, ctx.out,
                training=own, lora=lora, seed=ctx.seed, images=ctx.data.training_images,
                progress=step.update, log=ctx.log,
            )  # fmt: skip

    params = {**_training_params(own), "lora": lora.model_dump(mode="json")}
    steps = own.steps(made.rows or made.generations // 2)
    return Stage(
        "positive_sft", 1, run, params,
        needs=(made,), steps=steps, trains=True, kind="pair_training", curves=TUNING_CURVES,
    )  # fmt: skip


def descriptions(adapter: Stage | None, data: Data, *, tuning: FineTuning, how: Describing) -> Stage:
    """`descriptions.jsonl`: the images of the instruction data, described under plain prompts.

    Args:
        adapter: Stage whose adapter describes; None: the base model does.
        data: Counts the items, and has the prompts.
        tuning: Says how many items, from the front.
    """
    plain, own = data.prompts.plain, own_fields(Describing, how)
    items = share(tuning.items, tuning.fraction, len(data.sft_items))

    def run(ctx: StageContext) -> None:
        asked: list[Request] = []
        for item in ctx.data.sft_items[:items]:
            draw = local_random("description", ctx.seed, item.image.sha256, item.turns)
            prompt, seed = draw.choice(plain), draw.getrandbits(31)
            decoding = Generation(
                own.max_new_tokens, own.temperature, own.top_p, seed if own.temperature > 0 else 0
            )
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
                 "description": answers.get(request_key(request))}
                for item, request in rows
            ],
        )  # fmt: skip

    params = {"items": items, "plain": list(plain), **own.model_dump(mode="json")}
    count = min(items, len(data.sft_items))
    needs = (adapter,) if adapter else ()
    return Stage(
        "descriptions", 1, run, params, needs=needs, reads=("sft",), generations=count, kind="descriptions"
    )


def infused_sft(
    data: Data,
    *,
    tuning: FineTuning,
    lora: LoraSettings,
    described: Stage | None = None,
    start: Stage | None = None,
    infusion: Infusion = "own",
) -> Stage:
    """`adapter/`: fine-tuned on instruction data, with descriptions in front of the instructions.

    Args:
        data: Counts the items, and has what stands between a description and the instruction.
        tuning: How many items, from the front; steps, rates and batches; tokens of a row.
        described: Stage with the descriptions; None: instructions stay as they are.
        start: Stage whose adapter is gone on from; None: a new one.
        infusion: `own` descriptions, or `shuffled` ones of other items' images.
    """
    own, separator = own_fields(Training, tuning), data.separator
    items = share(tuning.items, tuning.fraction, len(data.sft_items))

    def run(ctx: StageContext) -> None:
        from stic_eval.training.instruction_data import infuse
        from stic_eval.training.sft import train_sft

        chosen: Sequence[Any] = ctx.data.sft_items[:items]
        if described is not None:
            rows = read_jsonl(ctx.needs[described.name] / "descriptions.jsonl")
            texts = [row["description"] for row in rows]
            if infusion == "shuffled":
                texts = shuffle_apart(texts, ctx.seed)
            both = zip(chosen, texts, strict=True)
            chosen = [infuse(item, text, separator) for item, text in both if text is not None]
        with ctx.progress("fine-tuning", None) as step:
            train_sft(
                ctx.model(None), chosen, ctx.out,
                training=own, lora=lora, seed=ctx.seed, images=ctx.data.training_images,
                start=ctx.needs[start.name] / "adapter" if start else None, progress=step.update,
                log=ctx.log,
            )  # fmt: skip

    params: dict[str, Any] = {"items": items, "max_length": own.max_length} | _training_params(own)
    if start is None:
        params["lora"] = lora.model_dump(mode="json")
    if described is not None:
        params["infusion"] = infusion
        if separator != _FORMER_SEPARATOR:
            params["separator"] = separator
    count = min(items, len(data.sft_items))
    needs = tuple(stage for stage in (described, start) if stage is not None)
    name = "sft" if described is None else "infused_sft"
    version = 1 if own.max_length in _NEVER_REACHED else 2
    return Stage(
        name, version, run, params,
        needs=needs, reads=("sft",), steps=own.steps(count), trains=True, kind="item_training",
        curves=TUNING_CURVES,
    )  # fmt: skip


def shuffle_apart(texts: Sequence[str], seed: int) -> list[str]:
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
    """Content key of each request -> the model's answer, but for those cut while it was thinking."""
    found: dict[str, str] = {}
    with ctx.progress(what, len(requests)) as step:
        for done, (request, response) in enumerate(ctx.vlm(adapter).generate(requests), 1):
            if not response.unclosed:
                found[request_key(request)] = response.text
            step.update(done, len(requests))
    return found
