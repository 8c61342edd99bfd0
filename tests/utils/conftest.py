"""A teacher of each size, with random weights."""

import pytest
import torch
from torch import nn

from models.pdn import PDNS


@pytest.fixture(scope="module")
def teachers() -> dict[str, nn.Sequential]:
    torch.manual_seed(6)
    return {size: build().eval() for size, build in PDNS.items()}


@pytest.fixture
def small(teachers) -> dict[str, torch.Tensor]:
    return dict(teachers["small"].state_dict())
