"""Language, clean form and comparable form of texts in English, Chinese and Persian."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rapport.common.text import clean, direction, has_lone_surrogate, language_of, normalise

MASSIVE = Path(__file__).parents[4] / "shared" / "data" / "massive"

OVERRIDES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ZWNJ, ZWJ, LRM, RLM = "\u200c", "\u200d", "\u200e", "\u200f"

texts = st.text(st.characters(exclude_categories=["Cs"]))
tricky = st.text(
    st.sampled_from("aAwW.:/@ht-ps1_<>é\u0301\u200b\r\n\u0085 \u200c\u064bيكآـ你！ß０")
)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("My parcel has not arrived", "en"),
        ("Café crème, s'il vous plaît", "en"),
        ("快递还没有到", "zh"),
        ("我的 iPhone 13 Pro Max 电池坏了", "zh"),
        ("𠮷野家", "zh"),
        ("بسته‌ام هنوز نرسیده است", "fa"),
        ("سفارش من از Amazon Prime نرسید", "fa"),
        ("I ordered from 阿里巴巴 and the parcel never came", "en"),
        ("شرکت ما در 上海 دفتر دارد", "fa"),
        ("@rapport_support https://example.com/help 退款", "zh"),
        ("خراب است! WWW.EXAMPLE.COM/some/very/long/page", "fa"),
        ("ana@example.com", "und"),
        ("12:30 — 50% 👍", "und"),
        ("۱۲۳", "und"),
        ("Доставка опоздала", "und"),
        ("まだとどいていません", "und"),
        ("배송이 늦어요", "und"),
        ("", "und"),
    ],
)
def test_the_script_tells_the_language(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(("file", "language"), [("en-US.jsonl", "en"), ("fa-IR.jsonl", "fa")])
def test_the_language_of_real_utterances_is_told(file: str, language: str) -> None:
    if not MASSIVE.exists():
        pytest.skip("shared data absent")
    lines = (MASSIVE / file).read_text(encoding="utf-8").splitlines()
    right = sum(language_of(json.loads(line)["utt"]) == language for line in lines)
    assert right / len(lines) >= 0.99


def test_persian_is_written_from_right_to_left() -> None:
    assert [direction(code) for code in ("en", "zh", "fa", "und")] == ["ltr", "ltr", "rtl", "ltr"]


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("REFUND Now", "refund now"),
        ("Café", "cafe"),
        ("cafe\u0301", "cafe"),
        ("sooooo baaaad!!!", "soo baad!!!"),
        ("don’t", "don't"),
        ("كيفيت", "کیفیت"),
        ("می‌خواهم", "می خواهم"),
        ("مسئولِ آن", "مسیول ان"),
        ("خیــــلی", "خیلی"),
        ("۱۲٬۵۰۰ و ٣", "12٬500 و 3"),
        ("ＡＢＣ１２３，好", "abc123,好"),
        ("哈哈哈哈", "哈哈"),
        (" two\n lines\t ", "two lines"),
        ("see https://example.com/a?b=1 now", "see <url> now"),
        ("see WWW.example.com", "see <url>"),
        ("from ana.b+c@example.co.uk to @Shop_1", "from <email> to <handle>"),
        ("@张三 你好", "<handle> 你好"),
    ],
)
def test_spellings_of_one_word_become_equal(text: str, normalised: str) -> None:
    assert normalise(text) == normalised


@given(texts | tricky)
@example("httttps://a")
@example("a@b.c@d")
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(texts | tricky)
def test_case_and_composition_never_matter(text: str) -> None:
    assert normalise(unicodedata.normalize("NFD", text)) == normalise(text)
    if text.isascii():
        assert normalise(text.upper()) == normalise(text)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("tab\tstays", "tab\tstays"),
        ("bell\x07 null\x00 escape\x1b[31m", "bell null escape[31m"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        (f"isolated {OVERRIDES}text", "isolated text"),
        ("re\u200bfund\ufeff", "refund"),
        ("hidden\U000e0041\U000e0042", "hidden"),
        ("e\u200b\u0301", "é"),
        ("می‌خواهم", "می‌خواهم"),
        ("👩\u200d👧", "👩\u200d👧"),
        (f"{LRM}a{RLM}", f"{LRM}a{RLM}"),
        ("假货！退款", "假货！退款"),
    ],
)
def test_what_deceives_the_eye_is_not_kept(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@given(texts | tricky)
@example("\r\u200b\n")
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(texts)
def test_a_clean_text_holds_no_control_and_no_override(text: str) -> None:
    cleaned = clean(text)
    assert not [c for c in cleaned if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    assert not set(cleaned) & set(OVERRIDES)
    assert unicodedata.is_normalized("NFC", cleaned)


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="ᅟᅠㅤﾠ")))
def test_what_can_be_seen_is_kept(text: str) -> None:
    assert clean(text) == unicodedata.normalize("NFC", text)


@given(texts, st.characters(categories=["Cs"]), texts)
def test_half_a_surrogate_pair_is_found(before: str, half: str, after: str) -> None:
    assert has_lone_surrogate(before + half + after)
    assert not has_lone_surrogate(before + after)
