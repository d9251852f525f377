"""What knowledge can be told beyond its policy: nothing but the common settings."""

from rapport.common.settings import Settings

__all__ = ["Settings"]
