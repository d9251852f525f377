"""What people find: a small knowledge base in three languages, and promises about any other."""

import random
from dataclasses import replace
from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.knowledge.search import Entry, Hit, Index
from rapport.knowledge.search.highlight import WIDTH
from rapport.knowledge.search.segment import LENGTH_NORMALISATION, SATURATION, TEXT, TITLE


def article(id: str, language: str, title: str, text: str, **more: object) -> Entry:
    return replace(Entry(id, "article", language, title, text), **more)  # type: ignore[arg-type]


REFUND_EN = article(
    "refund",
    "en",
    "Getting your money back",
    "Send the item to us within thirty days. As soon as it is here we pay back its price, on the "
    "card or account you paid with. Postage is ours when the fault is ours.",
    paraphrases=("how do I get a refund", "I want my money returned"),
)
KETTLE_EN = article(
    "kettle",
    "en",
    "Kettle recall: stop using model AK-300",
    "The handle of the kettle AK-300 can come loose. Unplug it and bring it to any shop. You get a "
    "new one at once, with or without the receipt.",
    product="AK-300",
    tags=("recall", "safety"),
)
DELIVERY_EN = article(
    "delivery",
    "en",
    "When will my parcel arrive?",
    "Parcels take two to four working days. The courier calls before coming. If nobody is at home, "
    "the parcel waits at the collection point for a week.",
    paraphrases=("where is my order", "my package has not come yet"),
)
WARRANTY_EN = article(
    "warranty",
    "en",
    "What the warranty covers",
    "Every appliance is covered for two years against faults of material and making. Wear and "
    "breakage by dropping are not covered. A repair takes about ten days.",
)
PRIVACY_EN = replace(
    article(
        "privacy",
        "en",
        "We never sell customer data",
        "We keep what we need to serve you and nothing else, and nobody outside gets it.",
    ),
    kind="key_message",
)

REFUND_ZH = article(
    "refund",
    "zh",
    "如何申请退款",
    "请在三十天内把商品寄回。我们收到商品以后，会把货款原路退回到您付款的银行卡或账户。质量问题由我们承担运费。",
    paraphrases=("我要退钱", "怎么把钱要回来"),
)
KETTLE_ZH = article(
    "kettle",
    "zh",
    "电水壶召回：请停止使用AK-300",
    "AK-300电水壶的把手可能松动。请拔掉电源，带到任何一家门店，当场免费更换新品，不需要收据。",
    product="AK-300",
)
DELIVERY_ZH = article(
    "delivery",
    "zh",
    "包裹什么时候送到",
    "包裹一般两到四个工作日送达。快递员上门之前会打电话。家里没有人的时候，包裹在自提点保留一个星期。",
    paraphrases=("我的快递到哪里了",),
)
WARRANTY_ZH = article(
    "warranty",
    "zh",
    "保修范围",
    "所有电器保修两年，包括材料和制造缺陷。正常磨损和摔坏不在保修范围内。维修大约需要十天。",
)

REFUND_FA = article(
    "refund",
    "fa",
    "چگونه پولم را پس بگیرم",
    "کالا را تا سی روز برای ما بفرستید. همین که برسد، بهای آن را به همان کارت یا حسابی که با آن "
    "پرداخت کرده‌اید برمی‌گردانیم. اگر ایراد از ما باشد هزینهٔ پست با ماست.",
    paraphrases=("بازگشت وجه می‌خواهم",),
)
KETTLE_FA = article(
    "kettle",
    "fa",
    "فراخوان کتری: مدل AK-300 را به کار نبرید",
    "دستهٔ کتری AK-300 ممکن است شل شود. آن را از برق بکشید و به یکی از فروشگاه‌ها ببرید. بی‌درنگ یک "
    "کتری نو می‌گیرید، با رسید یا بی رسید.",
    product="AK-300",
)
DELIVERY_FA = article(
    "delivery",
    "fa",
    "بسته‌ام کی می‌رسد؟",
    "بسته‌ها دو تا چهار روز کاری در راه‌اند. پیک پیش از آمدن زنگ می‌زند. اگر کسی خانه نباشد، بسته یک "
    "هفته در محل تحویل می‌ماند.",
    paraphrases=("سفارشم کجاست",),
)
WARRANTY_FA = article(
    "warranty",
    "fa",
    "ضمانت‌نامه چه چیزهایی را دربر می‌گیرد",
    "همهٔ دستگاه‌ها دو سال در برابر عیب ساخت ضمانت دارند. فرسودگی و شکستن شامل ضمانت نیست. تعمیر "
    "نزدیک ده روز طول می‌کشد.",
)

