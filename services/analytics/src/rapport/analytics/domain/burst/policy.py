"""When a series bursts and when it is calm again: every number that the method leaves open.

The method and its defaults were measured on brand mentions (Numenta Anomaly Benchmark) and on posts
around real crises (CrisisLex T26); `benchmarks/burst_backtest.py` measures them again.
"""

from typing import Annotated, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BurstPolicy(BaseModel):
    """The settings of a `Detector`; a detector's state stays valid when they change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fast_half_life: _Positive = Field(
        6.0, description="Hours in which the fast average forgets half; follows the shift of a day."
    )
    slow_half_life: _Positive = Field(
        24.0, description="Hours in which the slow average and the dispersion forget half."
    )
    history_days: int = Field(
        14, ge=1, le=28, description="Days whose same time of day, +-30 minutes, is compared with."
    )
    lowest_rate: _Positive = Field(
        0.01, description="Items per 5 minutes expected at least: a silent series has 0.12 an hour."
    )
    winsor_deviations: _Positive = Field(
        4.0,
        description="Standard deviations above the expected at which a bin's count is cut for the "
        "averages, so that a burst does not soon pass for usual (winsorising).",
    )
    winsor_items: _Positive = Field(
        1.0, description="Items per 5 minutes that always count in full for the averages."
    )

    cusum_growth: float = Field(
        3.0,
        gt=1,
        description="Times the expected rate that the CUSUM is tuned to notice; 3 gives the step "
        "(x ln 3 - 2 expected) / dispersion (Page 1954; Lucas 1985 for counts).",
    )
    cusum_threshold: _Positive = Field(
        6.0, description="Evidence, in nats, at which the CUSUM raises an alarm."
    )
    cusum_ceiling: _Positive = Field(
        16.0, description="Evidence, in nats, that is kept at most, so that calm returns soon."
    )
    hour_items: int = Field(5, ge=1, description="Items in the last hour for an alarm by CUSUM.")
    hour_ratio: _Positive = Field(
        3.0, description="Times the expected in the last hour for an alarm by CUSUM."
    )

    fast_probability: float = Field(
        1e-5,
        gt=0,
        lt=1,
        description="Chance of so many items in 15 minutes (negative binomial tail) below which "
        "the fast path raises an alarm.",
    )
    fast_items: int = Field(5, ge=1, description="Items in 15 minutes for the fast path.")
    fast_ratio: _Positive = Field(
        4.0, description="Times the expected in 15 minutes for the fast path."
    )

    learning_hours: _Positive = Field(
        24.0, description="Hours since the first known bin in which no alarm is raised."
    )
    quiet_hours: _Positive = Field(
        2.0, description="Hours after an alarm in which no other is raised."
    )
    clear_ratio: _Positive = Field(
        1.5, description="Times the expected below which an hour is calm; half of `hour_ratio`."
    )
    clear_items: int = Field(
        2, ge=0, description="Items in an hour that are calm whatever is expected; half an alarm."
    )

    @model_validator(mode="after")
    def _thresholds_can_be_reached(self) -> Self:
        if self.cusum_ceiling < self.cusum_threshold:
            raise ValueError("cusum_ceiling must not be below cusum_threshold")
        if self.clear_ratio >= self.hour_ratio:
            raise ValueError("clear_ratio must be below hour_ratio")
        return self
