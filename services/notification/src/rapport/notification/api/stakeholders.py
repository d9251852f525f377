"""Stakeholders, their groups, and what recipients do not want, over HTTP."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from fastapi import Response
from pydantic import BaseModel, Field, StringConstraints

from rapport.common.errors import FieldProblem, Invalid, NotFound, PermanentError
from rapport.common.events.communications import CommunicationPurpose
from rapport.common.events.notifications import NotificationChannel
from rapport.common.events.vocabulary import Language
from rapport.common.http import Command, Cursor, Limit, Router, command, etag, may
from rapport.common.people import person_id
from rapport.notification.api.shared import Body, Id, Line, Listed, Notifying, existing, listed
from rapport.notification.channels.addresses import AddressPolicy
from rapport.notification.channels.email import mailbox
from rapport.notification.channels.webhook import new_secret
from rapport.notification.domain.communications import members
from rapport.notification.domain.stakeholders import (
    Address,
    Preference,
    Stakeholder,
    StakeholderGroup,
)
from rapport.notification.repository import Directory

router = Router(tags=["stakeholders"])


# Stakeholders


class AddressBody(Body):
    """Where to reach a stakeholder; a webhook without a secret is given one, shown once."""

    channel: Literal["email", "webhook", "stream"]
    to: Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class StakeholderBody(Body):
    """A stakeholder's record; there is one address for each channel."""

    name: Line = ""
    side: Literal["internal", "external"] = "external"
    language: Language = Language.EN
    groups: Annotated[tuple[Id, ...], Field(max_length=50)] = ()
    addresses: Annotated[tuple[AddressBody, ...], Field(max_length=10)] = ()
    active: bool = True


class AddressView(BaseModel):
    """An address; `secret` signs a webhook's messages and is shown only when it is made."""

    channel: NotificationChannel
    to: str
    secret: str | None = None


class StakeholderView(BaseModel):
    """A stakeholder; `recipient` is the person's id, the same for every record of theirs."""

    id: str
    name: str
    side: str
    language: Language
    groups: Sequence[str]
    addresses: Sequence[AddressView]
    active: bool
    recipient: str


def _shown(item: Stakeholder, made: Mapping[str, str] | None = None) -> StakeholderView:
    """Show a record; of the secrets that were `made` for it, those that it keeps."""
    return StakeholderView(
        id=item.id,
        name=item.name,
        side=item.side,
        language=item.language,
        groups=item.groups,
        addresses=[
            AddressView(channel=one.channel, to=one.to, secret=_kept(one, made or {}))
            for one in item.addresses
        ],
        active=item.active,
        recipient=item.recipient,
    )


def _kept(address: Address, made: Mapping[str, str]) -> str | None:
    """Return the secret made for an address, unless one of an earlier command is used instead."""
    secret = made.get(address.to)
    return secret if secret in address.secrets else None


@router.put("/stakeholders/{id}", summary="Create or replace a stakeholder's record")
async def put_stakeholder(
    id: Id,
    body: StakeholderBody,
    response: Response,
    notification: Notifying,
    cmd: Annotated[Command, command("stakeholder.write")],
) -> StakeholderView:
    """Addresses are checked: a webhook must be one that users may make us call."""
    _check_addresses(body.addresses, notification.address_policy)
    made: dict[str, str] = {}

    def decide(current: Stakeholder | None) -> Stakeholder:
        current = current or Stakeholder(id=id)
        known = {one.to: one.secrets for one in current.addresses}
        for one in body.addresses:
            if one.channel == "webhook" and not known.get(one.to):
                made.setdefault(one.to, new_secret())
        addresses = tuple(
            Address(
                channel=one.channel, to=one.to, secrets=known.get(one.to) or _secrets(made, one)
            )
            for one in body.addresses
        )
        email = next((one.to for one in addresses if one.channel == "email"), None)
        current.become(
            name=body.name,
            side=body.side,
            language=body.language,
            groups=body.groups,
            addresses=addresses,
            recipient=person_id(notification.person_key, email=email),
            active=body.active,
        )
        return current

    saved = await cmd.change(Stakeholder, id, decide)
    notification.directory.forget()
    response.headers.update(etag(saved))
    return _shown(saved, made)


def _secrets(made: Mapping[str, str], address: AddressBody) -> tuple[str, ...]:
    return (made[address.to],) if address.to in made else ()


def _check_addresses(addresses: Sequence[AddressBody], policy: AddressPolicy) -> None:
    problems = []
    for place, address in enumerate(addresses):
        pointer = f"/addresses/{place}"
        if any(address.channel == earlier.channel for earlier in addresses[:place]):
            problems.append(FieldProblem(f"{pointer}/channel", "there is one address per channel"))
        if reason := _refusal(address, policy):
            problems.append(FieldProblem(f"{pointer}/to", reason))
    if problems:
        raise Invalid("the addresses cannot be used", problems)


def _refusal(address: AddressBody, policy: AddressPolicy) -> str | None:
    if address.channel == "email" and mailbox(address.to) is None:
        return "is not an e-mail address"
    if address.channel == "webhook":
        try:
            policy.check(address.to)
        except PermanentError as refused:
            return refused.reason
    return None


class SecretBody(Body):
    """The webhook that gets a new secret."""

    to: Annotated[str, StringConstraints(min_length=1, max_length=2000)]


