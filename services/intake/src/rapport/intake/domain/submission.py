"""What a sender may send, and what is refused of it.

A submission is one complaint, question, request, praise, survey answer or mention. Required are its
kind, its channel and a text or a rating. A field that we do not know is refused, so that a
misspelt name never loses data in silence; so are wrong types (a number is not a text), what is over
a limit, and broken Unicode.

Free text is cleaned, as `rapport.common.text.clean` says: control characters and bidirectional
overrides go, and one-line fields have their line breaks turned into spaces. Identifiers
(references, addresses, digests) are never changed, since a changed one names something else: spaces
around them are cut, and a character that cannot be seen is refused. An empty text or a null counts
as not sent.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from rapport.common.errors import FieldProblem, Invalid
from rapport.common.events import Personal
from rapport.common.events.feedback import Attachment, Rating, Reach
from rapport.common.events.vocabulary import Channel, Kind, Language
from rapport.common.strict_json import MAX_PROBLEMS, pointer_to
from rapport.common.text import clean

MAX_TEXT: Final = 20_000
"""Characters of a text."""

MAX_AHEAD: Final = timedelta(days=1)
"""How far in the future `occurred_at` may lie: senders' clocks and time zones go wrong."""

OF_CONTACT: Final = Personal(of="contact")

_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_COUNT: Final = 10**15

_EMAIL: Final = r"^([^@\s<>]+@[^@\s<>]+)?$"
_PHONE: Final = r"^(.*\d.*\d.*\d.*)?$"
_WEB_ADDRESS: Final = r"^(https?://[^\s/].*)?$"
_NETWORK: Final = r"^[a-z0-9_-]{1,40}$"
_MEDIA_TYPE: Final = r"^[\w.+-]+/[\w.+-]+$"
_SHA256: Final = r"^[0-9a-f]{64}$"
_FORMS: Final = {
    _EMAIL: "is not an e-mail address",
    _PHONE: "is not a telephone number",
    _WEB_ADDRESS: "is not a web address (http or https)",
    _NETWORK: "is not the name of a network like telegram (a-z, 0-9, _, -)",
    _MEDIA_TYPE: "is not a media type like image/jpeg",
    _SHA256: "is not a SHA-256 digest in 64 lower-case hex digits",
}


def _prose(value: str) -> str | None:
    if not (value.isascii() and value.isprintable()):
        value = clean(value)
    return value.strip() or None


def _line(value: str) -> str | None:
    if not (value.isascii() and value.isprintable()):
        value = clean(value)
    return " ".join(value.split()) or None


def _identifier(value: str) -> str | None:
    if not value.isprintable():
        raise ValueError("holds a character that cannot be seen, such as a line break")
    return value or None


def _present(value: str | None) -> str:
    if value is None:
        raise ValueError("must not be empty")
    return value


def _timestamp(value: object) -> object:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a date and time as text, like 2026-03-18T09:30:00Z")
    if value[4:5] != "-":
        raise ValueError("is not a date and time like 2026-03-18T09:30:00Z")
    return value


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is not a date and time that exists") from None


def _in_order(handles: dict[str, str]) -> dict[str, str]:
    return dict(sorted(handles.items()))


def _null_is(default: object) -> BeforeValidator:
    return BeforeValidator(lambda value: default if value is None else value)


Prose = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_prose)]
Line = Annotated[str, Field(max_length=300), AfterValidator(_line)]
Name = Annotated[str, Field(max_length=300), AfterValidator(_line), AfterValidator(_present)]
Identifier = Annotated[
    str, StringConstraints(max_length=300, strip_whitespace=True), AfterValidator(_identifier)
]
Handle = Annotated[Identifier, AfterValidator(_present)]
Network = Annotated[str, Field(pattern=_NETWORK)]
Email = Annotated[
    str,
    StringConstraints(max_length=254, strip_whitespace=True, pattern=_EMAIL),
    AfterValidator(_identifier),
]
Phone = Annotated[
    str,
    StringConstraints(max_length=50, strip_whitespace=True, pattern=_PHONE),
    AfterValidator(_identifier),
]
WebAddress = Annotated[
    str,
    StringConstraints(max_length=2_000, strip_whitespace=True, pattern=_WEB_ADDRESS),
    AfterValidator(_identifier),
]
Count = Annotated[int, Strict(), Field(ge=0, le=_MAX_COUNT)]
Number = Annotated[float, Strict(), Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]
Handles = Annotated[
    dict[Network, Handle], Field(max_length=10), AfterValidator(_in_order), _null_is({})
]
Moment = Annotated[
    AwareDatetime,
    Field(ge=_EARLIEST),
    BeforeValidator(_timestamp),
    AfterValidator(_utc),
]


