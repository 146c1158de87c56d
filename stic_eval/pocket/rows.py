"""The pocket world as data: rows in the schemas of the seven real data sets, images, instruction data.

Nothing is stored: a row is drawn from its seed. A picture's content key names what is drawn and how,
so that rows can be listed without drawing them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Generic, Literal, TypeVar

from stic_eval.pocket.questions import GROUPS, Group
from stic_eval.pocket.tasks import MAKERS, Draw, Row
from stic_eval.pocket.world import Spec, Split, draw, draw_spec
from stic_eval.store import content_key
from stic_eval.types import ImageRef

MODEL_DIR = Path(__file__).parent / "model"
PROMPTS = Path(__file__).parent / "prompts.yaml"
ROWS = 200

T = TypeVar("T")
Source = Literal["scenes", "benchmarks"]
# Source of unlabeled images -> kinds of picture in turn.
SOURCES: Mapping[Source, tuple[str, ...]] = {"scenes": ("any",), "benchmarks": ("benchmark-like",)}

_WORLD = 2  # bumped when pictures change
VERSION = (_WORLD, 1)  # of rows; the second number is bumped when what is asked about pictures changes


def picture(spec: Spec, split: Split, seed: int) -> ImageRef:
    """A reference to a drawn picture; drawn when it is used."""
    key = content_key(["pocket", _WORLD, repr(spec), seed])
    return ImageRef(key, f"pocket:{split}/{seed}", partial(draw, spec, seed))


def drawn_in(image: ImageRef) -> Spec | None:
    """What a picture of this world shows; None for any other image."""
    load = image.load
    return load.args[0] if isinstance(load, partial) and load.func is draw else None


# ---------------------------------------------------------------- what the rest of the program reads


@cache
def benchmark_rows(name: str, split: Split = "test") -> list[Row]:
    """The embedded rows of a benchmark, in the schema of its real data set.

    Every third question has a wording that is held out; the right one of four options stands as often at
    each place.

    Args:
        name: The benchmark.
        split: `test`, or `val` for choosing settings.

    Raises:
        KeyError: The pocket world has no rows for it.
    """
    make, kinds = MAKERS[name]
    part = (list(MAKERS).index(name), len(MAKERS))
    rows: list[Row] = []
    asked = 0
    for number, (seed, spec) in enumerate(_distinct(split, kinds, part)):
        made = make(spec, _draw(f"{split}/{name}", seed, asked))
        if made is None:
            continue
        asked += 1
        rows += _finished(name, made.row, picture(spec, split, seed), number + 1)
        if len(rows) >= ROWS:
            return rows
    raise AssertionError("seeds do not end")


def _draw(where: str, seed: int, number: int) -> Draw:
    """How a benchmark's question with a number is drawn: group and position in turn, in blocks of 12."""
    block, place = divmod(number, 12)
    thirds: tuple[Group, ...] = ("shared", "shared", "held_out")
    ways = [(group, position) for group in thirds for position in range(4)]
    random.Random(f"ways/{where}/{block}").shuffle(ways)
    return Draw(random.Random(f"ask/{where}/{seed}"), *ways[place])


def _finished(name: str, row: Row, image: ImageRef, number: int) -> list[Row]:
    """The row, or its rotations, with picture and id."""
    if name == "mathvista":
        return [{**row, "pid": str(number), "image": f"images/{number}.png", "decoded_image": image}]
    if name != "mmbench":
        ids: dict[str, Row] = {
            "textvqa": {"question_id": number}, "llava_bench": {"question_id": number},
            "mmvet": {"question_id": f"v1_{number}"},
        }  # fmt: skip
        return [{**row, **ids.get(name, {}), "image": image}]
    letters = list("ABCD")
    texts = [row[letter] for letter in letters]
    rotations = []
    for turn in range(len(letters)):
        turned = texts[turn:] + texts[:turn]
        answer = letters[turned.index(row[row["answer"]])]
        options = dict(zip(letters, turned, strict=True))
        rotations.append(
            {**row, **options, "answer": answer, "index": number + turn * 1_000_000, "image": image}
        )
    return rotations


