"""What analytics can be told beyond its policies: nothing but the common settings."""

from rapport.common.settings import Settings

__all__ = ["Settings"]
