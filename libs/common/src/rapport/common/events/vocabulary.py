"""The words that events share: how something came in, what it is, and how it was judged.

Each list is closed: figures, rules and metric labels count by these words. `none` always says that
the question does not arise, `other` that it does and no listed word fits.
"""

from enum import StrEnum


class Kind(StrEnum):
    """What somebody wants by speaking."""

    COMPLAINT = "complaint"
    """Something went wrong and should be put right."""
    QUESTION = "question"
    """Something is to be explained."""
    REQUEST = "request"
    """Something is to be done, and nothing went wrong."""
    PRAISE = "praise"
    """Something went well."""
    SURVEY_ANSWER = "survey_answer"
    """An answer to a survey that we sent."""
    MENTION = "mention"
    """Something said about us, not to us."""


class Channel(StrEnum):
    """Where it was said."""

    HOTLINE = "hotline"
    """A phone call."""
    CHAT = "chat"
    """Instant messages."""
    EMAIL = "email"
    """E-mail."""
    WEB = "web"
    """A form on a site of ours."""
    APP_STORE = "app_store"
    """A review in an app store."""
    SOCIAL = "social"
    """A social network."""
    FORUM = "forum"
    """A public forum or a review site."""
    PRESS = "press"
    """A newspaper, broadcaster or news site."""
    PARTNER = "partner"
    """A supplier, dealer or other partner."""
    IN_PERSON = "in_person"
    """Face to face."""
    SURVEY = "survey"
    """The answer form of a survey."""
    OTHER = "other"
    """Anywhere else."""


class Language(StrEnum):
    """The language of a text, as an ISO 639 code."""

    EN = "en"
    """English."""
    ZH = "zh"
    """Chinese."""
    FA = "fa"
    """Persian."""
    UND = "und"
    """Not determined."""


class ComplaintType(StrEnum):
    """What is complained of."""

    PRODUCT_COUNTERFEIT = "product_counterfeit"
    """It is not the genuine article."""
    PRODUCT_LABELLING = "product_labelling"
    """What is printed on it is wrong, unreadable or missing."""
    PRODUCT_QUALITY = "product_quality"
    """It is defective, spoilt, unsafe or poorly made."""
    PRODUCT_PRICE = "product_price"
    """It costs more than was said or than is fair."""
    SERVICE_ATTITUDE = "service_attitude"
    """Somebody was rude, indifferent or unfair."""
    SERVICE_COMPETENCE = "service_competence"
    """Somebody was slow, mistaken or unable to help."""
    SERVICE_HARM = "service_harm"
    """People or their belongings came to harm where we should have taken care of them."""
    ADVERTISING_EXAGGERATION = "advertising_exaggeration"
    """It does less than was advertised."""
    CONTRACT = "contract"
    """Terms, warranty, deposit, renewal or cancellation."""
    OTHER = "other"
    """Something else."""
    NONE = "none"
    """Nothing: praise, a plain question or request."""


class Need(StrEnum):
    """What the person needs from the answer."""

    MATERIAL = "material"
    """Money, a replacement, a repair: compensation by policy."""
    EMOTIONAL = "emotional"
    """To be heard, to be apologised to."""
    BOTH = "both"
    """Both; feelings come first."""
    INFORMATION = "information"
    """To be told something."""
    NONE = "none"
    """Nothing."""


class Sentiment(StrEnum):
    """How the person feels about us."""

    NEGATIVE = "negative"
    """Badly."""
    NEUTRAL = "neutral"
    """Neither, or it does not show."""
    POSITIVE = "positive"
    """Well."""


class TrustCause(StrEnum):
    """Why somebody stops trusting a company."""

    TRANSPARENCY = "transparency"
    """It hides things, or treats people unequally."""
    ETHICS = "ethics"
    """Its conduct is unethical or corrupt."""
    ACCOUNTABILITY = "accountability"
    """It does not answer for mistakes and complaints."""
    QUALITY = "quality"
    """Its products or its service are poor."""
    CRISIS_HANDLING = "crisis_handling"
    """It handled a crisis poorly."""
    MISLEADING = "misleading"
    """What it said was misleading."""
    PRIVACY = "privacy"
    """It did not keep personal data safe."""
    SCANDAL = "scandal"
    """A scandal, or news as bad as one."""
    NONE = "none"
    """Trust is not in question."""


class Severity(StrEnum):
    """How much is at stake, lowest first."""

    LOW = "low"
    """Nothing is wrong."""
    NORMAL = "normal"
    """An ordinary complaint."""
    HIGH = "high"
    """It may spread or reach a court, a regulator or the press; or it comes again and again."""
    CRITICAL = "critical"
    """Somebody's safety."""


class OwnReason(StrEnum):
    """Why something happened to a case by itself; where a person acted, the reason is their words.

    The value is what events carry as the reason; alerts say it in their reader's language.
    """

    OVERDUE = "the first response is overdue"
    """Its clock was breached."""
    FURTHER_MESSAGE = "a further message came in"
    """The person wrote again."""
    RESOLVED = "the case was resolved"
    """Who helped with it need not any more."""
    CLOSED = "the case was closed"
    """Who helped with it need not any more."""
    ASSIGNED = "the case was assigned"
    """An offer of it ended."""
