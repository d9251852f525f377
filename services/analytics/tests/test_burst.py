"""Burst detection on made-up series: seeded noise, injected bursts, silence, imports."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rapport.analytics.domain.burst import (
    BIN,
    Alarm,
    BurstPolicy,
    Cleared,
    Detector,
    Finding,
    bin_of,
    negative_binomial_tail,
)
from rapport.common.events.vocabulary import Language

POLICY = BurstPolicy()
START = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
BINS_A_DAY = DAY // BIN


def play(detector: Detector, counts: Iterable[int], start: datetime = START) -> list[Finding]:
    """Advance bin after bin from `start`; everything that came to light."""
    return [
        finding
        for position, count in enumerate(counts)
        for finding in detector.advance(start + position * BIN, count, POLICY)
    ]


def noise(rate: float, days: float, seed: int = 1) -> list[int]:
    """Counts of pure chance (Poisson) around a constant rate per bin."""
    random = Random(seed)
    return [poisson(random, rate) for _ in range(int(days * BINS_A_DAY))]


def poisson(random: Random, mean: float) -> int:
    count, product = 0, random.random()
    while product > math.exp(-mean):
        count, product = count + 1, product * random.random()
    return count


def alarms(findings: Iterable[Finding]) -> list[Alarm]:
    return [finding for finding in findings if isinstance(finding, Alarm)]


def settled(rate: float = 1.0, days: float = 3) -> Detector:
    """A detector that has learned what a series of this rate is like, up to START."""
    detector = Detector()
    play(detector, noise(rate, days), START - days * DAY)
    return detector


class TestNoise:
    @pytest.mark.parametrize("rate", [0.003, 0.03, 1, 5, 20])
    def test_chance_alone_raises_no_alarm(self, rate: float) -> None:
        assert play(Detector(), noise(rate, days=20)) == []

    def test_the_least_favourable_rate_is_nearly_quiet(self) -> None:
        found = [alarm for seed in (1, 2) for alarm in play(Detector(), noise(0.2, 30, seed))]

        assert len(alarms(found)) <= 0.1 * 60

    def test_a_daily_peak_is_no_burst(self) -> None:
        morning = range(9 * 12, 10 * 12)
        day = [20 if position in morning else 2 for position in range(BINS_A_DAY)]

        assert play(Detector(), day * 10) == []


class TestAlarm:
    @pytest.mark.parametrize(("rate", "growth"), [(0.5, 8), (2, 5), (10, 5), (20, 4)])
    @pytest.mark.parametrize("seed", range(5))
    def test_growth_past_the_gate_is_found_within_the_hour(
        self, rate: float, growth: int, seed: int
    ) -> None:
        burst = noise(growth * rate, 1 / 24, seed)

        assert alarms(play(settled(rate), burst))

    @pytest.mark.parametrize("rate", [2, 20])
    def test_twice_the_usual_is_no_burst(self, rate: float) -> None:
        assert play(settled(rate), noise(2 * rate, days=1)) == []

    def test_six_items_out_of_known_silence_are_a_burst(self) -> None:
        detector = Detector.listening_since(START - 2 * DAY)

        [alarm] = play(detector, [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1])

        assert isinstance(alarm, Alarm)
        assert (alarm.path, alarm.observed) == ("cusum", 6)
        assert (alarm.since, alarm.at) == (START - BIN, START + 11 * BIN)

    def test_five_items_within_a_quarter_of_an_hour_take_the_fast_path(self) -> None:
        detector = Detector.listening_since(START - 2 * DAY)

        [alarm] = play(detector, [2, 1, 2])

        assert isinstance(alarm, Alarm)
        assert (alarm.path, alarm.observed, alarm.window) == ("fast", 5, 3 * BIN)

    def test_four_items_are_never_enough(self) -> None:
        assert play(Detector.listening_since(START - 2 * DAY), [4, *[0] * 12]) == []

    @given(st.integers(0, 300), st.integers(0, 300))
    @settings(max_examples=30, deadline=None)
    def test_more_items_are_never_less_of_a_burst(self, count: int, more: int) -> None:
        fewer, greater = SETTLED.model_copy(deep=True), SETTLED.model_copy(deep=True)

        raised_by_fewer = alarms(play(fewer, [count]))
        raised_by_greater = alarms(play(greater, [count + more]))

        assert fewer.evidence <= greater.evidence
        assert len(raised_by_fewer) <= len(raised_by_greater)

    @given(st.lists(st.integers(0, 40), max_size=60))
    @settings(max_examples=50, deadline=None)
    def test_every_alarm_has_passed_its_gates(self, counts: list[int]) -> None:
        for alarm in alarms(play(SETTLED.model_copy(deep=True), counts)):
            if alarm.path == "cusum":
                assert alarm.observed >= POLICY.hour_items
                assert alarm.ratio >= POLICY.hour_ratio
                assert alarm.score >= POLICY.cusum_threshold
            else:
                assert alarm.observed >= POLICY.fast_items
                assert alarm.ratio >= POLICY.fast_ratio
                assert alarm.score > -math.log10(POLICY.fast_probability)


class TestPeriods:
    def test_nothing_is_raised_while_learning(self) -> None:
        burst = [0] * 100 + [50] * 100

        assert alarms(play(Detector(), burst)) == []
        assert alarms(play(Detector.listening_since(START - DAY), burst))

    def test_a_lasting_burst_is_renewed_after_two_quiet_hours(self) -> None:
        raised = alarms(play(settled(), [40] * 60))

        assert [alarm.renewed for alarm in raised] == [False, True, True]
        assert [later.at - earlier.at for earlier, later in pairwise(raised)] == [2 * HOUR] * 2

    def test_a_burst_clears_once_after_a_calm_hour(self) -> None:
        alarm, cleared = play(settled(), [30] * 3 + [1] * 60)

        assert isinstance(alarm, Alarm)
        assert isinstance(cleared, Cleared)
        assert cleared.at - alarm.at >= HOUR
        assert cleared.observed < 1.5 * cleared.expected

    def test_a_new_burst_after_clearing_is_not_a_renewal(self) -> None:
        findings = play(settled(), [30] * 3 + [1] * 60 + [60] * 3)

        assert [alarm.renewed for alarm in alarms(findings)] == [False, False]

    def test_a_burst_that_goes_on_for_good_becomes_the_usual(self) -> None:
        findings = play(settled(), noise(8, days=2))

        assert isinstance(findings[-1], Cleared)
        assert findings[-1].at < START + DAY


class TestSilence:
    @given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=40))
    @settings(max_examples=60, deadline=None)
    def test_empty_bins_may_be_left_out(self, items: list[tuple[int, int]]) -> None:
        every = [count for empty, count in items for count in [*[0] * empty, count]]
        told, untold = (Detector.listening_since(START - 2 * DAY) for _ in range(2))

        found_told = play(told, every)
        found_untold = [
            finding
            for position, count in enumerate(every)
            if count
            for finding in untold.advance(START + position * BIN, count, POLICY)
        ]

        assert found_untold == found_told
        assert untold == told

    def test_an_open_burst_clears_though_nothing_comes_for_a_month(self) -> None:
        detector = settled()
        [alarm] = play(detector, [40] * 3)

        [cleared] = detector.advance(START + 30 * DAY, 1, POLICY)

        assert isinstance(cleared, Cleared)
        assert HOUR <= cleared.at - alarm.at <= HOUR + 3 * BIN

    def test_a_century_of_silence_is_one_step(self) -> None:
        detector = settled(5)

        assert detector.advance(START + 36_500 * DAY, 5, POLICY)

    def test_an_idle_detector_need_not_be_advanced(self) -> None:
        detector = settled()
        play(detector, [0] * 12)
        before = detector.model_dump(exclude={"next_bin"})

        assert detector.idle
        assert play(detector, [0] * 100, START + HOUR) == []
        assert detector.model_dump(exclude={"next_bin"}) == before

    def test_a_detector_is_busy_while_its_burst_is_open(self) -> None:
        detector = settled()
        play(detector, [40] * 3)

        assert not detector.idle


class TestImport:
    @staticmethod
    def imported(rate: int, days: int, end: datetime) -> Detector:
        detector = Detector()
        for position in range(days * BINS_A_DAY):
            detector.learn(end - days * DAY + position * BIN, rate, POLICY)
        return detector

    def test_an_imported_past_is_what_is_usual(self) -> None:
        detector = self.imported(rate=5, days=3, end=START)

        assert play(detector, noise(5, days=1)) == []

    def test_an_imported_past_raises_nothing_and_shortens_learning(self) -> None:
        detector = self.imported(rate=5, days=3, end=START)

        assert alarms(play(detector, [50] * 3))

    def test_averages_hold_from_the_end_of_the_import_to_the_first_live_bin(self) -> None:
        detector = self.imported(rate=5, days=3, end=START - 4 * DAY)

        assert play(detector, noise(5, days=1)) == []

    def test_a_past_that_ended_long_ago_leaves_everything_to_learn(self) -> None:
        detector = self.imported(rate=5, days=3, end=START - 15 * DAY)

        assert alarms(play(detector, noise(40, days=1))) == []

    def test_a_late_import_still_informs_the_time_of_day(self) -> None:
        detector = Detector.listening_since(START - 2 * DAY)
        for days in (1, 2):
            for position in range(12):
                detector.learn(START - days * DAY + position * BIN, 9, POLICY)

        assert play(detector, [9] * 12) == []

    def test_what_is_older_than_the_history_is_left_out(self) -> None:
        detector = Detector.listening_since(START)
        before = detector.model_copy(deep=True)

        detector.learn(START - 20 * DAY, 1000, POLICY)

        assert detector == before

    @pytest.mark.parametrize("live", [True, False])
    def test_an_import_from_the_future_stops_nothing(self, live: bool) -> None:
        detector = Detector.listening_since(START - 2 * DAY) if live else Detector()
        detector.learn(START + 30 * DAY, 1000, POLICY)

        play(detector, noise(5, days=3))

        assert detector.baseline.fast == pytest.approx(5, rel=0.2)


class TestState:
    @given(st.lists(st.integers(0, 12), max_size=150), st.integers(0, 3))
    @settings(max_examples=30, deadline=None)
    def test_it_resumes_from_its_json_after_any_bin(self, counts: list[int], days: int) -> None:
        kept = Detector.listening_since(START - days * DAY)
        parsed = kept.model_copy(deep=True)
        found_by_kept = play(kept, counts)
        found_by_parsed = []
        for position, count in enumerate(counts):
            found_by_parsed += parsed.advance(START + position * BIN, count, POLICY)
            parsed = Detector.model_validate_json(parsed.model_dump_json())

        assert found_by_parsed == found_by_kept
        assert parsed == kept

    def test_it_is_bounded_however_busy_the_series(self) -> None:
        detector, random, sizes = Detector(), Random(1), []
        for day in range(40):
            play(detector, (random.randrange(10_000) for _ in range(BINS_A_DAY)), START + day * DAY)
            sizes.append(len(detector.model_dump_json()))

        assert max(sizes) < 8 * 1024
        assert max(sizes[20:]) < 1.01 * max(sizes[:20])

    def test_a_closed_bin_cannot_be_advanced_again(self) -> None:
        detector = settled()
        detector.advance(START, 1, POLICY)

        with pytest.raises(ValueError, match="closed"):
            detector.advance(START, 1, POLICY)

    def test_counts_are_not_negative(self) -> None:
        with pytest.raises(ValueError, match="negative"):
            settled().advance(START, -1, POLICY)
        with pytest.raises(ValueError, match="negative"):
            settled().learn(START, -1, POLICY)

    def test_moments_are_aware(self) -> None:
        with pytest.raises(TypeError):
            Detector().advance(datetime(2026, 3, 2), 1, POLICY)

    def test_a_moment_falls_into_the_bin_that_holds_it(self) -> None:
        assert bin_of(START + timedelta(minutes=9, seconds=59)) == START + BIN


class TestTail:
    @staticmethod
    def summed(observed: int, mean: float, dispersion: float) -> float:
        """The tail as one minus the sum of what lies below it."""
        size = mean / (dispersion - 1)
        below = (
            math.lgamma(count + size)
            - math.lgamma(size)
            - math.lgamma(count + 1)
            - size * math.log(dispersion)
            + count * math.log(1 - 1 / dispersion)
            for count in range(observed)
        )
        return 1 - math.fsum(math.exp(term) for term in below)

    @pytest.mark.parametrize(
        ("observed", "mean", "dispersion"),
        [(5, 0.2, 1.01), (10, 1.0, 1.2), (26, 3.0, 2.5), (90, 10.0, 7.0), (1200, 100.0, 60.0)],
    )
    def test_it_bounds_the_tail_closely(
        self, observed: int, mean: float, dispersion: float
    ) -> None:
        tail = self.summed(observed, mean, dispersion)

        assert 1e-9 < tail < 1e-3
        assert tail <= negative_binomial_tail(observed, mean, dispersion) * (1 + 1e-6)
        assert negative_binomial_tail(observed, mean, dispersion) < 4 / 3 * tail

    def test_without_dispersion_it_is_poissons(self) -> None:
        tail = 1 - math.fsum(math.exp(-1.5) * 1.5**n / math.factorial(n) for n in range(9))

        assert negative_binomial_tail(9, 1.5, 1) == pytest.approx(tail, rel=0.03)

    @given(st.integers(1, 10_000), st.floats(1e-3, 1e4), st.floats(1, 1e3))
    def test_it_is_a_probability_that_falls_with_the_items(
        self, observed: int, mean: float, dispersion: float
    ) -> None:
        tail = negative_binomial_tail(observed, mean, dispersion)
        further = negative_binomial_tail(observed + 1, mean, dispersion)

        assert 0 <= further <= tail * (1 + 1e-6) <= 1 + 1e-6


class TestReason:
    @pytest.mark.parametrize(
        ("language", "sentence"),
        [
            ("en", "17 negative items in 15 minutes where 1.2 are usual (14 times)."),
            ("zh", "15 分钟内出现 17 条负面反馈，平时约为 1.2 条（14 倍）。"),
            ("fa", "۱۷ مورد منفی در ۱۵ دقیقه؛ معمولاً ۱٫۲ مورد است (۱۴ برابر)."),
            ("und", "17 negative items in 15 minutes where 1.2 are usual (14 times)."),
        ],
    )
    def test_it_is_a_sentence_with_the_figures(self, language: str, sentence: str) -> None:
        assert alarm("fast", 17, 1.2).reason(Language(language)) == sentence

    @pytest.mark.parametrize(
        ("language", "sentence"),
        [
            ("en", "6 negative items in an hour where there are usually hardly any."),
            ("zh", "一小时内出现 6 条负面反馈，平时几乎没有。"),
            ("fa", "۶ مورد منفی در یک ساعت؛ معمولاً تقریباً هیچ موردی نیست."),
        ],
    )
    def test_out_of_silence_no_ratio_is_claimed(self, language: str, sentence: str) -> None:
        assert alarm("cusum", 6, 0.12).reason(Language(language)) == sentence

    def test_it_comes_in_every_language_at_once(self) -> None:
        reasons = alarm("cusum", 40, 8).reasons

        assert list(reasons) == ["en", "zh", "fa"]
        assert reasons["en"] == "40 negative items in an hour where 8.0 are usual (5.0 times)."


class TestPolicy:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"fast_half_life": 0},
            {"history_days": 365},
            {"half_life": 6},
            {"cusum_ceiling": 5},
            {"clear_ratio": 3},
        ],
    )
    def test_what_cannot_work_is_refused(self, wrong: dict[str, float]) -> None:
        with pytest.raises(ValidationError):
            BurstPolicy.model_validate(wrong)

    def test_every_field_says_what_it_is(self) -> None:
        assert all(field.description for field in BurstPolicy.model_fields.values())


def alarm(path: str, observed: int, expected: float) -> Alarm:
    return Alarm.model_validate(
        {
            "at": START,
            "path": path,
            "window": HOUR,
            "observed": observed,
            "expected": expected,
            "score": 9,
            "renewed": False,
        }
    )


SETTLED = settled()
