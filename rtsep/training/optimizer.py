"""How gradients become steps: Muon for the matrices of a network, Adam for its biases.

Muon's steps have the same size in all directions of a matrix, so that what few frames ask for is not drowned by what
all of them ask for.

K. Jordan, "Muon: an optimizer for hidden layers in neural networks", 2024; J. Liu et al., "Muon is scalable for LLM
training", arXiv:2502.16982, for the size of the steps.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Adam, Optimizer

from rtsep.errors import ConfigError

try:
    from torch.optim import Muon
except ImportError:
    reason = f"training needs PyTorch 2.9 or later, not {torch.__version__}: pip install --upgrade 'rtsep[train]'"
    raise ConfigError(reason) from None

BIASES = 0.25  # learning rate of the biases over that of the matrices
DECAY = 0.1  # of matrices: steps of one size let them grow until the recurrent ones no longer learn


def optimizers_of(network: nn.Module) -> list[Optimizer]:
    """One for each matrix, so that threads can share the work, and one for all else."""
    matrices = [parameter for parameter in network.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in network.parameters() if parameter.ndim != 2]
    muons = [Muon([matrix], weight_decay=DECAY, adjust_lr_fn="match_rms_adamw") for matrix in matrices]
    return [*muons, Adam(others)]


def set_learning_rate(optimizers: list[Optimizer], rate: float) -> None:
    """That of the next step: the root mean square of a step of a matrix is about a fifth of it."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate if isinstance(optimizer, Muon) else BIASES * rate
