"""What every service must agree on about text: its language, its clean form, its comparable form.

`clean` is what Rapport keeps of what people sent: every word, and nothing that deceives the eye.
`normalise` is what is compared, searched and matched: two spellings of one word give one string.
`language_of` tells English, Chinese and Persian apart by their scripts, which is right for 999
texts in 1,000 as long as these three are what comes in; another language of the same script is
taken for the one we know (German for English, Arabic for Persian).
"""

import re
from collections.abc import Callable
from typing import Final, Literal
from unicodedata import normalize

LanguageCode = Literal["en", "zh", "fa", "und"]
"""An ISO 639 code; "und" is not determined."""

_HAN: Final = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_ARABIC: Final = (
    "\u0620-\u064a\u066e-\u06d3\u06d5\u06ee\u06ef\u06fa-\u06ff\u0750-\u077f"
    "\ufb50-\ufdff\ufe70-\ufefc"
)
_LATIN: Final = (
    "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a"
)

_HAN_RUN: Final = re.compile(f"[{_HAN}]+")
_ARABIC_RUN: Final = re.compile(f"[{_ARABIC}]+")
_LATIN_RUN: Final = re.compile(f"[{_LATIN}]+")
_OTHER_RUN: Final = re.compile(rf"[^\W\d_{_HAN}{_ARABIC}{_LATIN}]+")
_LATIN_LETTER: Final = re.compile("[A-Za-z]")

_ADDRESS: Final = re.compile(
    r"(?P<url>https?://\S+|\bwww?\.\S+)"  # "ww." once `normalise` has cut repeated letters
    r"|(?P<email>(?<![\w.+-])[\w.+-]++@[\w-]+(?:\.[\w-]+)+)"
    r"|(?P<handle>@\w+)",
    re.IGNORECASE,
)

_LINE_END: Final = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # control characters
    "\u202a-\u202e\u2066-\u2069\u206a-\u206f"  # bidirectional embeddings, overrides, isolates
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060-\u2064\u3164\ufeff\uffa0\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"  # tags, which carry hidden text
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

_FOLDS: Final = (
    *zip("۰۱۲۳۴۵۶۷۸۹" + "٠١٢٣٤٥٦٧٨٩", "0123456789" * 2, strict=True),
    ("ي", "ی"),
    ("ى", "ی"),
    ("ك", "ک"),
    ("ة", "ه"),
    ("\u200c", " "),  # zero-width non-joiner
    ("\u200d", ""),  # zero-width joiner
    ("\u200e", ""),  # left-to-right mark
    ("\u200f", ""),  # right-to-left mark
    ("\u0640", ""),  # tatweel
    ("’", "'"),
    ("‘", "'"),
)
_DIACRITICS: Final = re.compile(
    "[\u0300-\u036f\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
    "\u08d3-\u08ff\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+"
)
_LENGTHENED: Final = re.compile(r"([^\W\d_])\1{2,}")

_HAN_WEIGHT: Final = 4
_ARABIC_WEIGHT: Final = 2
_OTHER_WEIGHT: Final = 4


def language_of(text: str) -> LanguageCode:
    """Return the language that most of the text is written in, told by its script.

    People who write Chinese or Persian put Latin names among their words far more often than the
    other way round, so a Han character weighs as much as 4 Latin letters (it holds about as much)
    and an Arabic one as 2. Web addresses and handles do not count. Without letters, or with most of
    them in a fourth script, the answer is "und".
    """
    text = _without_addresses(text, lambda address: " ")
    if text.isascii():
        return "en" if _LATIN_LETTER.search(text) else "und"
    weights: dict[LanguageCode, int] = {
        "zh": _HAN_WEIGHT * _count(_HAN_RUN, text),
        "fa": _ARABIC_WEIGHT * _count(_ARABIC_RUN, text),
        "en": _count(_LATIN_RUN, text),
        "und": _OTHER_WEIGHT * _count(_OTHER_RUN, text),
    }
    likeliest = max(weights, key=weights.__getitem__)
    return likeliest if weights[likeliest] else "und"


def normalise(text: str) -> str:
    """Return the form in which spellings of one word are equal; applying it twice changes nothing.

    Lower case, compatibility forms unified (NFKC), no diacritics, Persian letters and Latin digits
    for the Arabic ones, white space and the zero-width non-joiner as one space, letters repeated
    for emphasis cut to two, and web addresses, e-mail addresses and handles as `<url>`, `<email>`
    and `<handle>`.
    """
    if not text.isascii():
        text = _DIACRITICS.sub("", normalize("NFKD", text).lower())
        for old, new in _FOLDS:
            text = text.replace(old, new)
        text = normalize("NFC", text)
    text = _LENGTHENED.sub(r"\1\1", text.lower())
    return " ".join(_without_addresses(text, lambda address: f"<{address.lastgroup}>").split())


def clean(text: str) -> str:
    r"""Return what is kept of a text that somebody sent; applying it twice changes nothing.

    Every line end becomes "\n"; control characters, bidirectional overrides and isolates, and
    characters that take no room go; the rest is composed (NFC). The joiners that Persian and emoji
    need stay, and so do the left-to-right and right-to-left marks. The caller has refused lone
    surrogates (`has_lone_surrogate`).
    """
    return normalize("NFC", _LINE_END.sub("\n", _UNSEEN.sub("", text)))


def paragraphs(text: str) -> str:
    """Return a text of one or many paragraphs as it is kept: clean, with nothing around it."""
    return clean(text).strip()


def one_line(text: str) -> str:
    """Return a text as it is kept where it is one line: clean, with single spaces."""
    return " ".join(clean(text).split())


def has_lone_surrogate(text: str) -> bool:
    """Tell whether the text holds half of a surrogate pair, which no encoding can carry."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def direction(language: str) -> Literal["ltr", "rtl"]:
    """Return the direction in which a language (ISO 639 code) is written."""
    return "rtl" if language == "fa" else "ltr"


def _count(runs: re.Pattern[str], text: str) -> int:
    return sum(map(len, runs.findall(text)))


def _without_addresses(text: str, instead: Callable[[re.Match[str]], str]) -> str:
    if "@" in text or "://" in text or "ww." in text.lower():
        return _ADDRESS.sub(instead, text)
    return text
