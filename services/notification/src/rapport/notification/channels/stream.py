"""The live stream: what is addressed to it is delivered by being recorded.

The stream shows the topic of notifications. `notification.delivered` carries the text, so that
event is the delivery itself: when the outcome of `send` is saved, everyone who listens gets it, and
who listens later reads it from the log. Nothing leaves the system here, so a drill may use it.
"""

from rapport.notification.channels import Delivered, Outcome, Outgoing


class StreamChannel:
    """Answers at once; the event that follows is what the live stream carries."""

    name = "stream"

    async def send(self, message: Outgoing) -> Outcome:
        """Promise the message to everyone on the live stream."""
        return Delivered("published")

    async def close(self) -> None:
        """Do nothing: the stream holds no connection."""
