"""Stored documents: aggregates and facts in JSON, written and read by pydantic."""

from typing import Any, Final

from pydantic import ValidationError

from rapport.common.aggregate import Aggregate, Fact
from rapport.common.errors import PermanentError, TemporaryError

UPGRADE_DELAY: Final = 30.0


def read(kind: type[Aggregate | Fact], schema: int, document: str) -> Any:
    """Return the item of `kind` that was stored with this schema number.

    Raises TemporaryError where newer code wrote it, PermanentError where it does not fit.
    """
    if issubclass(kind, Aggregate) and schema > kind.SCHEMA:
        raise TemporaryError(
            f"{kind.COLLECTION} is stored by newer code (schema {schema})", UPGRADE_DELAY
        )
    try:
        return kind.__pydantic_validator__.validate_json(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = "".join(f"/{step}" for step in first["loc"][:1])
        raise PermanentError(
            f"a stored {kind.COLLECTION} does not fit: {place or 'the whole'}: {first['type']}"
        ) from None
