"""What a detector finds: an alarm, with its reason in words and figures, and its end."""

from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from rapport.common.events.envelope import Instant
from rapport.common.events.vocabulary import Language


class Alarm(BaseModel):
    """A series bursts: `observed` items in `window` up to `at`, where `expected` are usual."""

    model_config = ConfigDict(frozen=True)

    at: Instant = Field(description="The end of the bin that decided.")
    path: Literal["cusum", "fast"]
    window: timedelta = Field(description="One hour by CUSUM, 15 minutes on the fast path.")
    observed: int
    expected: float = Field(description="Items usual in such a window, here and now.")
    score: float = Field(
        description="Strength: the CUSUM in nats, or -log10 of the chance on the fast path."
    )
    renewed: bool = Field(description="True when an earlier alarm of the series has not cleared.")

    @property
    def since(self) -> datetime:
        """The start of the window."""
        return self.at - self.window

    @property
    def ratio(self) -> float:
        """How many times the expected was observed."""
        return self.observed / self.expected

    def reason(self, language: Language) -> str:
        """Why, in one plain sentence with the figures; in English where we have no words."""
        wording = _WORDINGS.get(language, _WORDINGS[Language.EN])
        sentence = wording.burst if self.expected >= _HARDLY_ANY else wording.out_of_silence
        digits = str.maketrans(_DIGITS, wording.digits)
        return sentence.format(
            observed=str(self.observed).translate(digits),
            window=wording.hour if self.path == "cusum" else wording.quarter,
            expected=_rounded(self.expected).translate(digits),
            ratio=_rounded(self.ratio).translate(digits),
        )

    @property
    def reasons(self) -> dict[str, str]:
        """The reason in every language that we have words for."""
        return {language.value: self.reason(language) for language in _WORDINGS}


class Cleared(BaseModel):
    """A burst is over: the hour up to `at`, all of it after the last alarm, was calm."""

    model_config = ConfigDict(frozen=True)

    at: Instant
    observed: int = Field(description="Items in that hour.")
    expected: float = Field(description="Items usual in an hour, here and now.")


Finding: TypeAlias = Alarm | Cleared


_HARDLY_ANY: Final = 0.2  # below it, what is usual is a guess and a ratio to it says nothing

_DIGITS: Final = "0123456789."


class _Wording(NamedTuple):
    burst: str
    out_of_silence: str
    hour: str
    quarter: str
    digits: str
    """Zero to nine and the decimal mark."""


_WORDINGS: Final = {
    Language.EN: _Wording(
        burst="{observed} negative items in {window} where {expected} are usual ({ratio} times).",
        out_of_silence="{observed} negative items in {window} where there are usually hardly any.",
        hour="an hour",
        quarter="15 minutes",
        digits=_DIGITS,
    ),
    Language.ZH: _Wording(
        burst="{window}内出现 {observed} 条负面反馈，平时约为 {expected} 条（{ratio} 倍）。",
        out_of_silence="{window}内出现 {observed} 条负面反馈，平时几乎没有。",
        hour="一小时",
        quarter="15 分钟",
        digits=_DIGITS,
    ),
    Language.FA: _Wording(
        burst="{observed} مورد منفی در {window}؛ معمولاً {expected} مورد است ({ratio} برابر).",
        out_of_silence="{observed} مورد منفی در {window}؛ معمولاً تقریباً هیچ موردی نیست.",
        hour="یک ساعت",
        quarter="۱۵ دقیقه",
        digits="۰۱۲۳۴۵۶۷۸۹٫",
    ),
}


def _rounded(figure: float) -> str:
    """One decimal below ten, whole from ten on."""
    return f"{figure:.1f}" if figure < 9.95 else f"{figure:.0f}"
