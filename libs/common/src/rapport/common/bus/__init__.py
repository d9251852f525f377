"""The bus: events between services, with the same promises in one process and on Kafka."""

from rapport.common.bus.port import Bus, Expired, Handler, Lag, Position, Subscription

__all__ = ["Bus", "Expired", "Handler", "Lag", "Position", "Subscription"]
