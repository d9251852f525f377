"""The bus: events between services, with the same promises in one process and on Kafka."""

from rapport.common.bus.port import Bus, Handler, Lag, Position, Subscription

__all__ = ["Bus", "Handler", "Lag", "Position", "Subscription"]
