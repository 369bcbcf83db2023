"""The report of the page in a browser, and what the measurement of margins plays."""

from __future__ import annotations

import base64

import numpy as np

from bench.operate.live_page import Fault, Report, colour, fragments
from model_core import media


def fault(*, goes_on: bool = True) -> Fault:
    return Fault("door", 168, 168, 7.0, 60.0, goes_on, ", connection mended once")


def test_a_report_says_what_was_seen() -> None:
    report = Report(chromium="156", first=[500.0, 500.0, 700.0], switches=[400.0], faults=[fault()])
    told = report.table()
    assert "first        500 ms   700 ms    3" in told
    assert "painted 168 pictures in 7.0 s, 168 different; one stood for 60 ms at most; goes on, connection mended once" in told
    assert report.passed


def test_a_session_that_ended_a_prompt_that_was_not_seen_and_a_complaint_fail() -> None:
    assert not Report(faults=[fault(goes_on=False)]).passed
    assert not Report(unseen=1).passed
    assert not Report(complaints=["TypeError"]).passed


def test_fragments_of_one_colour_play_at_their_time() -> None:
    made = fragments(colour("navy"), first_chunk=2, chunks=2)
    assert len(made) == 2
    frames = np.full((8, 64, 64, 3), colour("navy"), np.uint8)
    assert base64.b64decode(made[0]) == media.fmp4_fragment(frames, 16, 24)
