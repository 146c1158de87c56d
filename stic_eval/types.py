"""The values that flow through the program: frozen, typed, without behaviour.

A benchmark row becomes a `Sample`; a solver turns it into `Request`s for a model; the model
answers with `Response`s; the benchmark turns an answer into a `Score`; the runner keeps a
`Record` of all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image by content, decoded only when somebody needs the pixels.

    Attributes:
        sha256: Content hash (of the encoded file, or of mode, size and raw pixels for an image
            that never was a file). Two references with one hash are the same image.
        source: Where it came from, for people: a path or `pocket:<split>/<seed>`.
        load: Decodes the image to RGB.
        diffusion: (step, seed) of noise that is put onto what the processor has made of the image, by
            `stic_eval.models.diffusion`; None: none. `sha256` tells such a reference from the clean one.
    """

    sha256: str
    source: str
    load: Callable[[], Image] = field(compare=False, repr=False)
    diffusion: tuple[int, int] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. Images of a request stand before the first user turn's text."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Generation:
    """How an answer is decoded.

    Attributes:
        max_new_tokens: Upper bound on generated tokens.
        temperature: 0 is greedy.
        top_p: Nucleus mass; 1.0 is off.
        seed: Seeds this request's own sampling; has no effect (and is 0) when greedy.
        stop: Texts of which the first that appears ends the answer, and is no part of it.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What a model is asked. Its content key is `stic_eval.store.request_key`.

    Where the last turn is the assistant's, the model goes on from it: the response is what follows.
    """

    messages: tuple[Message, ...]
    images: tuple[ImageRef, ...]
    generation: Generation


@dataclass(frozen=True, slots=True)
class Response:
    """What a model answered.

    Attributes:
        text: The decoded answer without special tokens. Untrusted wherever it is rendered. Of a model or a
            cache itself it is all that was written; `stic_eval.models.thinking` takes out what was thought.
        n_tokens: Generated tokens, the end token included.
        finish_reason: `stop` (end token, or a text that ends the answer), `length` (ran into max_new_tokens),
            or `failed`: there is no answer, and the text is empty. Such a response is never cached, and its
            sample unscored.
        seconds: Its share of the wall time of every pass that it took part in; measured once, kept by
            the cache.
        why: Why it failed; None: it did not.
        thinking: What the model thought before or between its answer; no part of `text`.
        unclosed: It ended while it was thinking: there is no answer, and the text is empty.
        opened: The thinking was closed without having been opened: the prompt had done that.
    """

    text: str
    n_tokens: int
    finish_reason: Literal["stop", "length", "failed"]
    seconds: float = 0.0
    why: str | None = None
    thinking: str = ""
    unclosed: bool = False
    opened: bool = False


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a model holds an answer.

    Attributes:
        logp: Log-probability of the answer's tokens in nats, their sum; not of the end token.
        n_tokens: Tokens of the answer.
    """

    logp: float
    n_tokens: int


@dataclass(frozen=True, slots=True)
class SolverLabel:
    """How answers were obtained, as results name it, whether or not the solver is installed.

    Attributes:
        name: The solver's, e.g. `describe_and_respond`.
        title: What a table's row adds to the method, e.g. `DaR`; empty: nothing.
        suffix: What a row's name in commands adds, e.g. `dar` in `stic+dar`; empty: nothing.
    """

    name: str = "direct"
    title: str = ""
    suffix: str = ""

    @property
    def plain(self) -> bool:
        """Whether a row is named by its method alone."""
        return not self.suffix

    def of(self, method: str) -> str:
        """A method's name with the suffix, e.g. `stic+dar`."""
        return f"{method}+{self.suffix}" if self.suffix else method


DIRECT = SolverLabel()
# As the paper's tables name it, and what results of earlier versions call `dar`.
DESCRIBED = SolverLabel("describe_and_respond", "DaR", "dar")


