"""Medians and what they are worth, without assuming how the noise is distributed."""

import dataclasses
import math
import statistics


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A median and the interval that holds the true one with at least 95 % confidence."""
    median: float
    low: float
    high: float


def estimate(values: list[float]) -> Estimate:
    """The interval is between two order statistics: each value lies below the true median with probability 1/2, so how
    many do is binomial (sign test). Six values are the fewest that can say 95 %."""
    ordered = sorted(values)
    count = len(ordered)
    rank = 0   # values outside on each side
    while 2 * _binomial_tail(count, rank) <= 0.05:
        rank += 1
    if rank == 0:
        raise ValueError(f"{count} values say nothing at 95 %")
    return Estimate(statistics.median(ordered), ordered[rank - 1], ordered[-rank])


def _binomial_tail(count: int, most: int) -> float:
    """The probability that at most `most` of `count` fair coins show heads."""
    return sum(math.comb(count, number) for number in range(most + 1)) / 2 ** count