EVERYTHING = (
    *(REFUND_EN, KETTLE_EN, DELIVERY_EN, WARRANTY_EN, PRIVACY_EN),
    *(REFUND_ZH, KETTLE_ZH, DELIVERY_ZH, WARRANTY_ZH),
    *(REFUND_FA, KETTLE_FA, DELIVERY_FA, WARRANTY_FA),
)


def filled(*entries: Entry) -> Index:
    index = Index()
    for entry in entries:
        index.put(entry)
    return index


def names(hits: list[Hit]) -> list[tuple[str, str]]:
    return [(hit.entry.id, hit.entry.language) for hit in hits]


@pytest.fixture
def index() -> Index:
    return filled(*EVERYTHING)


@pytest.mark.parametrize(
    ("query", "language", "id"),
    [
        ("money back", "en", "refund"),
        ("refunds", "en", "refund"),
        ("WHERE IS MY ORDER???", "en", "delivery"),
        ("can the handle come loose", "en", "kettle"),
        ("my dishwasher broke, is the repair covered", "en", "warranty"),
        ("退款", "zh", "refund"),
        ("怎么才能把钱退回来", "zh", "refund"),
        ("把手松了", "zh", "kettle"),
        ("AK-300召回", "zh", "kettle"),
        ("快递什么时候到", "zh", "delivery"),
        ("摔坏了能保修吗", "zh", "warranty"),
        ("پس گرفتن پول", "fa", "refund"),
        ("کتری من دسته‌اش شل شده", "fa", "kettle"),
        ("بسته من هنوز نرسیده", "fa", "delivery"),
        ("تعمیر چند روز طول می‌کشد", "fa", "warranty"),
    ],
)
def test_a_question_finds_its_answer(index: Index, query: str, language: str, id: str) -> None:
    assert names(index.search(query))[0] == (id, language)


@pytest.mark.parametrize(
    ("query", "language", "id"),
    [
        ("kettel recal", "en", "kettle"),
        ("warantee", "en", "warranty"),
        ("parcell arive", "en", "delivery"),
        ("refnud", "en", "refund"),
        ("فراخون کطری", "fa", "kettle"),
        ("ضماتنامه", "fa", "warranty"),
    ],
)
def test_slips_of_the_pen_are_forgiven(index: Index, query: str, language: str, id: str) -> None:
    assert names(index.search(query))[0] == (id, language)


@pytest.mark.parametrize(
    "query",
    ["فروشگاه‌ها", "فروشگاه ها", "فروشگاهها", "فُروشگاه‌ها", "فروشـــگاه"],
)
def test_persian_is_found_however_it_is_joined(index: Index, query: str) -> None:
    assert names(index.search(query))[0] == ("kettle", "fa")


@pytest.mark.parametrize(
    ("as_typed", "as_written"),
    [("كتري", "کتری"), ("هزينه", "هزینهٔ"), ("۳۰۰", "300"), ("ضمانت‌نامه", "ضمانت نامه")],
)
def test_letters_of_other_keyboards_are_the_same(
    index: Index, as_typed: str, as_written: str
) -> None:
    def found(query: str) -> list[tuple[str, float]]:
        return [(hit.entry.id, hit.score) for hit in index.search(query, language="fa")]

    assert found(as_typed) == found(as_written) != []


def test_the_title_weighs_more_than_the_text() -> None:
    filler = "Please have your customer number at hand when you call us about anything else."
    index = filled(
        article("a", "en", "Opening hours", f"{filler} Ask about gift vouchers."),
        article("b", "en", "Gift vouchers", f"{filler} Ask about opening times."),
    )
    assert names(index.search("gift vouchers")) == [("b", "en"), ("a", "en")]