@dataclass(frozen=True, slots=True)
class Sample:
    """One benchmark item, ready to be asked.

    Attributes:
        id: Unique within the benchmark.
        images: Usually one; empty for text-only items.
        question: The whole prompt text that follows the image, options and suffix included.
        target: What is right, in the benchmark's own shape (a letter, ten answers, key facts).
        choices: Option texts of a multiple-choice item, in order.
        group: Labels to break results down by, e.g. `{"subject": "natural science"}`.
        meta: Whatever else scoring needs (answer type, precision, circular group).
    """

    id: str
    images: tuple[ImageRef, ...]
    question: str
    target: Any
    choices: tuple[str, ...] = ()
    group: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Score:
    """The verdict on one answer.

    Attributes:
        value: 0 to 1 (a judge's points divided by their maximum), or None: unscored, never 0.
        answer: The answer as it was read out of the response, if it could be read.
        why: Why it is unscored, or how it was decided when that is not obvious.
        weight: Denominator of this item in a ratio metric (LLaVA-Bench divides by the
            reference answer's points); 1 elsewhere.
        open: The rules left this answer to a judge: where one is configured it has the last word,
            and `value` is only the verdict without one.
    """

    value: float | None
    answer: str | None = None
    why: str | None = None
    weight: float = 1.0
    open: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """One evaluated sample, as written to `records/<method>/<benchmark>.jsonl`.

    `judge` is None where rules decided; else it holds the judge's `model` and `protocol`, its
    `replies`, and what was noticed about them. `thinking` is what the model thought, which nothing
    scores; `unclosed` says that it ended while it was thinking, and is unscored.
    """

    id: str
    question: str
    images: tuple[str, ...]
    target: Any
    group: Mapping[str, str]
    description: str | None
    response: str
    answer: str | None
    score: float | None
    weight: float
    why: str | None
    seconds: float
    n_tokens: int
    meta: Mapping[str, Any] = field(default_factory=dict)
    judge: Mapping[str, Any] | None = None
    thinking: str = ""
    unclosed: bool = False


@dataclass(frozen=True, slots=True)
class Resampled:
    """A benchmark's own statistic on other choices of its rows, all in percent.

    Runs over the same rows are resampled alike, so that what stands at one place in two of them can be
    compared.

    Attributes:
        rows: Digest of the rows and how they cluster; runs with another one cannot be paired.
        clusters: How many clusters there are.
        draws: The statistic in bootstrap resamples of the clusters.
        without: The statistic without one group of clusters after the other (the delete-a-group jackknife);
            group k of m is every m-th cluster of a random order, from the k-th on.
    """

    rows: str
    clusters: int
    draws: tuple[float, ...]
    without: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """A benchmark's result.

    Attributes:
        score: Percent: `100 * sum(value) / sum(weight)` over `units`, or the benchmark's own statistic where
            there is `resampled`; None if nothing is scored.
        n: Units in the benchmark (samples, or groups of rotations under circular evaluation).
        unscored: How many of the n have no verdict and are left out.
        units: Unit id -> (value, weight). What paired statistics resample.
        breakdown: Label -> percent, e.g. `{"subject/natural science": 61.0}`; in a group whose name ends in
            `-points`, a number in units of its own.
        answers: Answers behind the units (MMBench has several a unit); the runner counts them.
        judged: How many of them a judge decided.
        gradings: The score by each of a judge's repeated gradings alone; empty without repetition.
        unanswered: How many answers are missing because the model failed; the next start asks again.
        rechecked: Answers by weights in 16 bits or fewer that were asked for again, one at a time.
        otherwise: How many of them came out otherwise.
        thoughtful: Answers that the model thought before.
        unclosed: Answers that are missing because the model was still thinking when it ended.
        clusters: Unit id -> cluster, of the units that share one with another unit: rows about one image are
            not independent. A unit that is not named here is a cluster of its own. None: an earlier version
            did not look for any.
        descriptions: How many different descriptions the rows were asked with; 0: with none.
        resampled: Of a benchmark that has its own statistic.
        constant: The answer that nearly all are (95 % of those that could be read) though targets differ, as
            the model wrote it, shortened; empty: there is none.
        best_constant: The one answer that would score most if it were given to every row, and its score in
            percent; None where targets are not a few plain texts.
        blank: How many answers are empty.
        cut: How many answers ran into the bound on new tokens.
    """

    score: float | None
    n: int
    unscored: int
    units: Mapping[str, tuple[float, float]]
    breakdown: Mapping[str, float]
    answers: int = 0
    judged: int = 0
    gradings: tuple[float, ...] = ()
    unanswered: int = 0
    rechecked: int = 0
    otherwise: int = 0
    thoughtful: int = 0
    unclosed: int = 0
    clusters: Mapping[str, str] | None = field(default_factory=dict)
    descriptions: int = 0
    resampled: Resampled | None = None
    constant: str = ""
    best_constant: tuple[str, float] | None = None
    blank: int = 0
    cut: int = 0
