"""Random numbers that are the same on every machine.

Libraries promise little: NumPy's and torch's normal variates may change with a release, and logarithms and sines differ
in the last digit from one processor to the next. Only PCG64's bits are promised for good, and IEEE 754 fixes additions,
multiplications, divisions and square roots; everything here is made of these.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37(3), 1988:
# numerator and denominator, highest power first, for the middle of the distribution, its tails, and the far ends.
_MIDDLE = (
    (
        *(2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4),
        *(1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0),
    ),
    (
        *(5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4),
        *(5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
    ),
)
_TAIL = (
    (
        *(7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0),
        *(3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0),
    ),
    (
        *(1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1),
        *(6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0),
    ),
)
_END = (
    (
        *(2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2),
        *(2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0),
    ),
    (
        *(2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4),
        *(1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0),
    ),
)

_LN_2 = 0.6931471805599453
_PI = 3.141592653589793


class Stream:
    """A sequence of random numbers.

    Args:
        seed: a whole number of at least 0.
        name: what the numbers are for; streams of other names, or other seeds, have nothing in common.
    """

    def __init__(self, seed: int, name: str) -> None:
        key = hashlib.blake2b(f"{seed},{name}".encode(), digest_size=16).digest()
        self._bits = np.random.PCG64(np.random.SeedSequence(int.from_bytes(key, "little")))

    def uniform(self, *shape: int) -> Floats:
        """Uniform in (0, 1), the next of the sequence in row-major order."""
        count = 1
        for size in shape:
            count *= size
        whole = (self._bits.random_raw(count) >> np.uint64(11)).astype(np.float64)
        # In the middle of each of 2^53 intervals, so that 0 does not come up; nor does 1, to which the last is rounded.
        numbers: Floats = (np.minimum(whole + 0.5, 2.0**53 - 1.0) * 2.0**-53).reshape(shape)
        return numbers

    def normal(self, *shape: int) -> Floats:
        """Standard normal."""
        return normal_quantile(self.uniform(*shape))


def normal_quantile(probabilities: Floats) -> Floats:
    """The value below which a standard normal variable lies with each probability; probabilities in (0, 1)."""
    centred = probabilities - 0.5
    values = centred * _ratio(_MIDDLE, 0.180625 - centred * centred)
    outer = np.abs(centred) > 0.425
    tail = probabilities[outer]
    distance = np.sqrt(-log(np.minimum(tail, 1.0 - tail)))
    magnitude = np.where(distance <= 5.0, _ratio(_TAIL, distance - 1.6), _ratio(_END, distance - 5.0))
    values[outer] = np.where(tail < 0.5, -magnitude, magnitude)
    return values


def log(values: Floats) -> Floats:
    """The natural logarithm of positive numbers."""
    mantissa, exponent = np.frexp(values)  # exact
    small = mantissa < 0.7071067811865476
    mantissa = np.where(small, 2.0 * mantissa, mantissa)
    exponent = exponent - small
    # log m = 2 artanh((m - 1) / (m + 1)), whose argument is at most 0.18 here
    argument = (mantissa - 1.0) / (mantissa + 1.0)
    series = _polynomial([1.0 / k for k in range(23, 0, -2)], argument * argument)
    return exponent * _LN_2 + 2.0 * argument * series


def half_circle(shares: Floats) -> tuple[Floats, Floats]:
    """Cosine and sine of π times each share in [0, 1]."""
    angle = _PI * (0.5 - shares)  # of the cosine's sine, in [-π/2, π/2]
    square = angle * angle
    sine, cosine = [1.0], [1.0]
    for k in range(1, 12):
        sine.append(-sine[-1] / ((2 * k) * (2 * k + 1)))
        cosine.append(-cosine[-1] / ((2 * k - 1) * (2 * k)))
    return angle * _polynomial(sine[::-1], square), _polynomial(cosine[::-1], square)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], at: Floats) -> Floats:
    above, below = coefficients
    return _polynomial(above, at) / _polynomial(below, at)


def _polynomial(coefficients: tuple[float, ...] | list[float], at: Floats) -> Floats:
    """Highest power first."""
    value = np.full_like(at, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= at
        value += coefficient
    return value
