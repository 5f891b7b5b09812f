"""The processes that train one network together: who is who, sums over all of them, shared gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Team:
    """The process group as one of its members sees it; without a group, a team of one."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @staticmethod
    def current(device: torch.device) -> Team:
        """The default group of torch.distributed, where there is one."""
        if not distributed.is_initialized():
            return Team(device)
        return Team(device, distributed.get_rank(), distributed.get_world_size())

    def total(self, *values: float) -> list[float]:
        """Each value summed over the team; the same to the last bit for every member."""
        if self.size == 1:
            return list(values)
        sums: Tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(sums)
        return list(map(float, sums.tolist()))

    def share_gradients(self, module: nn.Module) -> nn.Module:
        """The module, with gradients that become the team's mean in every backward pass."""
        return module if self.size == 1 else DistributedDataParallel(module)
