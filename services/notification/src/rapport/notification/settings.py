"""What notification can be told beyond the common settings."""

from typing import Literal

from pydantic import DirectoryPath, Field, SecretStr

from rapport.common import settings


class Settings(settings.Settings):
    """Mail server, webhooks, templates."""

    smtp_host: str = Field("localhost", description="SMTP server that e-mail goes through.")
    smtp_port: int = Field(587, ge=1, le=65535, description="Port of the SMTP server.")
    smtp_security: Literal["none", "starttls", "tls"] = Field(
        "starttls", description="`tls` from the first byte, `starttls`, or `none`."
    )
    smtp_user: str | None = Field(None, description="User at the SMTP server.")
    smtp_password: SecretStr | None = Field(None, description="Password at the SMTP server.")
    smtp_sender: str = Field("rapport@localhost", description="Address that e-mail comes from.")
    smtp_sender_name: str = Field("Rapport", description="Name that e-mail comes from.")
    webhook_allow: settings.Parts = Field(
        (),
        description="`HOST:PORT,...` of webhook receivers that are allowed though not public.",
    )
    template_dir: DirectoryPath | None = Field(
        None, description="Folder of message templates that replace the built-in ones."
    )
