"""The published networks, as their repositories define them, and ours from their files."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.pdn import PDNS
from utils.teachers import load_teacher


class ReferencePdn(nn.Sequential):
    """The reference repository's: a plain Sequential, here with the padding of distillation."""

    def __init__(self, size: str, pad: int):
        pool = lambda: nn.AvgPool2d(kernel_size=2, stride=2, padding=pad)  # noqa: E731
        if size == "small":
            layers = [nn.Conv2d(3, 128, 4, padding=3 * pad), nn.ReLU(), pool()]
            layers += [nn.Conv2d(128, 256, 4, padding=3 * pad), nn.ReLU(), pool()]
            layers += [nn.Conv2d(256, 256, 3, padding=pad), nn.ReLU(), nn.Conv2d(256, 384, 4)]
        else:
            layers = [nn.Conv2d(3, 256, 4, padding=3 * pad), nn.ReLU(), pool()]
            layers += [nn.Conv2d(256, 512, 4, padding=3 * pad), nn.ReLU(), pool()]
            layers += [nn.Conv2d(512, 512, 1), nn.ReLU()]
            layers += [nn.Conv2d(512, 512, 3, padding=pad), nn.ReLU()]
            layers += [nn.Conv2d(512, 384, 4), nn.ReLU(), nn.Conv2d(384, 384, 1)]
        super().__init__(*layers)


class GlaePdn(nn.Module):
    """GLAE's: the same Sequential inside a module."""

    def __init__(self, size: str, pad: int):
        super().__init__()
        self.pdn = ReferencePdn(size, pad)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.pdn(image)


class NamedPdn(nn.Module):
    """anomalib's: layers by name, the order of computation in `forward`."""

    def __init__(self, size: str, pad: int):
        super().__init__()
        self.size = size
        self.avgpool1 = nn.AvgPool2d(2, 2, padding=pad)
        self.avgpool2 = nn.AvgPool2d(2, 2, padding=pad)
        if size == "small":
            self.conv1 = nn.Conv2d(3, 128, 4, padding=3 * pad)
            self.conv2 = nn.Conv2d(128, 256, 4, padding=3 * pad)
            self.conv3 = nn.Conv2d(256, 256, 3, padding=pad)
            self.conv4 = nn.Conv2d(256, 384, 4)
        else:
            self.conv1 = nn.Conv2d(3, 256, 4, padding=3 * pad)
            self.conv2 = nn.Conv2d(256, 512, 4, padding=3 * pad)
            self.conv3 = nn.Conv2d(512, 512, 1)
            self.conv4 = nn.Conv2d(512, 512, 3, padding=pad)
            self.conv5 = nn.Conv2d(512, 384, 4)
            self.conv6 = nn.Conv2d(384, 384, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.avgpool1(F.relu(self.conv1(x)))
        x = self.avgpool2(F.relu(self.conv2(x)))
        x = F.relu(self.conv3(x))
        if self.size == "small":
            return self.conv4(x)
        x = F.relu(self.conv5(F.relu(self.conv4(x))))
        return self.conv6(x)


@pytest.mark.parametrize("size", PDNS)
@pytest.mark.parametrize("definition", [ReferencePdn, GlaePdn, NamedPdn])
def test_a_published_file_gives_the_features_of_its_own_network(tmp_path, definition, size):
    torch.manual_seed(3)
    network, padded = definition(size, pad=0), definition(size, pad=1)
    torch.save(network.state_dict(), tmp_path / "teacher.pth")
    teacher, found = load_teacher(tmp_path / "teacher.pth")
    assert found == size
    image = torch.randn(2, 3, 100, 84)
    with torch.no_grad():
        expected = network(image)
        torch.testing.assert_close(teacher(image), expected, atol=1e-6, rtol=1e-5)
        padded.load_state_dict(network.state_dict())
        inner = padded(image)[..., 4:-4, 4:-4]
        assert expected.std() > 1e-3
        torch.testing.assert_close(inner, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("definition", [ReferencePdn, NamedPdn])
def test_the_published_networks_have_the_published_sizes(definition):
    count = {s: sum(p.numel() for p in definition(s, 0).parameters()) for s in PDNS}
    assert count == {"small": 2_694_144, "medium": 8_026_624}
