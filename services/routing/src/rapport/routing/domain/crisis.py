"""The crisis: proposed by a signal or by hand, declared by a person, ended when nobody is left out.

Membership lives in its cases: a crisis only holds the criteria. From its declaration on it goes
through the stored cases, page by page, and asks those that match to link themselves; it does so
again every few minutes, for cases that were opened at the same moment. A stand-down is asked for:
the crisis first looks for cases once more, then asks how far its statements have reached, and the
answer decides.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Final, Literal, Self

from pydantic import BaseModel, Field

from rapport.common.aggregate import Aggregate, Due
from rapport.common.errors import Conflict, FieldProblem, Invalid
from rapport.common.events.analytics import SignalDetected
from rapport.common.events.crises import (
    Coverage,
    CrisisDeclared,
    CrisisDismissed,
    CrisisLinkRequested,
    CrisisProposed,
    CrisisReviewed,
    CrisisStandDownRefused,
    CrisisStandDownRequested,
    CrisisStoodDown,
    CrisisUpdated,
    Criteria,
)
from rapport.common.events.envelope import Instant
from rapport.common.events.topics import CRISES, Topic
from rapport.common.events.vocabulary import Language, Severity
from rapport.routing.domain.clocks import Clock

SWEEP: Final = timedelta(minutes=5)
LONGEST_PROMISE: Final = timedelta(days=366)
ENTRIES_KEPT: Final = 200

_PERSIAN_DIGITS: Final = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")


class CrisisState(StrEnum):
    """Where a crisis is in its life."""

    PROPOSED = "proposed"
    """A signal, or somebody, says that this may be a crisis."""
    DECLARED = "declared"
    """It is one; cases that match its criteria link themselves."""
    STANDING_DOWN = "standing_down"
    """Its end was asked for; cases still link themselves, so that nobody is left out."""
    STOOD_DOWN = "stood_down"
    """It is over."""
    DISMISSED = "dismissed"
    """Somebody decided that it is none."""


ACTIVE: Final = (CrisisState.DECLARED, CrisisState.STANDING_DOWN)


class Entry(BaseModel):
    """A line of the crisis log; `kind` names what happened."""

    at: Instant
    by: str
    kind: Literal[
        "proposed",
        "declared",
        "dismissed",
        "update",
        "decision",
        "stand_down_requested",
        "stand_down_refused",
        "stood_down",
        "review",
    ]
    text: str


class StandDown(BaseModel):
    """A stand-down that was asked for; `asked` once the coverage is being counted."""

    request_id: str
    by: str
    asked: bool = False


class Crisis(Aggregate):
    """One crisis; see the module's docstring."""

    COLLECTION: ClassVar[str] = "crises"
    TOPIC: ClassVar[Topic | None] = CRISES
    ORDER: ClassVar[str] = "proposed_at"
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = (("state",),)

    state: CrisisState = CrisisState.PROPOSED
    title: str
    criteria: Criteria
    severity: Severity
    reason: str
    signal_id: str | None = None
    proposed_at: Instant
    declared_at: Instant | None = None
    ended_at: Instant | None = None
    entries: list[Entry] = Field(default_factory=list)
    clocks: dict[str, Clock] = Field(default_factory=dict)
    link_at: Instant | None = None
    link_cursor: str | None = None
    looks: int = 0
    stand_down: StandDown | None = None
    coverage: Coverage | None = None

    @classmethod
    def from_signal(cls, id: str, signal: SignalDetected, severity: Severity) -> Self:
        """Propose a crisis because something stands out."""
        series = signal.series
        named = [series.brand, series.product, series.complaint_type.value]
        return cls(
            id=id,
            title=" / ".join(name for name in named if name is not None),
            criteria=Criteria(
                product=series.product,
                brand=series.brand,
                complaint_type=series.complaint_type,
                since=signal.since,
            ),
            severity=severity,
            reason=signal.reason.get("en", ""),
            signal_id=signal.signal_id,
            proposed_at=signal.at,
        ).proposed("rapport", signal.reason)

    def proposed(self, by: str, reasons: Mapping[str, str] | None = None) -> Self:
        """Say that this may be a crisis; `reasons` is why, by language, where that is known."""
        self._log(self.proposed_at, by, "proposed", self.reason)
        self.emit(
            CrisisProposed(
                crisis_id=self.id,
                title=self.title,
                criteria=self.criteria,
                reason=self.reason,
                severity=self.severity,
                signal_id=self.signal_id,
                by=None if self.signal_id else by,
                reasons=dict(reasons or {}),
            )
        )
        return self

    def covers(self, criteria: Criteria) -> bool:
        """Tell whether this is about the same matter as `criteria`, whenever that began."""
        matter = {"since": None}
        return self.criteria.model_copy(update=matter) == criteria.model_copy(update=matter)

    def dismiss(self, by: str, reason: str, at: datetime) -> None:
        """Decide that it is no crisis."""
        self._require(CrisisState.PROPOSED, "dismissed")
        self.state, self.ended_at = CrisisState.DISMISSED, at
        self._log(at, by, "dismissed", reason)
        self.emit(CrisisDismissed(crisis_id=self.id, by=by, reason=reason))

    def declare(self, by: str, at: datetime, clock: Clock) -> None:
        """Decide that it is a crisis; `clock` is for its holding statement."""
        self._require(CrisisState.PROPOSED, "declared")
        self.state, self.declared_at = CrisisState.DECLARED, at
        self.link_at = at
        self._log(at, by, "declared", self.title)
        self.emit(
            CrisisDeclared(
                crisis_id=self.id,
                title=self.title,
                criteria=self.criteria,
                severity=self.severity,
                by=by,
                declared_at=at,
            )
        )
        self._start(clock)

    def update(self, by: str, text: str, at: datetime, promised: Clock | None) -> None:
        """Tell everyone concerned how it stands; `promised` is the clock of the next update."""
        self._require_active("updated")
        self._meet("next_update", at)
        due_at = promised.due_at if promised is not None else None
        self._record(by, "update", text, at, due_at)
        if promised is not None:
            self._start(promised)

    def decide(self, by: str, text: str, at: datetime) -> None:
        """Put a decision on record."""
        self._require_active("decided on")
        self._record(by, "decision", text, at, None)

    def hold(self, at: datetime) -> bool:
        """A holding statement was released; tell whether a clock waited for it.

        One from before the declaration, which may be told again, is not what the clock is for.
        """
        clock = self.clocks.get("holding_statement")
        if clock is None or at < clock.started_at:
            return False
        return self._meet("holding_statement", at)

    def request_stand_down(self, request_id: str, by: str, at: datetime) -> None:
        """Ask for the end: look for cases once more, then for the coverage."""
        self._require(CrisisState.DECLARED, "stood down")
        self.state = CrisisState.STANDING_DOWN
        self.stand_down = StandDown(request_id=request_id, by=by)
        self.link_at, self.link_cursor = at, None
        self._log(at, by, "stand_down_requested", "")

    def answer_stand_down(self, request_id: str, coverage: Coverage, at: datetime) -> bool:
        """End the crisis, or refuse to; False where this was answered before."""
        asked = self.stand_down
        if asked is None or asked.request_id != request_id:
            return False
        self.stand_down, self.coverage = None, coverage
        if coverage.without_closing:
            self._refuse(asked, coverage, at)
        else:
            self._end(asked, coverage, at)
        return True

    def review(self, by: str, text: str, at: datetime) -> None:
        """Put the post-incident review on record."""
        self._require(CrisisState.STOOD_DOWN, "reviewed")
        self._log(at, by, "review", text)
        self.emit(CrisisReviewed(crisis_id=self.id, by=by, text=text))

    def due(self) -> Iterator[Due]:
        """Name the next look for cases and the steps of its clocks."""
        if self.state in ACTIVE and self.link_at is not None:
            yield Due(f"link:{self.looks}", self.link_at)
        for clock in self.clocks.values():
            yield from clock.due()

    def pass_clock_step(self, item: Due) -> None:
        """A clock warns or is breached."""
        for clock in self.clocks.values():
            if item in clock.due():
                told = clock.step(item, None)
                if told is not None:
                    self.emit(told, key=clock.clock)

    def link_page(self, cases: Sequence[str], cursor: str | None, at: datetime) -> None:
        """Ask `cases` to link themselves, and go on: the next page, the coverage, or a pause."""
        for case in cases:
            self.emit(CrisisLinkRequested(crisis_id=self.id, case_id=case), key=case)
        self.looks += 1
        self.link_cursor = cursor
        self.link_at = at if cursor is not None else at + SWEEP
        if cursor is None and self.stand_down is not None and not self.stand_down.asked:
            self.stand_down.asked = True
            self.emit(
                CrisisStandDownRequested(
                    crisis_id=self.id,
                    request_id=self.stand_down.request_id,
                    by=self.stand_down.by,
                )
            )

    def _refuse(self, asked: StandDown, coverage: Coverage, at: datetime) -> None:
        self.state = CrisisState.DECLARED
        reasons = _left_behind(coverage.without_closing)
        reason = reasons[Language.EN]
        self._log(at, asked.by, "stand_down_refused", reason)
        self.emit(
            CrisisStandDownRefused(
                crisis_id=self.id,
                request_id=asked.request_id,
                by=asked.by,
                coverage=coverage,
                reason=reason,
                title=self.title,
                reasons=reasons,
            )
        )

    def _end(self, asked: StandDown, coverage: Coverage, at: datetime) -> None:
        self.state, self.ended_at, self.link_at = CrisisState.STOOD_DOWN, at, None
        self._log(at, asked.by, "stood_down", "")
        self.emit(
            CrisisStoodDown(crisis_id=self.id, by=asked.by, coverage=coverage, title=self.title)
        )
        for clock in self.clocks.values():
            if clock.is_running:
                told = clock.cancel(at, None, "the crisis was stood down")
                self.emit(told, key=clock.clock)

    def _record(
        self,
        by: str,
        kind: Literal["update", "decision"],
        text: str,
        at: datetime,
        next_update_at: datetime | None,
    ) -> None:
        self._log(at, by, kind, text)
        self.emit(
            CrisisUpdated(
                crisis_id=self.id,
                entry=kind,
                by=by,
                text=text,
                next_update_at=next_update_at,
                title=self.title,
            )
        )

    def _start(self, clock: Clock) -> None:
        self.clocks[clock.clock] = clock
        self.emit(clock.started(None), key=clock.clock)

    def _meet(self, name: str, at: datetime) -> bool:
        clock = self.clocks.get(name)
        if clock is None or not clock.is_running:
            return False
        self.emit(clock.meet(at, None), key=name)
        return True

    def _log(self, at: datetime, by: str, kind: str, text: str) -> None:
        entry = Entry.model_validate({"at": at, "by": by, "kind": kind, "text": text})
        self.entries = [*self.entries[1 - ENTRIES_KEPT :], entry]

    def _require(self, state: CrisisState, done: str) -> None:
        if self.state is not state:
            raise Conflict(f"a crisis that is {self.state} cannot be {done}")

    def _require_active(self, done: str) -> None:
        if self.state not in ACTIVE:
            raise Conflict(f"a crisis that is {self.state} cannot be {done}")


def _left_behind(people: int) -> dict[str, str]:
    """Say by language how many would be left with a holding statement alone."""
    persian = str(people).translate(_PERSIAN_DIGITS)
    return {
        Language.EN: f"{people} with a holding statement and no closing statement",
        Language.ZH: f"{people} 人只收到初步声明，没有收到结束声明",
        Language.FA: f"{persian} نفر بیانیهٔ نخست را گرفته‌اند و بیانیهٔ پایانی را نه",
    }


def promised(next_update_at: datetime | None, at: datetime) -> datetime | None:
    """Return when the next update was promised; raises Invalid for what is no promise.

    That is the past, and what is more than a year away: a slip of the pen.
    """
    if next_update_at is None or at < next_update_at <= at + LONGEST_PROMISE:
        return next_update_at
    is_past = next_update_at <= at
    reason = "is not in the future" if is_past else "is more than a year away"
    raise Invalid("the request does not fit", [FieldProblem("/next_update_at", reason)])
