"""Torch models: families of ECG autoencoders, their checkpoints, import of upstream checkpoints."""

from rmsai_ray.models import framed, recurrent  # noqa: F401 - importing a family registers it
