"""Where a message stands: what the sender may know, in whatever order the events come."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.common.events import Event, Message, encode
from rapport.common.events.cases import (
    CaseClosed,
    CaseReopened,
    CaseResolved,
    FeedbackClassified,
    Subject,
)
from rapport.common.events.envelope import EventData, sequence
from rapport.common.events.topics import DEAD_LETTERS
from rapport.common.events.vocabulary import (
    Channel,
    ComplaintType,
    Kind,
    Language,
    Need,
    Sentiment,
    Severity,
    TrustCause,
)
from rapport.common.testing import MORNING, Harness, harness, token
from rapport.intake.service import SERVICE

from .sending import FEEDBACK, SHOP, accepted, complaint, problem, published, received, send

KETTLE = Subject(
    kind=Kind.COMPLAINT,
    channel=Channel.WEB,
    language=Language.EN,
    complaint_type=ComplaintType.PRODUCT_QUALITY,
    need=Need.MATERIAL,
    sentiment=Sentiment.NEGATIVE,
    trust_cause=TrustCause.QUALITY,
    severity=Severity.NORMAL,
)
"""What the case is about."""


class Story:
    """What becomes of one complaint after intake has published it."""

    def __init__(self, intake: Harness, feedback: str) -> None:
        self._intake = intake
        self._feedback = feedback
        self.received = published(intake)[-1]
        self.case = received(intake)[-1].data.case_id

    @property
    def routed(self) -> Message:
        """It was assessed."""
        return self.routed_too(self._feedback)

    def routed_too(self, feedback: str) -> Message:
        """A message of the same case was assessed."""
        data = FeedbackClassified(
            case_id=self.case, feedback_id=feedback, about=KETTLE, because={}, occurred_at=MORNING
        )
        return self._told(1, data)

    def given_up(self, group: str = "routing") -> Message:
        """A group could not handle it."""
        added = {
            "original-topic": "rapport.feedback",
            "original-partition": "0",
            "original-offset": "0",
            "original-consumer-group": group,
            "exception-fqcn": "builtins.ZeroDivisionError",
            "exception-message": "ZeroDivisionError",
        }
        headers = [(f"kafka_dlt-{name}", value.encode()) for name, value in added.items()]
        headers += self.received.headers
        return self.received._replace(topic=DEAD_LETTERS.name, headers=headers)

    @property
    def resolved(self) -> Message:
        """Its case has a solution."""
        data = CaseResolved(
            case_id=self.case,
            by="jun",
            resolution="A new one was sent.",
            about=KETTLE,
            opened_at=MORNING,
            first_contact=False,
        )
        return self._told(2, data)

    @property
    def reopened(self) -> Message:
        """Its case is in work again."""
        data = CaseReopened(
            case_id=self.case, by="jun", owner="jun", reason="it leaks too", about=KETTLE
        )
        return self._told(3, data)

    @property
    def closed(self) -> Message:
        """Its case is done."""
        data = CaseClosed(case_id=self.case, by="jun", about=KETTLE, owner="jun", opened_at=MORNING)
        return self._told(4, data)

    def _told(self, version: int, data: EventData) -> Message:
        event: Event[Any] = self._intake.event(
            data, subject=self.case, sequence=sequence(version, 0)
        )
        return encode(event)


async def status(intake: Harness, name: str, **call: Any) -> dict[str, Any]:
    """Return where a message stands, as its sender is told unless `call` says otherwise."""
    call = {"as_": SHOP, "roles": ["publisher"]} | call
    answer = await intake.call("GET", f"{FEEDBACK}/{name}", **call)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_what_is_accepted_and_not_read_yet_is_pending(intake: Harness) -> None:
    receipt = await accepted(intake, settled=False)
    sender = {"Authorization": f"Bearer {token(SHOP, 'publisher')}"}
    answer = await intake.http.get(receipt["status_url"], headers=sender)
    assert answer.json() == {
        "id": receipt["id"],
        "reference": receipt["reference"],
        "state": "pending",
        "historical": False,
    }


async def test_only_who_has_the_status_url_knows_what_is_pending(intake: Harness) -> None:
    receipt = await accepted(intake, settled=False)
    sender = {"Authorization": f"Bearer {token(SHOP, 'publisher')}"}
    address = receipt["status_url"].partition("?")[0]
    for query in ("", "?mac=", f"?mac={'0' * 32}", "?mac=%F0%9F%98%80"):
        problem(await intake.http.get(address + query, headers=sender), 404)


async def test_every_replica_with_the_same_secret_knows_a_status_url(intake: Harness) -> None:
    receipt = await accepted(intake, settled=False)
    async with harness(SERVICE, status_key="of statuses") as replica:
        answer = await replica.call("GET", receipt["status_url"])
        assert answer.json()["state"] == "pending"
    async with harness(SERVICE, status_key="of others") as stranger:
        problem(await stranger.call("GET", receipt["status_url"]), 404)


async def test_a_message_is_found_by_its_id_and_by_its_reference_as_people_say_it(
    intake: Harness,
) -> None:
    receipt = await accepted(intake)
    told = await status(intake, receipt["id"])
    assert (told["state"], told["reference"]) == ("received", receipt["reference"])
    spoken = receipt["reference"].lower().replace("-", " ").replace("0", "o")
    for name in (receipt["reference"], spoken):
        assert await status(intake, name) == told


async def test_a_stranger_learns_nothing(intake: Harness) -> None:
    receipt = await accepted(intake)
    stranger: dict[str, Any] = {"as_": "till", "roles": ["publisher"]}
    for name in (receipt["id"], receipt["reference"], "R-0000-0000-0000", "no such thing"):
        refused = problem(await intake.call("GET", f"{FEEDBACK}/{name}", **stranger), 404)
        assert refused["detail"] == "there is no such feedback"
    problem(await intake.call("GET", receipt["status_url"], **stranger), 404)
    problem(await intake.http.get(f"{FEEDBACK}/{receipt['id']}"), 401)


async def test_staff_see_every_message(intake: Harness) -> None:
    receipt = await accepted(intake)
    for role in ("viewer", "agent", "pr"):
        told = await status(intake, receipt["id"], as_="jun", roles=[role])
        assert told["state"] == "received"


async def test_a_message_goes_its_way(intake: Harness) -> None:
    receipt = await accepted(intake)
    story = Story(intake, receipt["id"])
    for message, state in (
        (story.routed, "routed"),
        (story.resolved, "resolved"),
        (story.reopened, "reopened"),
        (story.closed, "closed"),
    ):
        await intake.advance(hours=1)
        await intake.deliver([message])
        told = await status(intake, receipt["id"])
        assert (told["state"], told["case_id"]) == (state, story.case)
    assert told["received_at"] == "2026-03-02T08:00:00Z"


async def test_a_message_that_nobody_could_handle_has_failed_until_it_succeeds(
    intake: Harness,
) -> None:
    receipt = await accepted(intake)
    story = Story(intake, receipt["id"])
    await intake.deliver([story.given_up("analytics")])
    assert (await status(intake, receipt["id"]))["state"] == "received"
    await intake.deliver([story.given_up("routing")])
    assert (await status(intake, receipt["id"]))["state"] == "failed"
    await intake.deliver([story.routed])
    assert (await status(intake, receipt["id"]))["state"] == "routed"
    await intake.deliver([story.given_up("routing")])
    assert (await status(intake, receipt["id"]))["state"] == "routed"


async def test_a_failure_heard_of_first_is_shown_to_who_has_the_status_url(
    intake: Harness,
) -> None:
    async with harness(SERVICE, status_key="of statuses") as elsewhere:
        receipt = await accepted(elsewhere)
        await intake.deliver([Story(elsewhere, receipt["id"]).given_up()])
    answer = await intake.call("GET", receipt["status_url"], as_=SHOP, roles=["publisher"])
    assert answer.json()["state"] == "failed"
    path = f"{FEEDBACK}/{receipt['id']}"
    problem(await intake.call("GET", path, as_=SHOP, roles=["publisher"]), 404)


async def test_every_message_of_a_case_shares_its_end(intake: Harness) -> None:
    first = await accepted(intake)
    story = Story(intake, first["id"])
    second = await accepted(intake, source_ref="T-2", thread_ref="T-1")
    await intake.deliver([story.routed, story.resolved])
    assert (await status(intake, first["id"]))["state"] == "resolved"
    assert (await status(intake, second["id"]))["state"] == "received"
    await intake.deliver([story.routed_too(second["id"])])
    assert (await status(intake, second["id"]))["state"] == "resolved"


async def test_what_is_rehearsed_or_imported_says_so(intake: Harness) -> None:
    past = complaint(historical=True, occurred_at="2025-06-01T12:00:00Z")
    drill = {"X-Rapport-Exercise": "spring"}
    receipt = (await send(intake, FEEDBACK, json=past, headers=drill)).json()
    told = await status(intake, receipt["id"])
    assert (told["historical"], told["exercise"]) == (True, "spring")


STEPS = ("received", "failed", "routed", "resolved", "reopened", "closed")


def expected(told: set[str]) -> str:
    """Return where a message stands once all of these are told, in whatever order."""
    known = STEPS if "routed" in told else STEPS[:2]
    return max(told.intersection(known), key=STEPS.index)


@settings(max_examples=30)
@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=12))
async def test_a_status_never_goes_back_in_whatever_order_and_however_often_it_is_told(
    steps: list[str],
) -> None:
    async with harness(SERVICE) as elsewhere, harness(SERVICE) as intake:
        receipt = await accepted(elsewhere)
        story = Story(elsewhere, receipt["id"])
        messages = {
            "received": story.received,
            "failed": story.given_up(),
            "routed": story.routed,
            "resolved": story.resolved,
            "reopened": story.reopened,
            "closed": story.closed,
        }
        told: set[str] = set()
        for step in steps:
            await intake.deliver([messages[step]])
            told.add(step)
            if told.intersection(STEPS[:3]):
                shown = await status(intake, receipt["id"], roles=["viewer"])
                assert shown["state"] == expected(told)
