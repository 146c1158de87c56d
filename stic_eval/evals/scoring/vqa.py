"""TextVQA: EvalAI's answer processor and the VQA accuracy over ten annotators.

Rules: github facebookresearch/mmf, `pythia/tasks/processors.py` (EvalAIAnswerProcessor), as LLaVA's
`m4c_evaluator.py` and lmms-eval use them, quirks included, because they are the published metric.
No maintained package has them by themselves: `mmf` and `salesforce-lavis` ended in 2020 and 2023,
`vqa-package` and `vqa-python` are models; lmms-eval, a whole harness, is what the tests compare with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

# A contraction is restored from its spelling with one apostrophe left out, and only from that.
_CONTRACTIONS = """
'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've
hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't
mightn't've must've mustn't needn't not've o'clock oughtn't shan't she'd've should've shouldn't
shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd
something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're
they've wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd
who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'd've
y'all'll you'd you'd've you'll you're you've
""".split()  # noqa: SIM905
_RESTORED = {
    word[:at] + word[at + 1 :]: word for word in _CONTRACTIONS for at, sign in enumerate(word) if sign == "'"
}
_RESTORED["somebody'd"] = "somebodyd"  # the published table has this one the wrong way round
_NUMBERS = {
    word: str(value)
    for value, word in enumerate("zero one two three four five six seven eight nine ten".split())  # noqa: SIM905
} | {"none": "0"}
_ARTICLES = frozenset({"a", "an", "the"})
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
_DIGIT_COMMA = re.compile(r"(?<=\d),+(?=\d)")
# The published code passes the flag re.UNICODE (32) where the number of replacements belongs.
_MAX_PERIODS = 32


@lru_cache(maxsize=1 << 15)
def evalai(text: str) -> str:
    """EvalAI's normal form of a short answer.

    Lower case; commas, question marks and most punctuation removed or turned into spaces; full stops
    that no digit follows removed; number words to ten as digits; articles dropped; apostrophes put
    back into contractions.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    out = text
    digit_comma = _DIGIT_COMMA.search(text) is not None
    for sign in _PUNCTUATION:
        if sign in out:
            beside_space = sign + " " in text or " " + sign in text
            out = out.replace(sign, "" if beside_space or digit_comma else " ")
    out = _PERIOD.sub("", out, count=_MAX_PERIODS)
    words = (_NUMBERS.get(word, word) for word in out.lower().split())
    return " ".join(_RESTORED.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(response: str, answers: Sequence[str]) -> float:
    """VQA accuracy: the mean over leave-one-out of min(1, matches among the others / 3).

    Args:
        answers: The annotators' answers, ten in TextVQA.

    Returns:
        0 to 1.

    Raises:
        ValueError: There are no answers.
    """
    if not answers:
        raise ValueError("no annotated answers")
    given = evalai(response)
    normal = list(map(evalai, answers))
    total = normal.count(given)
    if not total or total > 3:  # without the fractions of some: without one of them, three are left
        return float(total > 3)
    without, with_all = min(1.0, (total - 1) / 3), min(1.0, total / 3)
    return sum([without if answer == given else with_all for answer in normal]) / len(normal)
