"""The names that intake gives: a repeat of the same item gets the same id, from every replica.

A feedback's id is derived from what its sender calls it, else from the sender's idempotency key,
and from what it says; where a sender gives neither, it is random. A case's id is derived from what
its sender calls the conversation. A reference is the part of a feedback's id that people can read
to each other over a telephone.
"""

import re
from hashlib import blake2b
from typing import Final

from rapport.common.events.ids import derived_id, random_id
from rapport.intake.domain.submission import Submission

_NOT_CONTENT: Final = {"reach"}
_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TO_CROCKFORD: Final = bytes.maketrans(_BASE32.encode(), _CROCKFORD.encode())
_FROM_CROCKFORD: Final = str.maketrans(_CROCKFORD, _BASE32)
_AS_HEARD: Final = str.maketrans("OIL", "011", " -")


def content_digest(submission: Submission) -> str:
    """Return 32 hex digits of what was sent: cleaned, in canonical form, without its reach.

    A field that may be absent does not count while it is, so adding one leaves digests as they are.
    """
    dump = submission.__pydantic_serializer__.to_json
    canonical = dump(submission, exclude=_NOT_CONTENT, exclude_none=True)
    return blake2b(canonical, digest_size=16).hexdigest()


def feedback_id(
    client: str, submission: Submission, *, key: str | None = None, index: int = 0
) -> str:
    """Return the id of what `client` sent, with Idempotency-Key `key`, as item `index` of a batch.

    The same source_ref with other content is one more message, and so is the same key.
    """
    if submission.source_ref:
        source, digest = submission.source or "", content_digest(submission)
        return derived_id("feedback", client, source, submission.source_ref, digest)
    if key:
        digest = content_digest(submission)
        return derived_id("feedback by key", client, key, str(index), digest)
    return random_id()


def feedback_id_of_event(source: str, event_id: str, position: int = 0) -> str:
    """Return the id of feedback that came in a CloudEvent, as item `position` of its data."""
    return derived_id("feedback by event", source, event_id, str(position))


def case_id(client: str, submission: Submission, feedback: str) -> str:
    """Return the id of the conversation that the submission belongs to.

    A first message that is known by its source_ref and an answer that names this as its thread_ref
    meet in one case. A message without either is a conversation of its own: its `feedback` id.
    """
    thread = submission.thread_ref or submission.source_ref
    return derived_id("case", client, submission.source or "", thread) if thread else feedback


def reference_of(feedback: str) -> str:
    """Return the reference for people, like R-7K2M-Q0XA-93TD: the id's first 60 bits.

    It is written in Crockford's base32, which has no letters that are taken for others.
    """
    spoken = feedback[:12].encode().translate(_TO_CROCKFORD).decode()
    return f"R-{spoken[:4]}-{spoken[4:8]}-{spoken[8:]}"


def id_prefix_of(reference: str) -> str | None:
    """Return the 12 characters with which the id of `reference` begins; None if it is none.

    Reads it as people write it: in any case, with or without dashes, O for 0, I and L for 1.
    """
    written = reference.upper().translate(_AS_HEARD)
    if len(written) > 12:
        written = written.removeprefix("R")
    if not re.fullmatch(f"[{_CROCKFORD}]{{12}}", written):
        return None
    return written.translate(_FROM_CROCKFORD)
