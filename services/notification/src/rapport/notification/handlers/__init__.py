"""What notification does when something happens: from an event to messages, and from there out.

An event becomes an *alert* (a communication to those who subscribe), a line of a *digest*, a
*reply* or a *statement*. Each asks for notifications. Of alerts only as many are admitted as their
recipient should get (*limits*). A notification is leased, sent and recorded (*delivery*).
Statements also reach persons through their link to a *crisis*: `Audience` knows what was said,
`Linked` who was told.
"""

from typing import Final

from rapport.common.handling import Declared
from rapport.notification.handlers import (
    alerts,
    crisis,
    delivery,
    digests,
    limits,
    replies,
    statements,
)

DECLARED: Final[list[Declared]] = [
    *alerts.DECLARED,
    *digests.DECLARED,
    *replies.DECLARED,
    *statements.DECLARED,
    *crisis.DECLARED,
    *limits.DECLARED,
    *delivery.DECLARED,
]
