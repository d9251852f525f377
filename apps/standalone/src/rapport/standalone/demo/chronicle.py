"""What happens by itself, in words: from the events of the live stream and what arrives outside.

Each kind of event has one sentence, and those that come in numbers one for many. What people do is
told by the player; it is left out here.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Final

from rapport.standalone.demo.receivers import Arrival
from rapport.standalone.demo.world import Json, World

FEW: Final = 3
"""Of so many events or messages of a kind at once each is told by itself."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened: when, in one sentence, and more of it line by line."""

    at: datetime
    what: str
    more: Sequence[str] = ()


Sentence = Callable[[Json, World], str | None]
Summary = Callable[[Sequence[Json], World], str]


def happenings(events: Iterable[Json], world: World) -> Iterator[Happening]:
    """Yield what the system did by itself, in order; many of a kind in a row as one."""
    told = [event for event in events if _kind(event) in ONE]
    for kind, group in groupby(told, key=_kind):
        items = list(group)
        if len(items) > FEW and kind in MANY:
            what = MANY[kind]([item["data"] for item in items], world)
            yield Happening(_time(items[-1]), what)
            continue
        for item in items:
            sentence = ONE[kind](item["data"], world)
            if sentence is not None:
                yield Happening(_time(item), sentence, tuple(_more(kind, item["data"])))


def deliveries(arrived: Sequence[Arrival], world: World) -> Iterator[str]:
    """Yield what arrived outside; many messages through a channel as one line."""
    for channel, name in CHANNELS.items():
        messages = [item for item in arrived if item.channel == channel]
        if len(messages) > FEW:
            counts = Counter(item.language for item in messages)
            languages = ", ".join(f"{n} in {language}" for language, n in sorted(counts.items()))
            yield f"{len(messages)} messages by {name}: {languages}"
        else:
            for message in messages:
                to = world.name(message.to).strip("/")
                yield f"{name}, {to}: “{world.readable(message.subject)}”"


CHANNELS: Final = {
    "email": "e-mail",
    "webhook": "webhook (signature verified)",
    "stream": "live stream",
}


def duration(seconds: float) -> str:
    """Return a duration in the two largest units that it has: 2 d 3 h, 1 h 15 min, 42 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min")]
    told = [f"{count} {unit}" for count, unit in parts if count][:2]
    return " ".join(told) or f"{rest} s"


def coverage(counts: Json) -> str:
    """Return a crisis's coverage in words."""
    return (
        f"{counts['linked']} linked, {counts['delivered']} reached, {counts['missing']} missing, "
        f"{counts['opted_out']} opted out, {counts['unreachable']} unreachable, "
        f"{counts['without_closing']} without a closing statement"
    )


def _time(event: Json) -> datetime:
    return datetime.fromisoformat(event["time"])


def _kind(event: Json) -> str:
    return str(event["type"]).removeprefix("rapport.").removesuffix(".v1")


def _clock_time(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%H:%M}"


def _clock_subject(data: Json, world: World) -> str:
    if data["of"] == "case":
        return f"first answer in {world.case(data['aggregate_id'])}"
    return f"the {str(data['clock']).replace('_', ' ')}"


def _warned(data: Json, world: World) -> str:
    due = _clock_time(data["due_at"])
    owner = f", {world.person(data['owner'])} is warned" if data["owner"] else ""
    return f"{_clock_subject(data, world)} is due at {due}{owner}"


def _breached(data: Json, world: World) -> str:
    return f"{_clock_subject(data, world)} is overdue since {_clock_time(data['due_at'])}"


def _met(data: Json, world: World) -> str:
    timely = "too late" if data["breached"] else "in time"
    return f"{_clock_subject(data, world)}: {timely}, after {duration(data['elapsed'])}"


def _many_met(items: Sequence[Json], world: World) -> str:
    late = sum(item["breached"] for item in items)
    return f"{len(items)} first answers were delivered, {len(items) - late} of them in time"


def _escalated(data: Json, world: World) -> str:
    return (
        f"{world.case(data['case_id'])} is escalated to {world.person(data['to'])}; "
        f"{world.person(data['owner'])} stays the owner"
    )


def _signal(data: Json, world: World) -> str:
    series = data["series"]
    named = [series["brand"], series["product"], series["complaint_type"].replace("_", " ")]
    return f"signal: {', '.join(filter(None, named))}"


def _linked(data: Json, world: World) -> str:
    return f"{world.case(data['case_id'])} joins the crisis"


def _many_linked(items: Sequence[Json], world: World) -> str:
    names = ", ".join(world.case(item["case_id"]) for item in items)
    return f"{len(items)} cases join the crisis by themselves: {names}"


def _digest(data: Json, world: World) -> str:
    kinds = ", ".join(f"{count} x {kind}" for kind, count in sorted(data["by_kind"].items()))
    return f"digest “{data['digest']}”: {data['total']} messages since the last one ({kinds})"


def _more(kind: str, data: Json) -> Iterator[str]:
    """Yield the lines that some events have besides their sentence."""
    if kind == "signal.detected":
        yield from data["reason"].values()
    if kind in ("crisis.stood_down", "crisis.stand_down_refused"):
        yield coverage(data["coverage"])
    if kind == "digest.compiled":
        for line in data["lines"][:5]:
            about = [line["topic"].replace("_", " "), line["product"], line["region"]]
            change = "" if line["change"] is None else f", {line['change']:+.0%}"
            named = " · ".join(filter(None, about))
            yield f"{named}: {line['count']}, {line['negative']} negative{change}"


ONE: Final[dict[str, Sentence]] = {
    "clock.warned": _warned,
    "clock.breached": _breached,
    "clock.met": _met,
    "case.escalated": _escalated,
    "case.handover_expired": lambda data, world: (
        f"nobody answered the offer of {world.case(data['case_id'])}: it stays with "
        f"{world.person(data['returned_to'])}"
    ),
    "case.referral_returned": lambda data, world: (
        f"the time of a referral is over: {world.case(data['case_id'])} is back with "
        f"{world.person(data['owner'])}"
        if data["expired"]
        else None
    ),
    "case.crisis_linked": _linked,
    "signal.detected": _signal,
    "signal.cleared": lambda data, world: "the signal is over: back to what is usual",
    "crisis.proposed": lambda data, world: f"a crisis is proposed: {data['title']}",
    "crisis.stand_down_refused": lambda data, world: f"the stand-down is refused: {data['reason']}",
    "crisis.stood_down": lambda data, world: "the crisis is over",
    "statement.approved": lambda data, world: (
        f"every group has agreed: {', '.join(map(world.person, data['approvals']))}"
    ),
    "digest.compiled": _digest,
    "kpi.target_missed": lambda data, world: (
        f"target missed: {data['kpi']} is {data['value']:.3g}, should be {data['target']:.3g}"
    ),
}
"""One sentence per kind of event."""

MANY: Final[dict[str, Summary]] = {
    "clock.met": _many_met,
    "case.crisis_linked": _many_linked,
}
"""One sentence for many of a kind."""


def latest_proposal(events: Sequence[Json]) -> str | None:
    """Return the id of the crisis that was proposed last."""
    proposals = (item for item in reversed(events) if _kind(item) == "crisis.proposed")
    return next((item["data"]["crisis_id"] for item in proposals), None)