def _distinct(
    split: Split, kinds: Sequence[str], part: tuple[int, int] = (0, 1)
) -> Iterator[tuple[int, Spec]]:
    """Seeds and specs of a split, none of which is the same picture as an earlier one."""
    seen: set[Spec] = set()
    seed = 0
    while True:
        spec = draw_spec(split, seed, kinds[seed % len(kinds)], part)
        if spec not in seen:
            seen.add(spec)
            yield seed, spec
        seed += 1


class _Sequence(Generic[T]):
    """An endless sequence, of which this process draws every element once, when it is first asked for."""

    def __init__(self, rest: Iterator[T]) -> None:
        self._rest = rest
        self._drawn: list[T] = []
        self._lock = Lock()

    def first(self, n: int) -> list[T]:
        with self._lock:
            self._drawn += islice(self._rest, max(0, n - len(self._drawn)))
            return self._drawn[:n]


@cache
def _unlabeled(source: Source) -> _Sequence[ImageRef]:
    found = _distinct("images", SOURCES[source])
    return _Sequence(picture(spec, "images", seed) for seed, spec in found)


def unlabeled_images(n: int, source: Source = "scenes") -> list[ImageRef]:
    """The first n pictures for stage 1.

    Args:
        n: How many.
        source: `scenes`: as the world draws them, mostly scenes; `benchmarks`: charts and scenes with
            signs, as the benchmarks have them.
    """
    return _unlabeled(source).first(n)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a picture as a benchmark words it, its answer, and its clues (see `DrawnRow`)."""

    benchmark: str
    question: str
    answer: str
    key: str
    clue: str


def turns(
    spec: Spec,
    rng: random.Random,
    ask: Mapping[str, Callable[[Row], str]],
    n: int,
    groups: Sequence[Group] = GROUPS,
) -> list[Asked]:
    """Up to n questions about a picture, in the benchmarks' wordings.

    Args:
        spec: The picture.
        rng: Draws benchmarks and questions.
        ask: Benchmark -> the text that it makes of a row.
        n: How many, at least one.
        groups: Whose wordings may be used.
    """
    found: dict[str, Asked] = {}
    names = iter(rng.choices(list(ask), k=3 * n))
    while (name := next(names, None)) is not None or not found:
        # Not every benchmark can ask about every picture; in the end one has to.
        name = name or rng.choice(list(ask))
        made = MAKERS[name][0](spec, Draw(rng, rng.choice(groups), rng.randrange(4)))
        if made is not None and len(found) < n:
            row = _finished(name, made.row, picture(spec, "train", 0), 1)[0]
            question = ask[name](row)
            found.setdefault(question, Asked(name, question, made.answer, made.key, made.clue))
    return list(found.values())


def wordings() -> dict[str, Callable[[Row], str]]:
    """Benchmark -> the text that it makes of a row; of the benchmarks that the pocket world has rows for."""
    from stic_eval import registry

    known = registry.benchmarks()

    def wording(name: str) -> Callable[[Row], str]:
        to_sample = known.get(name).to_sample
        return lambda row: to_sample(row).question

    return {name: wording(name) for name in MAKERS if name in known.names()}


def sft_items(n: int) -> list[Row]:
    """The first n items of instruction data in LLaVA's format, in shared wordings; `image` is a reference.

    The rows are those of whoever asks next: read only.
    """
    return _items(tuple(wordings())).first(n)


@cache
def _items(names: tuple[str, ...]) -> _Sequence[Row]:
    ask = wordings()
    return _Sequence(_drawn_items({name: ask[name] for name in names}))


def _drawn_items(ask: Mapping[str, Callable[[Row], str]]) -> Iterator[Row]:
    for seed, spec in _distinct("sft", ("any", "chart", "sign")):
        talk = []
        asked = turns(spec, random.Random(f"sft/{seed}"), ask, 2, ("shared",))
        for number, one in enumerate(asked):
            talk += [
                {"from": "human", "value": one.question if number else f"<image>\n{one.question}"},
                {"from": "gpt", "value": one.answer},
            ]
        yield {"id": f"pocket-{seed}", "image": picture(spec, "sft", seed), "conversations": talk}