def test_the_words_of_those_who_ask_find_what_the_title_does_not() -> None:
    written = article("a", "en", "Reversal of card transactions", "Disputes are settled monthly.")
    other = article("b", "en", "Stolen bicycles", "Theft is covered up to a thousand.")
    question = "somebody stole from me with my plastic"
    assert names(filled(written, other).search(question)) != [("a", "en")]
    taught = replace(written, paraphrases=("money was stolen from my plastic",))
    assert names(filled(taught, other).search(question))[0] == ("a", "en")


def test_tags_and_the_product_are_found() -> None:
    entry = article("a", "en", "Read this", "It matters.", product="Zephyr", tags=("urgent",))
    for query in ("zephyr", "urgent"):
        assert names(filled(entry, DELIVERY_EN).search(query)) == [("a", "en")]


def test_one_may_ask_for_a_language_and_a_kind(index: Index) -> None:
    assert {hit.entry.language for hit in index.search("AK-300")} == {"en", "zh", "fa"}
    assert names(index.search("AK-300", language="fa")) == [("kettle", "fa")]
    assert index.search("AK-300", language="de") == []
    assert names(index.search("customer data", kind="key_message")) == [("privacy", "en")]
    assert index.search("customer data", kind="statement") == []


def test_the_limit_keeps_the_best(index: Index) -> None:
    everything = index.search("how long does a repair or a parcel take", limit=20)
    assert len(everything) > 2
    assert index.search("how long does a repair or a parcel take", limit=2) == everything[:2]


@pytest.mark.parametrize(
    "query",
    ["", "   ", "?!…", "\u200c", "\ud800", "qqqq xxxx", "ж", "🙂🙂", "\x00\x01"],
)
def test_what_says_nothing_finds_nothing(index: Index, query: str) -> None:
    assert index.search(query) == []
    assert index.suggest(query, language="en") == []


def test_an_empty_index_finds_nothing() -> None:
    assert Index().search("anything") == []
    assert len(Index()) == 0


def test_a_text_without_words_does_no_harm() -> None:
    index = filled(article("a", "en", "!!!", ""), DELIVERY_EN)
    assert names(index.search("parcel")) == [("delivery", "en")]
    index.remove("a")
    assert names(index.search("parcel")) == [("delivery", "en")]


def test_scores_of_different_questions_compare(index: Index) -> None:
    (exact,) = index.search("When will my parcel arrive?", limit=1)
    (vague,) = index.search("will my quince jelly arrive on Saturn by balloon?", limit=1)
    assert 0 < vague.score < 0.5 < exact.score < 1


def test_the_score_is_bm25f_as_a_share_of_what_was_asked() -> None:
    """Counted once more by the formula; words of two letters have three terms each."""
    entries = [article("a", "en", "ox by", "if ox ox"), article("b", "en", "if", "so we go")]

    def weight(word: str, entry: Entry) -> float:
        amount = 0.0
        for text, usual in ((entry.title, TITLE), (entry.text, TEXT)):
            excess = len(f" {text} ") / usual.usual_length - 1
            occurrences = text.split().count(word)
            amount += usual.weight * occurrences / (1 + LENGTH_NORMALISATION * excess)
        return amount / (amount + SATURATION)

    def information(word: str) -> float:
        having = sum(weight(word, entry) > 0 for entry in entries)
        return log(1 + (len(entries) - having + 0.5) / (having + 0.5))

    asked = ("ox", "if", "zz")
    whole = sum(map(information, asked))
    expected = {
        entry.id: sum(information(word) * weight(word, entry) for word in asked) / whole
        for entry in entries
    }
    found = {hit.entry.id: hit.score for hit in filled(*entries).search("ox if zz")}
    assert found == pytest.approx(expected)


def test_what_is_put_again_is_replaced() -> None:
    index = filled(DELIVERY_EN)
    assert index.search("collection")
    index.put(replace(DELIVERY_EN, text="Parcels are carried by drones."))
    assert index.search("collection") == []
    assert names(index.search("drones")) == [("delivery", "en")]
    assert len(index) == 1


