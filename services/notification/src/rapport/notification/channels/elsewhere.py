"""Elsewhere: an answer that somebody gave by phone, or in the source's own channel.

Nothing is sent; the answer is on record as delivered, so that clocks and coverage know of it.
"""

from rapport.notification.channels import Delivered, Outcome, Outgoing


class ElsewhereChannel:
    """Answers at once: it was said already."""

    name = "elsewhere"

    async def send(self, message: Outgoing) -> Outcome:
        """Take it as said."""
        return Delivered("recorded")

    async def close(self) -> None:
        """Do nothing: there is no connection."""
