"""Alerts: an event is told at once to those who subscribe to it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rapport.common.events.communications import CommunicationPurpose
from rapport.common.events.envelope import Event, EventData
from rapport.common.events.ids import derived_id
from rapport.common.events.knowledge import Wording
from rapport.common.events.vocabulary import Language
from rapport.common.handling import Declared, on
from rapport.notification.channels.rendering import Alert, Digest, Renderer
from rapport.notification.domain.allowances import Limits
from rapport.notification.domain.communications import (
    PAGE,
    Communication,
    Target,
    members,
    targets_of,
)
from rapport.notification.domain.matters import DIGEST_ONLY, MATTERS, Matter, event_name, matter_of
from rapport.notification.domain.stakeholders import Stakeholder, Subscription
from rapport.notification.repository import Directory
from rapport.notification.resources import Resources

LANGUAGES: Final = (Language.EN, Language.ZH, Language.FA)
GROUP: Final = "group:"


async def subscribers(
    events: Sequence[Event[EventData]], notification: Resources
) -> tuple[Directory, Renderer, Limits]:
    """Give alerts the current subscriptions and stakeholders, the templates and the limits."""
    directory = await notification.directory.current()
    return directory, notification.renderer, notification.limits.rules


def alert(
    communication: Communication | None,
    event: Event[EventData],
    given: tuple[Directory, Renderer, Limits],
) -> Communication | None:
    """Tell at once everybody who subscribes to this event; nobody is told of the past."""
    directory, renderer, limits = given
    matter = matter_of(event)
    if communication is not None or matter is None or event.historical:
        return None
    groups, named = told_by(wanted_by(directory.subscriptions, matter), matter.owner)
    told = told_of(directory.stakeholders, groups, named)
    targets = [target for one in told for target in targets_of(one)]
    if not targets:
        return None
    is_one_page = len(targets) <= PAGE
    languages = spoken_by(targets) if is_one_page else LANGUAGES
    purpose: CommunicationPurpose = "digest" if matter.event == "digest.compiled" else "alert"
    made = Communication(
        id=_alert_id(event),
        purpose=purpose,
        wordings=alert_wordings(matter, event.time, renderer, languages),
        data={"event": event.type, "event_id": event.id, **matter.about, **matter.data},
        crisis_id=matter.crisis_id,
        case_id=matter.case_id,
        limited=purpose == "alert" and limits.alerts.counts(matter),
        planned_at=event.time,
    ).planned()
    if is_one_page:
        made.request(targets)
    else:
        made.groups, made.named = tuple(sorted(groups)), tuple(sorted(named))
        made.stage, made.step_at = "groups", event.time
    return made


def wanted_by(subscriptions: Iterable[Subscription], matter: Matter) -> list[Subscription]:
    """Return the subscriptions that want a matter at once."""
    return [
        item
        for item in subscriptions
        if item.deliver == "at_once" and item.wants(matter.event, matter.about)
    ]


def told_by(
    subscriptions: Iterable[Subscription], owner: str | None
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the groups and the stakeholders that subscriptions name; `owner` is who owns it."""
    names = {name for item in subscriptions for name in item.to}
    groups = frozenset(name.removeprefix(GROUP) for name in names if name.startswith(GROUP))
    named = {name for name in names if not name.startswith(GROUP)}
    if "owner" in named and owner is not None:
        named.add(owner)
    return groups, frozenset(named - {"owner"})


def told_of(
    stakeholders: Mapping[str, Stakeholder], groups: frozenset[str], named: frozenset[str]
) -> list[Stakeholder]:
    """Return the active stakeholders that belong to any of `groups` or are `named`."""
    if groups:
        return list(members(stakeholders.values(), groups, named))
    return [stakeholders[id] for id in sorted(named) if id in stakeholders]


def spoken_by(targets: Iterable[Target]) -> list[Language]:
    """Return the languages in which these are told: those of theirs that we have, else English."""
    theirs = {one.language if one.language in LANGUAGES else Language.EN for one in targets}
    return [language for language in LANGUAGES if language in theirs]


def alert_wordings(
    matter: Matter, at: datetime, renderer: Renderer, languages: Iterable[Language]
) -> dict[Language, Wording]:
    """Return an alert, or a compiled digest, in each of `languages`."""
    if matter.event == "digest.compiled":
        compiled = _compiled(matter.data)
        return in_languages(languages, renderer, "digest", lambda _: compiled)
    return in_languages(
        languages, renderer, "alert", lambda language: _alert(matter, at, renderer, language)
    )


def in_languages(
    languages: Iterable[Language],
    renderer: Renderer,
    kind: str,
    context: Callable[[Language], Alert | Digest],
) -> dict[Language, Wording]:
    """Return one message in each of `languages`; `context` gives what it is rendered from."""
    return {
        language: Wording(subject=words.subject, text=words.text)
        for language in languages
        for words in [renderer.render(kind, language, context(language))]
    }


def _alert(matter: Matter, at: datetime, renderer: Renderer, language: Language) -> Alert:
    reason = matter.reason
    return Alert(
        event=matter.event,
        about=renderer.named(matter.term, matter.title, language),
        reason=reason if isinstance(reason, str) else reason.get(language, reason.get("en", "")),
        severity=matter.severity,
        responsible=matter.owner,
        at=at,
        due_at=matter.due_at,
        suppressed=0,
        url=None,
    )


def _compiled(data: Mapping[str, Any]) -> Digest:
    return Digest(
        start=datetime.fromisoformat(data["start"]),
        end=datetime.fromisoformat(data["end"]),
        total=data["total"],
        by_kind=data["by_kind"],
        lines=data["lines"],
        items=(),
        suppressed=0,
        url=None,
    )


def _alert_id(event: Event[EventData]) -> str:
    return derived_id("alert", event.id)


DECLARED: Final[list[Declared]] = [
    on(kind, changes=Communication, key=_alert_id, prepare=subscribers)(alert)
    for kind in MATTERS
    if event_name(kind) not in DIGEST_ONLY
]