def test_what_is_removed_is_gone_at_once(index: Index) -> None:
    index.remove("kettle", "en")
    assert ("kettle", "en") not in names(index.search("kettle recall AK-300"))
    assert names(index.search("کتری"))[0] == ("kettle", "fa")
    index.remove("kettle")
    assert all(id != "kettle" for id, _ in names(index.search("AK-300 کتری 电水壶")))
    assert len(index) == len(EVERYTHING) - 3


def test_removing_what_is_not_there_changes_nothing(index: Index) -> None:
    before = index.search("kettle")
    index.remove("unheard of")
    index.remove("kettle", "de")
    assert index.search("kettle") == before


COMPLAINT = (
    "Good evening, I am writing because I am really upset. Last week I bought one of your kettles "
    "for my mother, who is eighty. Yesterday the handle came loose while she was pouring and she "
    "nearly scalded herself! I rang twice and waited for twenty minutes each time. She does not "
    "have the receipt any more. What are you going to do about it, and who is going to answer me?"
)


def test_a_case_gets_suggestions_in_its_language(index: Index) -> None:
    suggestions = index.suggest(COMPLAINT, language="en")
    assert names(suggestions)[0] == ("kettle", "en")
    assert {hit.entry.language for hit in suggestions} == {"en"}
    zh = index.suggest(
        "上周给妈妈买的电水壶把手突然松了，差点烫伤，收据也找不到了，你们管不管？", language="zh"
    )
    assert names(zh)[0] == ("kettle", "zh")
    fa = index.suggest(
        "هفتهٔ پیش برای مادرم كتري خریدم، دسته‌اش شل شد و رسید هم ندارم", language="fa"
    )
    assert names(fa)[0] == ("kettle", "fa")


def test_suggestions_prefer_the_product_of_the_case() -> None:
    text = "Hold the button for ten seconds until the light blinks twice."
    index = filled(
        article("other", "en", "Resetting the device", text, product="Nimbus 2"),
        article("general", "en", "Resetting the device", text),
        article("same", "en", "Resetting the device", text, product="Nimbus ٣"),
    )
    found = index.suggest("the device needs resetting", language="en", product="NIMBUS 3")
    assert [hit.entry.id for hit in found] == ["same", "general", "other"]


def test_a_retired_answer_is_suggested_no_more(index: Index) -> None:
    index.remove("kettle")
    assert ("kettle", "en") not in names(index.suggest(COMPLAINT, language="en"))


def test_a_huge_text_is_read_as_far_as_it_helps(index: Index) -> None:
    huge = COMPLAINT + " and so on" * 500_000
    assert names(index.suggest(huge, language="en"))[0] == ("kettle", "en")


def marked(text: str, ranges: tuple[tuple[int, int], ...]) -> list[str]:
    return [text[start:end] for start, end in ranges]


def test_what_matched_is_shown_in_the_words_of_the_authors(index: Index) -> None:
    (hit,) = index.search("kettel handles", language="en", limit=1)
    assert marked(hit.entry.title, hit.title_ranges) == ["Kettle"]
    assert marked(hit.snippet.text, hit.snippet.ranges) == ["handle", "kettle"]
    (hit,) = index.search("松动 把手", language="zh", limit=1)
    assert marked(hit.snippet.text, hit.snippet.ranges) == ["把手", "松动"]
    (hit,) = index.search("فروشگاهها", language="fa", limit=1)
    assert marked(hit.snippet.text, hit.snippet.ranges) == ["فروشگاه‌ها"]


def test_common_words_are_not_worth_showing(index: Index) -> None:
    (hit,) = index.search("the collection of the parcel", language="en", limit=1)
    assert "the" not in marked(hit.snippet.text.lower(), hit.snippet.ranges)


def test_a_snippet_is_the_part_that_matched_cut_between_words() -> None:
    filler = "Nothing of interest is said in this sentence. " * 20
    text = f"{filler}The zeppelin lands at noon near the zeppelin tower. {filler}"
    (hit,) = filled(article("a", "en", "Airships", text)).search("zeppelin")
    snippet = hit.snippet
    assert marked(snippet.text, snippet.ranges) == ["zeppelin", "zeppelin"]
    assert len(snippet.text) <= WIDTH
    assert text[snippet.start : snippet.start + len(snippet.text)] == snippet.text
    assert f" {snippet.text} " in text


