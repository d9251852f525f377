"""What comes in: what a sender may send, how foreign documents become it, and what it is called."""

from rapport.common.strict_json import parse_array, parse_json
from rapport.intake.domain.admission import Sender, admit
from rapport.intake.domain.batch import BatchItem, read_array, read_lines
from rapport.intake.domain.foreign import (
    STRUCTURED,
    SUBMITTED,
    CloudEvent,
    exercise_id,
    items_of_document,
    items_of_event,
    read_binary_event,
    read_event,
    read_record,
    what_is_wrong,
)
from rapport.intake.domain.identity import (
    case_id,
    content_digest,
    feedback_id,
    feedback_id_of_event,
    id_prefix_of,
    reference_of,
)
from rapport.intake.domain.mapping import Mapping, parse_mapping, serving
from rapport.intake.domain.submission import MAX_AHEAD, Submission, read_submission
from rapport.intake.domain.translation import apply, apply_all, origin_of

__all__ = [
    "MAX_AHEAD",
    "STRUCTURED",
    "SUBMITTED",
    "BatchItem",
    "CloudEvent",
    "Mapping",
    "Sender",
    "Submission",
    "admit",
    "apply",
    "apply_all",
    "case_id",
    "content_digest",
    "exercise_id",
    "feedback_id",
    "feedback_id_of_event",
    "id_prefix_of",
    "items_of_document",
    "items_of_event",
    "origin_of",
    "parse_array",
    "parse_json",
    "parse_mapping",
    "read_array",
    "read_binary_event",
    "read_event",
    "read_lines",
    "read_record",
    "read_submission",
    "reference_of",
    "serving",
    "what_is_wrong",
]