@router.post("/stakeholders/{id}/secrets", status_code=201, summary="Give a webhook a new secret")
async def post_secret(
    id: Id,
    body: SecretBody,
    response: Response,
    notification: Notifying,
    cmd: Annotated[Command, command("stakeholder.write")],
) -> StakeholderView:
    """It is shown once. The one before it signs as well, until there is a newer one still."""
    made = {body.to: new_secret()}

    def decide(current: Stakeholder | None) -> Stakeholder:
        if current is None or not current.add_secret(body.to, made[body.to]):
            raise NotFound("there is no such webhook")
        return current

    saved = await cmd.change(Stakeholder, id, decide)
    response.headers.update(etag(saved))
    return _shown(saved, made)


@router.get("/stakeholders", summary="List stakeholders", dependencies=[may("stakeholder.read")])
async def list_stakeholders(
    notification: Notifying, active: bool = True, limit: Limit = 50, cursor: Cursor = None
) -> Listed[StakeholderView]:
    """Those that are active, or those that are not, in order of their ids."""
    where = {"active": active}
    found = await notification.store.find(Stakeholder, where, limit=limit, cursor=cursor)
    return listed(found, _shown)


@router.get(
    "/stakeholders/{id}", summary="Show a stakeholder", dependencies=[may("stakeholder.read")]
)
async def get_stakeholder(id: Id, response: Response, notification: Notifying) -> StakeholderView:
    """With the version as ETag."""
    item = await existing(notification.store, Stakeholder, id)
    response.headers.update(etag(item))
    return _shown(item)


@router.delete("/stakeholders/{id}", status_code=204, summary="Tell a stakeholder nothing more")
async def delete_stakeholder(
    id: Id, notification: Notifying, cmd: Annotated[Command, command("stakeholder.write")]
) -> None:
    """The record stays, inactive, and can be put again later."""

    def decide(current: Stakeholder | None) -> Stakeholder | None:
        if current is not None:
            current.leave()
        return current

    await cmd.change(Stakeholder, id, decide)
    notification.directory.forget()


# Groups


class GroupBody(Body):
    """A group's name in each language."""

    title: dict[Language, Line] = Field(default_factory=dict)


class GroupView(BaseModel):
    """A group and how many active stakeholders it has."""

    id: str
    title: dict[Language, str]
    members: int


def _group(group: StakeholderGroup, directory: Directory) -> GroupView:
    count = sum(1 for _ in members(directory.stakeholders.values(), [group.id]))
    return GroupView(id=group.id, title=group.title, members=count)


@router.put("/stakeholder-groups/{id}", summary="Create or rename a stakeholder group")
async def put_group(
    id: Id,
    body: GroupBody,
    response: Response,
    notification: Notifying,
    cmd: Annotated[Command, command("stakeholder.write")],
) -> GroupView:
    """Stakeholders name the groups that they belong to."""

    def decide(current: StakeholderGroup | None) -> StakeholderGroup:
        current = current or StakeholderGroup(id=id)
        current.title, current.active = body.title, True
        return current

    saved = await cmd.change(StakeholderGroup, id, decide)
    response.headers.update(etag(saved))
    return _group(saved, await notification.directory.current())


@router.get(
    "/stakeholder-groups",
    summary="List stakeholder groups",
    dependencies=[may("stakeholder.read")],
)
async def list_groups(
    notification: Notifying, limit: Limit = 50, cursor: Cursor = None
) -> Listed[GroupView]:
    """In order of their ids."""
    where = {"active": True}
    found = await notification.store.find(StakeholderGroup, where, limit=limit, cursor=cursor)
    directory = await notification.directory.current()
    return listed(found, lambda group: _group(group, directory))


@router.delete("/stakeholder-groups/{id}", status_code=204, summary="End a stakeholder group")
async def delete_group(id: Id, cmd: Annotated[Command, command("stakeholder.write")]) -> None:
    """Its name goes; stakeholders that name it still belong together."""

    def decide(current: StakeholderGroup | None) -> StakeholderGroup | None:
        if current is not None:
            current.active = False
        return current

    await cmd.change(StakeholderGroup, id, decide)


# What recipients do not want


class PreferenceBody(Body):
    """The purposes that a recipient does not want to hear of."""

    opted_out: Annotated[tuple[CommunicationPurpose, ...], Field(max_length=20)] = ()


@router.put("/preferences/{recipient}", summary="Record what a recipient does not want")
async def put_preference(
    recipient: Id,
    body: PreferenceBody,
    response: Response,
    cmd: Annotated[Command, command("stakeholder.write")],
) -> PreferenceBody:
    """`recipient` is the person's id, as cases, notifications and stakeholders show it."""

    def decide(current: Preference | None) -> Preference:
        current = current or Preference(id=recipient)
        current.set(body.opted_out)
        return current

    saved = await cmd.change(Preference, recipient, decide)
    response.headers.update(etag(saved))
    return PreferenceBody(opted_out=saved.opted_out)


@router.get(
    "/preferences/{recipient}",
    summary="Show what a recipient does not want",
    dependencies=[may("stakeholder.read")],
)
async def get_preference(
    recipient: Id, response: Response, notification: Notifying
) -> PreferenceBody:
    """With the version as ETag."""
    found = await existing(notification.store, Preference, recipient)
    response.headers.update(etag(found))
    return PreferenceBody(opted_out=found.opted_out)