def test_where_nothing_in_the_text_matched_the_snippet_is_its_beginning() -> None:
    (hit,) = filled(article("a", "en", "Airships", "They float. " * 50)).search("airships")
    assert hit.snippet.start == 0
    assert hit.snippet.ranges == ()
    assert len(hit.snippet.text) <= WIDTH


WORDS = st.sampled_from(
    "card cards cash kettle refund 退款 水壶 银行卡 کارت کتری می‌خواهم پول ak-300 a 1 退".split()
)
PHRASES = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)
ENTRIES = st.builds(
    Entry,
    id=st.sampled_from("abcdefgh"),
    kind=st.sampled_from(["article", "key_message", "statement"]),
    language=st.sampled_from(["en", "zh", "fa"]),
    title=PHRASES,
    text=PHRASES | st.text(max_size=40),
    paraphrases=st.lists(PHRASES, max_size=2).map(tuple),
    product=st.none() | WORDS,
    tags=st.lists(WORDS, max_size=2).map(tuple),
)
REMOVALS = st.tuples(st.sampled_from("abcdefgh"), st.none() | st.sampled_from(["en", "zh", "fa"]))


@given(st.lists(ENTRIES, min_size=1, unique_by=lambda entry: (entry.id, entry.language)))
def test_its_own_title_finds_an_entry(entries: list[Entry]) -> None:
    index = filled(*entries)
    for entry in entries:
        assert entry in [hit.entry for hit in index.search(entry.title, limit=len(entries))]


@settings(max_examples=200)
@given(st.lists(ENTRIES | REMOVALS | st.just("search"), max_size=30), PHRASES, st.randoms())
def test_only_what_is_left_decides(
    changes: list[Entry | tuple[str, str | None] | str], query: str, rng: random.Random
) -> None:
    """Whatever changes, in whatever order, and searches between them: a fresh index agrees."""
    index, left = Index(), dict[tuple[str, str], Entry]()
    for change in changes:
        match change:
            case Entry():
                index.put(change)
                left[change.id, change.language] = change
            case (id, language):
                index.remove(id, language)
                for key in [key for key in left if key[0] == id and language in (None, key[1])]:
                    del left[key]
            case _:
                index.search(query)
    shuffled = list(left.values())
    rng.shuffle(shuffled)
    fresh = filled(*shuffled)
    assert len(index) == len(fresh) == len(left)
    assert index.search(query, limit=3) == fresh.search(query, limit=3)
    assert index.suggest(query, language="en", product="ak-300") == fresh.suggest(
        query, language="en", product="AK-300"
    )
    assert all(0 < hit.score < 1 for hit in index.search(query, limit=100))


@given(ENTRIES, st.text(max_size=60) | PHRASES)
def test_what_is_shown_is_in_the_text(entry: Entry, query: str) -> None:
    for hit in filled(entry).search(f"{entry.text} {query}"):
        for text, ranges in (
            (entry.title, hit.title_ranges),
            (hit.snippet.text, hit.snippet.ranges),
        ):
            edges = [edge for span in ranges for edge in span]
            assert edges == sorted(set(edges))
            assert not edges or 0 <= edges[0] <= edges[-1] <= len(text)


def test_many_entries_are_found_while_they_come_and_go() -> None:
    rng = random.Random(5)
    parts = [a + b for a in ("bra", "lo", "ki", "mun", "tes", "far") for b in ("ten", "vo", "ris")]

    def entry(number: int) -> Entry:
        return article(f"{number}", "en", f"unit {number}", " ".join(rng.choices(parts, k=200)))

    index = filled(*map(entry, range(1_500)))
    for number in range(0, 1_500, 3):
        index.put(replace(entry(number), title=f"device {number}"))
        if number % 30 == 0:
            assert names(index.search(f"device {number}", limit=1)) == [(f"{number}", "en")]
    for number in range(1_000):
        index.remove(f"{number}")
    assert len(index) == 500
    assert all(int(hit.entry.id) >= 1_000 for hit in index.search("unit device 7", limit=500))
    assert names(index.search("device 1002", limit=1)) == [("1002", "en")]
