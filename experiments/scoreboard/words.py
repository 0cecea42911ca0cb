"""Figures in words, rounded in one way wherever they are printed."""

from __future__ import annotations

import math
import re

from experiments.claims import PUBLISHED
from experiments.over_seeds import SECONDS, Spread

_SHARES = ("accuracy", "cer", "f1", "gain")  # how a metric's name ends that is a share, told in percent
_WORDS = {"cer": "character error rate", "mae": "MAE", "mse": "MSE"}
_SMALL = 1e-3  # below it a number is told by its magnitude


def is_share(metric: str) -> bool:
    """Whether a metric is told in percent."""
    return metric.endswith(_SHARES)


def words(metric: str) -> str:
    """A metric's name as people say it.

    >>> words("test/mse"), words("beam/cer"), words("test/sequence_accuracy")
    ('test MSE', 'beam character error rate', 'test sequence accuracy')
    """
    return " ".join(_WORDS.get(word, word) for word in re.split("[/_]", metric))


def mean(metric: str, spread: Spread) -> str:
    """The mean over the seeds.

    >>> mean("test/accuracy", Spread((0.99, 0.9922))), mean("test/mse", Spread((0.2471, 0.2523)))
    ('99.11 %', '0.2497')
    """
    if is_share(metric):
        return f"{100 * spread.mean:.2f} %"
    if metric == SECONDS:
        return f"{spread.mean:.1f} s"
    return _numbers(spread)[0]


def mean_and_std(metric: str, spread: Spread, sign: str = "±") -> str:
    """The mean and the standard deviation over the seeds, which a single one has none of.

    >>> mean_and_std("test/accuracy", Spread((0.99, 0.9922))), mean_and_std("test/mse", Spread((0.2471, 0.2523)), "+-")
    ('99.11 % ± 0.16', '0.2497 +- 0.0037')
    >>> mean_and_std("weight_error", Spread((2e-5, 1.1e-4))), mean_and_std("test/mse", Spread((0.25, 0.25)))
    ('6.5e-5 ± 6.4e-5', '0.2500 ± 0')
    """
    text = mean(metric, spread)
    if len(spread.values) == 1:
        return text
    if is_share(metric):
        return f"{text} {sign} {100 * spread.std:.2f}"
    if metric == SECONDS:
        return f"{text} {sign} {spread.std:.1f}"
    return f"{text} {sign} {_numbers(spread)[1]}"


def value(metric: str, number: float) -> str:
    """One number of a metric, such as that of the worst seed or a bar.

    >>> value("test/accuracy", 0.9905), value("weight_error", 0.00011), value("test/mse", 0.2625)
    ('99.05 %', '1.1e-4', '0.2625')
    """
    if is_share(metric):
        return f"{100 * number:.2f} %"
    return _scientific(number) if 0.0 < abs(number) < _SMALL else f"{number:.4g}"


def at_most(number: float) -> str:
    """A number rounded up to one digit.

    >>> at_most(0.00011), at_most(9.7e-4), at_most(2e-7)
    ('2e-4', '1e-3', '2e-7')
    """
    if number <= 0.0:
        return "0"
    power = math.floor(math.log10(number))
    digit = math.ceil(round(number / 10.0**power, 9))
    digit, power = (1, power + 1) if digit == 10 else (digit, power)
    return f"{digit}e{power}"


def percent(share: float) -> str:
    """A published share in percent, with as many digits as it has.

    >>> percent(0.12), percent(0.0095), percent(0.992), percent(0.0047)
    ('12.0 %', '0.95 %', '99.2 %', '0.47 %')
    """
    return f"{re.sub('0$', '', f'{100 * share:.2f}')} %"


def seconds(number: float) -> str:
    """Seconds in a sentence.

    >>> seconds(7.46), seconds(67.3)
    ('7.5 s', '67 s')
    """
    return f"{number:.1f} s" if number < 9.95 else f"{number:.0f} s"


def duration(number: float) -> str:
    """How long something takes, about.

    >>> duration(42), duration(700), duration(9000)
    ('42 s', '12 min', '2 h 30 min')
    """
    if number < 90:
        return f"{number:.0f} s"
    hours, minutes = divmod(round(number / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def published(source: str) -> tuple[str, str] | None:
    """What a figure was published for, and by whom; ``None`` of one that was not.

    >>> published("published for LeNet-5 with distortions, LeCun et al. 1998")
    ('LeNet-5 with distortions', 'LeCun et al. 1998')
    """
    if not source.startswith(PUBLISHED):
        return None
    what, _, who = source.removeprefix(PUBLISHED).rpartition(", ")
    return what, who


def _numbers(spread: Spread) -> tuple[str, str]:
    """Mean and deviation, with two digits of the deviation."""
    center, std = spread.mean, spread.std
    if 0.0 < abs(center) < _SMALL and std < _SMALL:
        return _scientific(center), _scientific(std)
    if std == 0.0 or not math.isfinite(std):
        return f"{center:.4f}", f"{std:.0f}"
    digits = min(max(1 - math.floor(math.log10(std)), 0), 6)
    return f"{center:.{digits}f}", f"{std:.{digits}f}"


def _scientific(number: float) -> str:
    mantissa, _, power = f"{number:.1e}".partition("e")
    return f"{mantissa}e{int(power)}" if number else "0"