class Sent(BaseModel):
    """Base of what is sent: unknown fields are refused.

    What is sent in the form in which an event carries it derives from both, `Sent` last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class ContactKind(StrEnum):
    """Whose voice it is: the internal and external stakeholder groups."""

    CUSTOMER = "customer"
    SUPPLIER = "supplier"
    DEALER = "dealer"
    PARTNER = "partner"
    MEDIA = "media"
    COMMUNITY = "community"
    GOVERNMENT = "government"
    EMPLOYEE = "employee"
    SHAREHOLDER = "shareholder"


class SentContact(Sent):
    """Who speaks and where to answer; `handles` by network, such as {"telegram": "@ana"}."""

    kind: ContactKind = ContactKind.CUSTOMER
    name: Annotated[Line | None, OF_CONTACT] = None
    email: Annotated[Email | None, OF_CONTACT] = None
    phone: Annotated[Phone | None, OF_CONTACT] = None
    handles: Annotated[Handles, OF_CONTACT] = Field(default_factory=dict)
    url: Annotated[WebAddress | None, OF_CONTACT] = None


_NOBODY: Final = SentContact()
"""The contact of whoever does not say: one for all, since copying a default for each costs time."""


class SentRating(Rating, Sent):
    """A score on its own scale; `maximum` is the best."""

    value: Number
    minimum: Number
    maximum: Number

    @model_validator(mode="after")
    def _is_on_its_scale(self) -> Self:
        if self.minimum >= self.maximum:
            raise ValueError("has a minimum that is not below its maximum")
        if not self.minimum <= self.value <= self.maximum:
            raise ValueError("has a value outside its scale")
        return self


class SentReach(Reach, Sent):
    """How far a public item has travelled."""

    followers: Count = 0
    reposts: Count = 0
    views: Count = 0


class SentAttachment(Attachment, Sent):
    """A file that came along, known by its SHA-256 digest (64 hex digits); `size` in bytes."""

    name: Annotated[Name, OF_CONTACT]
    media_type: Annotated[str, Field(max_length=127, pattern=_MEDIA_TYPE)]
    size: Count
    digest: Annotated[str, Field(pattern=_SHA256)]


class Submission(Sent):
    """One item as a sender sends it, cleaned.

    `source` names the sender's system, `source_ref` one message in it, `thread_ref` one
    conversation, `in_reply_to` the message that is answered. `historical` marks an import of the
    past: it needs `occurred_at`, is counted there, and starts no clock. `public` None leaves it to
    the channel.
    """

    kind: Kind
    channel: Channel
    source: Identifier | None = None
    source_ref: Identifier | None = None
    thread_ref: Identifier | None = None
    in_reply_to: Identifier | None = None
    contact: Annotated[SentContact, _null_is(_NOBODY)] = Field(default_factory=lambda: _NOBODY)
    language: Language | None = None
    subject: Annotated[Line | None, OF_CONTACT] = None
    text: Annotated[Prose | None, OF_CONTACT] = None
    rating: SentRating | None = None
    product: Line | None = None
    region: Line | None = None
    brand: Line | None = None
    remedy_sought: Annotated[Line | None, OF_CONTACT] = None
    reach: Annotated[SentReach, _null_is(SentReach())] = SentReach()
    public: Flag | None = None
    url: WebAddress | None = None
    outlet: Line | None = None
    occurred_at: Moment | None = None
    attachments: Annotated[tuple[SentAttachment, ...], Field(max_length=20), _null_is(())] = ()
    historical: Annotated[Flag, _null_is(False)] = False

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.text is None and self.rating is None:
            raise ValueError("needs a text or a rating")
        if self.historical and self.occurred_at is None:
            raise ValueError("is historical and needs occurred_at")
        return self


SUBMISSION: Final = TypeAdapter(Submission)


def read_submission(document: object, received_at: datetime) -> Submission:
    """Return the submission that a parsed JSON `document` holds.

    Raises `Invalid` with one problem per field at fault. `received_at` bounds `occurred_at`.
    """
    try:
        submission = SUBMISSION.validate_python(document)
    except ValidationError as error:
        raise Invalid("the feedback was refused", problems_of(error)) from None
    if submission.occurred_at and submission.occurred_at > received_at + MAX_AHEAD:
        late = FieldProblem("/occurred_at", "is more than a day in the future")
        raise Invalid("the feedback was refused", [late])
    return submission


_REASONS: Final = {
    "bool_type": "must be true or false",
    "datetime_from_date_parsing": "is not a date and time like 2026-03-18T09:30:00Z",
    "datetime_object_invalid": "is not a date and time that exists",
    "datetime_parsing": "is not a date and time like 2026-03-18T09:30:00Z",
    "dict_type": "must be an object of names and texts",
    "enum": "must be one of {expected}",
    "extra_forbidden": "is not a field that can be sent",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than_equal": "must not be below {ge}",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "invalid_key": "has a name that is not text",
    "literal_error": "must be {expected}",
    "less_than_equal": "must not be above {le}",
    "missing": "is required",
    "model_type": "must be an object",
    "string_too_short": "must not be empty",
    "string_too_long": "is longer than {max_length:,} characters",
    "string_type": "must be text",
    "string_unicode": "is not valid Unicode (UTF-8)",
    "timezone_aware": "needs a time and a time zone, like 2026-03-18T09:30:00Z",
    "too_long": "holds more than {max_length} items",
    "tuple_type": "must be an array",
    "value_error": "{error}",
}


def problems_of(error: ValidationError) -> list[FieldProblem]:
    """Say in plain words, without any submitted value, what `error` found; at most 50 problems."""
    found = error.errors(include_url=False, include_input=False)
    return [
        FieldProblem(
            pointer_to(_fields(problem["loc"])), _reason(problem["type"], problem.get("ctx", {}))
        )
        for problem in found[:MAX_PROBLEMS]
    ]


def _fields(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return location[:-1] if location and location[-1] == "[key]" else location


def _reason(kind: str, context: Mapping[str, Any]) -> str:
    if kind == "string_pattern_mismatch":
        return _FORMS[context["pattern"]]
    return _REASONS.get(kind, "is not valid").format_map(context)
