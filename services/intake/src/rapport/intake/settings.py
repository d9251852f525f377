"""What intake can be told beyond the common settings."""

from pathlib import Path

from pydantic import Field, SecretStr

from rapport.common import settings


class Settings(settings.Settings):
    """Mappings of your own, and the secret behind status URLs."""

    mapping_dir: Path | None = Field(
        None, description="Folder of mappings (YAML); one named like a built-in one replaces it."
    )
    status_key: SecretStr = Field(
        SecretStr(""),
        description="Secret that status URLs are signed with, the same for every replica; at least "
        "32 bytes. Needed by a process that runs intake alone.",
    )
