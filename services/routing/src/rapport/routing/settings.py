"""What routing can be told beside what every service can."""

from pydantic import Field

from rapport.common.settings import Settings


class RoutingSettings(Settings):
    """The settings of routing."""

    routing_count_loads_seconds: float = Field(
        30.0, ge=0, description="How long a count of everybody's open cases is used, in seconds."
    )
