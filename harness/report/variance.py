"""How much of a score's spread is of the training and how much of the samples: a random-effects analysis of variance.

Draw j of training i scores x_ij = m + t_i + s_ij, where t_i has variance T (other seeds train other weights) and s_ij
has variance S (other seeds draw other samples), all independent. Of I trainings with J draws each, let

    B = J sum_i (x_i. - x..)^2 / (I - 1)              the mean square between trainings
    W = sum_ij (x_ij - x_i.)^2 / (I (J - 1))          the mean square within them

A mean of J draws x_i. has variance T + S / J, so E[B] = J T + S, and E[W] = S. Hence S is estimated by W, and T by
(B - W) / J, or by 0 where that is negative. The mean x.. has variance E[B] / (I J), which B / (I J) estimates with
I - 1 degrees of freedom, whatever T and S are: its interval is Student's. More draws of one training do not narrow it
beyond T / I; that takes more trainings.

Under normal errors I (J - 1) W / S is a chi-square, which gives the interval of S. That of T is Williams' and Tukey's
(Biometrika 49, 1962): with F = B / W and the quantiles f of F's distribution and c of a chi-square of I - 1 degrees,
[(I - 1) B (1 - f_hi / F) / (J c_hi), (I - 1) B (1 - f_lo / F) / (J c_lo)], cut at 0.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95

Interval = tuple[float, float]


@dataclass(frozen=True)
class Components:
    """A mean and its standard deviations over trainings and over draws of samples, each with its 95 % interval."""

    mean: float
    mean_interval: Interval
    training_sd: float
    training_interval: Interval
    sampling_sd: float
    sampling_interval: Interval
    trainings: int
    draws: int


def components(draws: Sequence[Sequence[float]]) -> Components | None:
    """The components of scores (I trainings, J draws of each); None without two of each, or of unequal numbers."""
    counts = {len(values) for values in draws}
    if len(draws) < 2 or len(counts) != 1 or (J := counts.pop()) < 2:
        return None
    from scipy import stats

    I, tail = len(draws), (1 - LEVEL) / 2  # noqa: E741 - the letter of the derivation
    means = [statistics.fmean(values) for values in draws]
    mean = statistics.fmean(means)
    between = J * statistics.variance(means)
    within = statistics.fmean(statistics.variance(values) for values in draws)
    reach = float(stats.t.ppf(1 - tail, I - 1)) * math.sqrt(between / (I * J))
    df = I * (J - 1)
    low, high = (float(stats.chi2.ppf(q, df)) for q in (1 - tail, tail))
    sampling = (math.sqrt(df * within / low), math.sqrt(df * within / high))
    return Components(
        mean, (mean - reach, mean + reach),
        math.sqrt(max(0.0, between - within) / J), _of_training(between, within, I, J, tail),
        math.sqrt(within), sampling, I, J,
    )  # fmt: skip


def _of_training(between: float, within: float, I: int, J: int, tail: float) -> Interval:  # noqa: E741
    """Williams' and Tukey's interval, of the standard deviation."""
    from scipy import stats

    ends = []
    for quantile in (1 - tail, tail):
        f = float(stats.f.ppf(quantile, I - 1, I * (J - 1)))
        c = float(stats.chi2.ppf(quantile, I - 1))
        ends.append(math.sqrt(max(0.0, (I - 1) * (between - f * within) / (J * c))))
    return ends[0], ends[1]
