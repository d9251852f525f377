"""Conditions on what something is about: the one matcher behind rules, criteria and subscriptions.

In YAML or JSON a condition is a mapping from a field to what it must be; all must hold:

    kind: complaint                      # equals
    product: [phone, tablet]             # is one of
    severity: {at_least: high}           # numbers, or severities in their order
    reach: {at_least: 10000, below: 1000000}
    region: {is_not: north}
    brand: null                          # is not given
"""

from collections.abc import Iterable, Mapping
from math import nan
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from rapport.common.errors import FieldProblem, Invalid
from rapport.common.events.vocabulary import Severity

Number = Annotated[float, Field(allow_inf_nan=False)]
"""JSON knows no others, so a stored one would not be there when it is read."""

Scalar = str | bool | int | Number | None

_RANK: Final = {severity.value: rank for rank, severity in enumerate(Severity)}


class Comparison(BaseModel):
    """A condition by order or by difference; bounds are numbers or severities."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_least: int | Number | Severity | None = None
    below: int | Number | Severity | None = None
    is_not: str | tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.at_least is None and self.below is None and self.is_not is None:
            raise ValueError("give at_least, below or is_not")
        return self

    def holds(self, value: Scalar) -> bool:
        """Tell whether `value` meets the condition; what is no such thing meets no bound."""
        if self.is_not is not None:
            refused = self.is_not if isinstance(self.is_not, tuple) else (self.is_not,)
            if value in refused:
                return False
        return (self.at_least is None or _compared(value, self.at_least) >= 0) and (
            self.below is None or _compared(value, self.below) < 0
        )


class Conditions(RootModel[dict[str, Comparison | tuple[Scalar, ...] | Scalar]]):
    """Conditions that must all hold; none at all always holds."""

    model_config = ConfigDict(frozen=True)

    def hold(self, about: Mapping[str, Any] | BaseModel) -> bool:
        """Tell whether all conditions hold for a mapping or a model with these fields."""
        if isinstance(about, BaseModel):
            return all(
                _holds(test, getattr(about, field, None)) for field, test in self.root.items()
            )
        return all(_holds(test, about.get(field)) for field, test in self.root.items())

    def check_fields(self, known: Iterable[str], where: str = "") -> None:
        """Raise Invalid naming every field that nothing has."""
        allowed = set(known)
        problems = [
            FieldProblem(f"{where}/{field}", f"is not one of {', '.join(sorted(allowed))}")
            for field in self.root
            if field not in allowed
        ]
        if problems:
            raise Invalid("conditions name unknown fields", problems)


def _holds(test: Comparison | tuple[Scalar, ...] | Scalar, value: Any) -> bool:
    if isinstance(test, Comparison):
        return test.holds(value)
    if isinstance(test, tuple):
        return value in test
    return bool(value == test)


def _compared(value: Scalar, bound: int | float | Severity) -> float:
    """Return the sign of `value` - `bound`; NaN, which meets no bound, if they do not compare."""
    if isinstance(bound, Severity):
        return _RANK.get(str(value), nan) - _RANK[bound.value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return nan
    return (value > bound) - (value < bound)
