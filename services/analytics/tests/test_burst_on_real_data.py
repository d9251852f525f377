"""Burst detection on public recordings: what the back-test command prints is asserted here."""

from datetime import timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from rapport.analytics.domain.burst import BurstPolicy, Detector

REPOSITORY = Path(__file__).parents[3]
DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="module")
def backtest() -> ModuleType:
    spec = spec_from_file_location("burst_backtest", REPOSITORY / "benchmarks/burst_backtest.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def present(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"shared data absent: {name}")
    return DATA / name


def test_labelled_anomalies_of_brands_are_found_at_little_noise(backtest: ModuleType) -> None:
    policy = BurstPolicy()

    scores = [
        backtest.score_brand(recording, backtest.play(Detector(), recording.bins, policy))
        for recording in backtest.read_nab(present("nab"))
    ]

    assert len(scores) == 5
    assert backtest.together(scores).recall >= 0.8
    assert backtest.together(scores).false_alarms_a_day <= 0.5
    assert max(score.false_alarms_a_day for score in scores) <= 1


def test_real_crises_are_found_by_about_the_tenth_post(backtest: ModuleType) -> None:
    scores = [
        backtest.score_crisis(crisis, BurstPolicy())
        for crisis in backtest.read_crises(present("crisislex"))
    ]

    assert len(scores) == 5
    assert sum(score.delay <= timedelta(hours=1) for score in scores) >= 3
    assert all(score.delay <= score.tenth_post + timedelta(minutes=5) for score in scores)
    assert all(score.lead > timedelta(0) for score in scores)
    assert sum(score.false_alarms for score in scores) == 0


def test_the_command_says_what_is_absent(
    backtest: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert backtest.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("ABSENT") == 2


def test_the_command_measures_what_is_there(
    backtest: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "crisislex").symlink_to(present("crisislex"))

    assert backtest.main([str(tmp_path)]) == 0

    printed = capsys.readouterr()
    assert "3 of 5 within an hour; median delay 54 min" in printed.out
    assert printed.err.count("ABSENT") == 1
