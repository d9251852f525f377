"""Notification over HTTP: who there is to be told, what was said, what became of it.

Views show addresses only to those who may read stakeholders; a list of notifications shows none.
"""

from rapport.common.http import Router
from rapport.notification.api import (
    allowances,
    communications,
    interactions,
    notifications,
    stakeholders,
    stream,
    subscriptions,
)
from rapport.notification.api.stakeholders import GroupBody, StakeholderBody
from rapport.notification.api.stream import STREAMED
from rapport.notification.api.subscriptions import SubscriptionBody

router = Router(prefix="/notification/v1")
router.include_router(stakeholders.router)
router.include_router(subscriptions.router)
router.include_router(communications.router)
router.include_router(notifications.router)
router.include_router(allowances.router)
router.include_router(interactions.router)
router.include_router(stream.router)

__all__ = ["STREAMED", "GroupBody", "StakeholderBody", "SubscriptionBody", "router"]
