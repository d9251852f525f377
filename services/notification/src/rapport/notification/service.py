"""Notification on one page: what it consumes, what it owns, what it works with."""

from functools import cache
from pathlib import Path

from rapport.common.events.topics import ANALYTICS, CASES, CRISES, KNOWLEDGE, NOTIFICATIONS
from rapport.common.policy import load_policy
from rapport.common.runtime import Host, Service
from rapport.notification.api import router
from rapport.notification.channels import Channels
from rapport.notification.channels.addresses import AddressPolicy
from rapport.notification.channels.destinations import Destinations
from rapport.notification.channels.elsewhere import ElsewhereChannel
from rapport.notification.channels.email import EmailChannel, EmailConfig
from rapport.notification.channels.rendering import Renderer
from rapport.notification.channels.stream import StreamChannel
from rapport.notification.channels.webhook import WebhookChannel
from rapport.notification.domain.allowances import Allowance, Limits
from rapport.notification.domain.audience import Audience, Linked
from rapport.notification.domain.communications import Communication
from rapport.notification.domain.log import Interaction, Occurrence
from rapport.notification.domain.notifications import Notification
from rapport.notification.domain.stakeholders import (
    Preference,
    Stakeholder,
    StakeholderGroup,
    Subscription,
)
from rapport.notification.handlers import DECLARED
from rapport.notification.repository import Directories
from rapport.notification.resources import Resources
from rapport.notification.settings import Settings


@cache
def _renderer(own_templates: Path | None) -> Renderer:
    """Compile the templates, once in a process."""
    return Renderer(own_templates)


def resources(host: Host) -> Resources:
    """Open the channels and read the templates and limits that the settings name."""
    settings: Settings = host.settings
    policy = AddressPolicy(settings.webhook_allow)
    password = settings.smtp_password
    email = EmailConfig(
        host=settings.smtp_host,
        port=settings.smtp_port,
        security=settings.smtp_security,
        user=settings.smtp_user,
        password=password.get_secret_value() if password else None,
        sender=settings.smtp_sender,
        sender_name=settings.smtp_sender_name,
    )
    return Resources(
        store=host.store,
        bus=host.bus,
        engine=host.engine,
        address_policy=policy,
        directory=Directories(host.store, host.clock),
        channels=Channels(
            EmailChannel(email), WebhookChannel(policy), StreamChannel(), ElsewhereChannel()
        ),
        destinations=Destinations({EmailChannel.name: email.connections}),
        renderer=_renderer(settings.template_dir),
        limits=load_policy("notification", "limits", Limits, settings.policy_dir),
        person_key=settings.person_key.get_secret_value().encode(),
    )


async def close(notification: Resources) -> None:
    """Let go of connections to mail servers and webhooks."""
    await notification.channels.close()


SERVICE = Service(
    name="notification",
    title="Rapport notification",
    consumes=(CASES, CRISES, KNOWLEDGE, ANALYTICS, NOTIFICATIONS),
    kinds=(
        Allowance,
        Audience,
        Communication,
        Interaction,
        Linked,
        Notification,
        Occurrence,
        Preference,
        Stakeholder,
        StakeholderGroup,
        Subscription,
    ),
    declared=DECLARED,
    router=router,
    resources=resources,
    settings=Settings,
    end=close,
)
