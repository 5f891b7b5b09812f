"""The named model profiles, as data."""

from __future__ import annotations

from rmsai_ray.errors import ConfigError
from rmsai_ray.models.bundle import ModelSpec
from rmsai_ray.signals.leads import LEADS

DEFAULT_PROFILE = "framed-2400x64"

PROFILES: dict[str, ModelSpec] = {
    spec.profile: spec
    for spec in (
        ModelSpec(
            family="framed",
            profile=DEFAULT_PROFILE,
            window_samples=2400,  # 12 s: one window per lead of an event
            stride_samples=2400,
            sampling_rate_hz=200.0,
            embedding_dim=64,
            leads=LEADS,
            architecture={
                "frame_samples": 40,  # 0.2 s
                "stem_dim": 80,
                "hidden_dim": 112,
                "head_dim": 128,
                "num_segments": 12,  # of 1 s
                "segment_dim": 4,
                "num_positions": 16,
            },
        ),
        ModelSpec(
            family="recurrent",
            profile="seed-2400x64",
            window_samples=2400,
            stride_samples=2400,
            sampling_rate_hz=200.0,
            embedding_dim=64,
            leads=LEADS,
        ),
        ModelSpec(
            family="recurrent",
            profile="rmsai-140x128",
            window_samples=140,  # 0.7 s, half overlapping
            stride_samples=70,
            sampling_rate_hz=200.0,
            embedding_dim=128,
            leads=LEADS,
        ),
    )
}


def get_profile(name: str) -> ModelSpec:
    """The profile called ``name``.

    Raises:
        ConfigError: there is none.
    """
    if name not in PROFILES:
        raise ConfigError("profile", name, "is not a model profile", f"Choose from {', '.join(PROFILES)}.")
    return PROFILES[name]
