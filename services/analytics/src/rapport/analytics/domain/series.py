"""Series: which negative items are counted together, so that a burst of them stands out.

An item counts in two series. In its product's it meets the complaints about the same thing; in its
brand's also what names no product: mentions, reviews, complaints about several products at once.
Each is told apart by type of complaint, and a drill's items have series of their own. Who names no
brand is counted with everybody else who does not.
"""

from functools import lru_cache

from rapport.common.events.analytics import Series
from rapport.common.events.cases import Subject
from rapport.common.events.ids import derived_id
from rapport.common.events.vocabulary import Kind, Sentiment


def is_negative(about: Subject) -> bool:
    """Whether something went wrong, or somebody feels badly about us."""
    return about.kind is Kind.COMPLAINT or about.sentiment is Sentiment.NEGATIVE


def product_series(about: Subject) -> Series | None:
    """The series of the product that an item is about, None where it names none."""
    if about.product is None:
        return None
    return Series(product=about.product, complaint_type=about.complaint_type)


def brand_series(about: Subject) -> Series:
    """The series of the brand that an item is about, whether it names one or not."""
    return Series(brand=about.brand, complaint_type=about.complaint_type)


@lru_cache(maxsize=4096)
def series_id(series: Series, exercise: str | None) -> str:
    """Return what a series is known by."""
    return derived_id(
        "series",
        series.product or "",
        series.brand or "",
        series.complaint_type,
        exercise or "",
    )
