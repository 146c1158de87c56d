"""What generation and training take of time, by a model's size and a GPU's figures.

Pure arithmetic; every assumption is a named number here, and docs/clusters.md has the table that it gives.
FLOP are counted as by Kaplan et al. (2020, section 2.1): 2 for each parameter and token of a forward pass, as
many for the gradients of activations. Weights that are frozen have no gradients of their own, so that a step
of LoRA takes 4, and 2 more where activations are computed again. Attention is left out: at some 800 tokens it
is a few percent.
"""

from __future__ import annotations

from dataclasses import dataclass

from stic_eval.errors import UserError

# Shares of a GPU's peak that are counted on: of FLOP in passes over whole prompts and in training, of memory
# bandwidth in decoding. They are assumed: nothing here was measured on a GPU.
PREFILL, TRAINING, BANDWIDTH = 0.5, 0.35, 0.7
# Memory that is left for weights, keys and values; and what a process takes of it beside them, in bytes.
USABLE, PROCESS = 0.9, 4e9
ROWS = 256  # that are decoded at once, at most
# Seconds that a launch of an operation takes, which is assumed; and operations a layer of a step of decoding
# in this process, without and with an adapter, as `bench.launches` counts them. A server replays graphs.
LAUNCH, OPERATIONS, WITH_ADAPTER = 8e-6, 36, 50
DISK = 1e9  # bytes a second at which weights are read, once a task


@dataclass(frozen=True)
class Hardware:
    """A GPU by its data sheet.

    Attributes:
        name: As its driver has it, or a part of that.
        flops: FLOP/s in bfloat16, without sparsity.
        bandwidth: Bytes/s of its memory.
        memory: Bytes.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float


GPUS = (
    Hardware("H200", 9.89e14, 4.8e12, 141e9),
    Hardware("H100", 9.89e14, 3.35e12, 80e9),
    Hardware("A100", 3.12e14, 2.0e12, 80e9),
    Hardware("L40S", 3.62e14, 8.64e11, 48e9),
    Hardware("RTX 4090", 1.65e14, 1.01e12, 24e9),
)


def gpu_of(name: str, memory: float = 0) -> Hardware | None:
    """The figures of a GPU by its driver's name, with the memory that it has; None: it is not listed."""
    found = next((gpu for gpu in GPUS if gpu.name in name), None)
    if found is None or not memory:
        return found
    return Hardware(found.name, found.flops, found.bandwidth, memory)


def gpu_named(name: str) -> Hardware:
    """The figures of a GPU that somebody has named.

    Raises:
        UserError: It is not listed.
    """
    plain = name.casefold().replace(" ", "").replace("-", "")
    for gpu in GPUS:
        if plain == gpu.name.casefold().replace(" ", ""):
            return gpu
    raise UserError(f"--hardware {name}: there are figures only for {', '.join(gpu.name for gpu in GPUS)}")


@dataclass(frozen=True)
class Size:
    """A model by its size.

    Attributes:
        parameters: How many.
        width: Bytes of each in memory.
    """

    parameters: float
    width: float = 2.0

    @property
    def hidden(self) -> float:
        """Width h of its layers, if it is built as models of 7B are: h / 128 layers of 12 h^2 parameters."""
        return float((self.parameters * 128 / 12) ** (1 / 3))

    @property
    def layers(self) -> float:
        """How many."""
        return self.hidden / 128

    @property
    def cached(self) -> float:
        """Bytes of keys and values of a token, in 16 bits, every head with its own."""
        return 2 * self.layers * self.hidden * 2


@dataclass(frozen=True)
class Answers:
    """Answers that are generated.

    Attributes:
        count: How many.
        prompt: Tokens of a prompt, its image's among them.
        tokens: Of an answer.
        adapter: Whether an adapter that is not merged is at work.
    """

    count: int
    prompt: int
    tokens: int
    adapter: bool = False


@dataclass(frozen=True)
class Rows:
    """Rows that are trained on.

    Attributes:
        count: How many, epochs counted.
        tokens: Of one: its image, prompt and answer.
        answers: Two of a pair, which are passed through with their prompt each; else one.
        reference: Whether they are passed through a reference as well.
    """

    count: int
    tokens: int
    answers: int = 1
    reference: bool = False


def rows_at_once(work: Answers, size: Size, gpu: Hardware) -> int:
    """Answers that are decoded at once: as many as have room for their keys and values."""
    free = gpu.memory * USABLE - PROCESS - size.parameters * size.width
    return int(min(ROWS, max(1, free / (size.cached * (work.prompt + work.tokens))), max(1, work.count)))


def seconds_of_answers(work: Answers, size: Size, gpu: Hardware, graphs: bool = False) -> float:
    """Seconds of one GPU: prompts go by FLOP; a step of decoding by what is read, computed or launched.

    Args:
        graphs: Whether steps are replayed as a whole, as vLLM does, and launch nothing.
    """
    rows = rows_at_once(work, size, gpu)
    prompts = 2 * size.parameters * work.prompt * work.count / (gpu.flops * PREFILL)
    weights = size.parameters * size.width
    read = (weights + rows * size.cached * (work.prompt + work.tokens / 2)) / (gpu.bandwidth * BANDWIDTH)
    computed = 2 * size.parameters * rows / (gpu.flops * PREFILL)
    operations = WITH_ADAPTER if work.adapter else OPERATIONS
    launched = 0.0 if graphs else size.layers * operations * LAUNCH
    return prompts + max(read, computed, launched) * work.tokens * work.count / rows


def seconds_of_rows(work: Rows, size: Size, gpu: Hardware, again: bool = True) -> float:
    """Seconds of one GPU.

    Args:
        again: Whether activations are computed again (gradient checkpointing).
    """
    passes = 4 + (2 if again else 0) + (2 if work.reference else 0)
    flop = passes * size.parameters * work.tokens * work.answers * work.count
    return flop / (gpu.flops * TRAINING)


def seconds_of_loading(size: Size) -> float:
    """Seconds until a model's weights are in memory."""
    return size.parameters * size.width / DISK
