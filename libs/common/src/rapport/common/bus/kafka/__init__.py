"""The bus on Apache Kafka, and its topics as an operator sets them up.

Nothing else imports aiokafka.
"""

from rapport.common.bus.kafka.bus import KafkaBus
from rapport.common.bus.kafka.reading import Timing
from rapport.common.bus.kafka.security import client_options
from rapport.common.bus.kafka.topics import apply, check

__all__ = ["KafkaBus", "Timing", "apply", "check", "client_options"]
