"""Words of messages."""

from __future__ import annotations

import re

_SPELT_OUT = re.compile(r"[AEFHILMNORSX]([A-Z0-9]|$)")  # by letters whose names begin with a vowel: an MLP
_LIKE_YOU_OR_WON = re.compile(r"(one|uni|uint|use)", re.IGNORECASE)


def with_article(noun: str) -> str:
    """A noun, such as the name of a class, behind "a" or "an".

    >>> [with_article(noun) for noun in ("Linear", "Ensemble", "MLPClassifier", "CNNClassifier", "int", "OneCycle")]
    ['a Linear', 'an Ensemble', 'an MLPClassifier', 'a CNNClassifier', 'an int', 'a OneCycle']
    """
    vowel = noun[:1].lower() in set("aeiou") and not _LIKE_YOU_OR_WON.match(noun)
    return f"{'an' if vowel or _SPELT_OUT.match(noun) else 'a'} {noun}"
