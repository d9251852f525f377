"""What routing can be told beside what every service can."""

from pydantic import Field

from rapport.common import settings


class Settings(settings.Settings):
    """How it spreads work."""

    routing_count_loads_seconds: float = Field(
        30.0, ge=0, description="How long a count of everybody's open cases is used, in seconds."
    )
