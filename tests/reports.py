"""Statistics of stages and front doors that have done nothing yet, to make others of with `dataclasses.replace`."""

from __future__ import annotations

from autoscaling.reports import ControlStatistics, ViewerTotals
from model_core.statistics import DecoderStatistics, DenoiserStatistics, TextEncoderStatistics

ENCODER = TextEncoderStatistics(hits=0, joined=0, misses=0, cached=0, in_flight=0, service_s=0.0)
DENOISER = DenoiserStatistics(sessions=0, waiting=0, free_slots=0, undelivered=0, steps=0, rows=0, chunks=0, busy_s=0.0, expected_s=0.0)
DECODER = DecoderStatistics(sessions=0, chunks=0, busy_s=0.0)
ADMISSION = ControlStatistics(live=0, degraded=0, waiting=0, level=0, capacity=0, live_jobs=0, waiting_jobs=0, arrivals=0, departures=0)
VIEWERS = ViewerTotals(prompts=0, chunks=0, late_chunks=0, first_frames=0, late_first_frames=0)
