"""The embedded model, whose presets are in `model_core.presets`."""

from __future__ import annotations

from model_core.families.common.family import Family

FAMILY = Family(name="millrace", package=__package__)
