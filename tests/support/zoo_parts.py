"""What tiny checkpoints of any family are put together from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
# Of weights outside of the vision tower: with the usual 0.02, logits are so flat that rounding picks tokens.
STD = 0.2
VISION = ("vision_tower", "visual.", "vision_model")
SIDE, PATCH = 32, 8  # of an image, or of a tile of it; of a patch


def make_tokenizer(named: Mapping[str, str], others: Sequence[str] = (), *, bos: bool = False) -> Any:
    """A tokenizer of single bytes with control tokens, which come first.

    Args:
        named: Attribute -> token; `bos_token`, `eos_token`, `pad_token` and what the processor asks for.
        others: Further control tokens.
        bos: Whether it puts the start token in front.
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    specials = list(dict.fromkeys([*named.values(), *others]))
    symbols = specials + sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(specials)
    if bos:
        start = named["bos_token"]
        core.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, symbols.index(start))]
        )
    usual = ("bos_token", "eos_token", "pad_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        **{name: token for name, token in named.items() if name in usual},
        extra_special_tokens={name: token for name, token in named.items() if name not in usual},
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def chat_template(
    heads: Mapping[str, str], ends: Mapping[str, str], *, image: str, answer: str, begin: str = ""
) -> str:
    """A chat template in Jinja.

    Args:
        heads: Role -> what stands in front of its turns.
        ends: Role -> what stands behind them.
        image: An image's place.
        answer: Where the model's answer begins.
        begin: What the whole conversation begins with.
    """
    text = json.dumps
    return (
        f"{{{{ {text(begin)} }}}}{{% for message in messages %}}"
        f"{{{{ ({text(dict(heads))})[message['role']] }}}}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        f"{{% for part in message['content'] %}}{{% if part['type'] == 'image' %}}{{{{ {text(image)} }}}}"
        "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
        f"{{{{ ({text(dict(ends))})[message['role']] }}}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ {text(answer)} }}}}{{% endif %}}"
    )


def chatml(image: str) -> str:
    """Qwen's wording, which many took over."""
    roles = ("system", "user", "assistant")
    return chat_template(
        {role: f"<|im_start|>{role}\n" for role in roles},
        dict.fromkeys(roles, "<|im_end|>\n"),
        image=image,
        answer="<|im_start|>assistant\n",
    )


def spell(model: Any, tokenizer: Any) -> None:
    """Leaves only printable ASCII and the end to be said, so that different answers look different.

    Half a character of UTF-8 is shown as the same sign as any other. A head that is tied to the embeddings is
    made small beside the layers, or the model would but repeat its last token.
    """
    import torch

    said = tokenizer.convert_tokens_to_ids([*map(chr, range(33, 127)), "Ġ", tokenizer.eos_token])
    head = model.get_output_embeddings().weight
    tied = head is model.get_input_embeddings().weight
    with torch.no_grad():
        kept = head[said] * (0.2 if tied else 1.0)
        head.zero_()
        head[said] = kept


CHATML = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}


def save(
    folder: Path,
    model_class: str,
    config: Any,
    tokenizer: Any,
    processor_class: str,
    image_processor: Any,
    template: str,
    *,
    video: str | None = None,
    opened: Sequence[str] = (),
    **options: Any,
) -> Path:
    """Makes the model and writes it and its processor, in the files and words of transformers 5.

    Args:
        folder: Where to.
        model_class: Its name in transformers.
        config: Of the model.
        tokenizer: Of the processor.
        processor_class: Its name in transformers.
        image_processor: Of the processor.
        template: The chat template.
        opened: Gates that training would open, as they begin at 0, where nothing comes through.
        video: The class of the processor's video part, which only its name stands for.
        **options: Further settings of the processor.
    """
    import torch
    import transformers

    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    for part in (config, config.get_text_config()):
        for name in names:
            setattr(part, name, getattr(tokenizer, name))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, model_class)(config)
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and not any(part in name for part in VISION):
                torch.nn.init.normal_(parameter, std=STD)
            elif name.endswith(tuple(opened)):
                torch.nn.init.ones_(parameter)
    spell(model, tokenizer)
    for name in names:
        setattr(model.generation_config, name, getattr(tokenizer, name))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"processor_class": processor_class, "image_processor": image_processor.to_dict(), **options}
    if video is not None:
        settings["video_processor"] = {"video_processor_type": video}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(template)
    return folder


def ids(tokenizer: Any, **tokens: str) -> dict[str, Any]:
    """Setting -> the id of a token."""
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}


def random_adapter(folder: Path, model: Path, seed: int) -> Path:
    """Saves a LoRA adapter on a model's decoder with weights that change its answers, as PEFT does."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForImageTextToText

    from stic_eval.training.lora import LoraSettings, lora_config

    base = AutoModelForImageTextToText.from_pretrained(model, use_safetensors=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = get_peft_model(base, lora_config(base, LoraSettings(r=4, alpha=8)))
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    adapted.peft_config["default"].base_model_name_or_path = "tiny"
    adapted.save_pretrained(str(folder), save_embedding_layers=False)  # else PEFT asks the hub about "tiny"
    return folder
