"""Pre-training: a fresh network learns the normal windows of archives."""

from __future__ import annotations

from dataclasses import replace

from rmsai_ray.models.bundle import ModelBundle
from rmsai_ray.models.checkpoint import untrained_model
from rmsai_ray.signals.leads import select_leads
from rmsai_ray.training.config import PretrainConfig
from rmsai_ray.training.flow import Start, train_model

__all__ = ["PretrainConfig", "pretrain"]


def pretrain(config: PretrainConfig) -> ModelBundle:
    """Trains a profile's network from scratch; see :func:`~rmsai_ray.training.flow.train_model`."""
    fresh = untrained_model(config.profile, seed=config.seed)
    spec = replace(fresh.spec, leads=select_leads(config.leads or fresh.spec.leads))
    return train_model(Start(job="pretrain", bundle=replace(fresh, spec=spec)), config)
