"""ImageNet backbones whose features a teacher is distilled from."""

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

# name -> the layers that are described; each gives an equal share of the teacher's channels
BACKBONES = {
    "wide_resnet101_2": ("layer2", "layer3"),
    "vgg16": ("features.15", "features.22"),  # relu3_3, relu4_3
}
STRIDE = 8  # backbone pixels for one output; the backbone sees twice the PDN's resolution


class Backbone(nn.Module):
    """Patch features of an ImageNet network.

    normalised images (N, 3, 2H, 2W) -> (N, channels, H / 4, W / 4): each layer averaged over
    3 x 3 neighbours, brought to one size, its channels brought to an equal share by adaptive
    pooling. Source: PatchCore (Roth et al., CVPR 2022), section 3.1; EfficientAD, appendix A.2.
    """

    def __init__(self, network: nn.Module, layers: tuple[str, ...], channels: int):
        super().__init__()
        self.extractor = create_feature_extractor(network.eval(), list(layers))
        self.share = channels // len(layers)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "Backbone":
        return super().train(False)  # a teacher's teacher never leaves evaluation mode

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        size = tuple(side // STRIDE for side in images.shape[-2:])
        return torch.cat([self._describe(f, size) for f in self.extractor(images).values()], dim=1)

    def _describe(self, features: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        pooled = F.avg_pool2d(features.float(), 3, stride=1, padding=1)
        pooled = F.interpolate(pooled, size, mode="bilinear", align_corners=False)
        last = pooled.permute(0, 2, 3, 1).flatten(0, 2)  # (N * h * w, C)
        last = F.adaptive_avg_pool1d(last, self.share)
        return last.unflatten(0, (len(features), *size)).permute(0, 3, 1, 2)


def build_backbone(
    name: str, channels: int, state_dict: dict[str, torch.Tensor] | None = None
) -> Backbone:
    """Build a backbone from `state_dict`, or from weights that torchvision downloads.

    `state_dict` may be that of the whole network or of its `features` alone. Raises ValueError
    when it does not fit, OSError when the download fails.
    """
    if state_dict is None:
        return Backbone(get_model(name, weights="IMAGENET1K_V1"), BACKBONES[name], channels)
    extra = {"init_weights": False} if name == "vgg16" else {}
    network = get_model(name, weights=None, **extra)
    if name == "vgg16" and "0.weight" in state_dict:
        state_dict = {f"features.{key}": value for key, value in state_dict.items()}
    missing, _ = network.load_state_dict(state_dict, strict=False)
    needed = [key for key in missing if not key.startswith(("classifier", "fc"))]
    if needed:
        raise ValueError(f"no weights for {needed[0]} of {name}")
    return Backbone(network, BACKBONES[name], channels)
