"""The named model profiles, as data."""

from __future__ import annotations

from rmsai_ray.errors import ConfigError
from rmsai_ray.models.bundle import ModelSpec
from rmsai_ray.signals.leads import LEADS
from rmsai_ray.signals.normalise import Normaliser

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
                "sampling_rate_hz": 200.0,
                "frame_samples": 40,  # 0.2 s
                "stem_dim": 80,
                "hidden_dim": 112,
                "head_dim": 128,
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

NORMALISERS: dict[str, Normaliser] = {
    DEFAULT_PROFILE: Normaliser("window", baseline_samples=401, smoothing_samples=3)  # 2 s and 15 ms
}
"""What a new model of a profile is normalised by; others, by each window's own mean and deviation alone."""


def get_profile(name: str) -> ModelSpec:
    """The profile called ``name``.

    Raises:
        ConfigError: there is none.
    """
    if name not in PROFILES:
        raise ConfigError("profile", name, "is not a model profile", f"Choose from {', '.join(PROFILES)}.")
    return PROFILES[name]
