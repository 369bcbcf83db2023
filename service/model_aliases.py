"""Names that stock clients ask for, and what they mean here.

A vendor's client names one of the vendor's models, often without being told to. It gets the default model, unless the configuration says
otherwise. A name that ends in `*` stands for all names that begin so.
"""

from __future__ import annotations

from collections.abc import Mapping

WELL_KNOWN = (
    # OpenAI, and Azure
    "sora-2", "sora-2-*",
    # Amazon Bedrock: `-v1:0` and `-v1:1`, and the names of inference profiles, which have a region before them
    "amazon.nova-reel-v1*", "us.amazon.nova-reel-v1*", "luma.ray-v2*", "us.luma.ray-v2*",
    # Google: Vertex AI and the Gemini API
    "veo-*", "gemini-omni-*",
    # Runway, which offers models of others as well
    "gen3a_turbo", "gen4*", "aleph2", "veo3*", "gemini_omni_flash", "seedance*", "happyhorse_*", "hailuo*",
    # Decart
    "lucy-*",
)  # fmt: skip


def model_aliases(default: str, own: Mapping[str, str] | None = None) -> dict[str, str]:
    """What each alias means.

    Args:
        default: what the well-known names mean.
        own: the operator's, which come first; a name that means the empty string is no alias. An empty mapping means that there are none.
    """
    if own is not None and not own:
        return {}
    return {**dict.fromkeys(WELL_KNOWN, default), **(own or {})}
