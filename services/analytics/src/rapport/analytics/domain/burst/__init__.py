"""Bursts: when one series of negative items suddenly runs far above what is usual for it.

A series (a brand or product and a complaint type) is a count per five-minute bin. One `Detector`
per series holds all that is kept between bins. Its `Baseline` knows what is usual: the highest of a
fast average, a slow one and the same time of day on earlier days. Two ways lead to an `Alarm`: a
CUSUM that gathers the evidence of a tripled rate, and a fast path for fifteen minutes that chance
cannot explain. Both also have plain gates (enough items, enough times the usual), which keep small
and busy series quiet. `Cleared` says that the burst is over.

Silence costs nothing: the averages decay by formula, so a month without items is one step, and an
idle detector need be neither advanced nor saved until its next item.
"""

from rapport.analytics.domain.burst.baseline import Baseline
from rapport.analytics.domain.burst.bins import BIN, bin_of
from rapport.analytics.domain.burst.detector import Detector, negative_binomial_tail
from rapport.analytics.domain.burst.findings import Alarm, Cleared, Finding
from rapport.analytics.domain.burst.policy import BurstPolicy

__all__ = [
    "BIN",
    "Alarm",
    "Baseline",
    "BurstPolicy",
    "Cleared",
    "Detector",
    "Finding",
    "bin_of",
    "negative_binomial_tail",
]
