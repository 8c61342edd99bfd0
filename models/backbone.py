"""ImageNet backbones whose features a teacher is distilled from."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr

import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

# the backbones that were tried -> the layers that are described, each by an equal share of the
# teacher's channels; any other classification network of torchvision needs its layers named
LAYERS = {
    "wide_resnet101_2": ("layer2", "layer3"),
    "vgg16": ("features.15", "features.22"),  # relu3_3, relu4_3
    "alexnet": ("features.4", "features.7"),  # relu2, relu3
}
# of the two networks that normalise by themselves; torchvision leaves it out without weights
OWN_NORMALISATION = {"transform_input": True, "init_weights": False}
STRIDE = 8  # backbone pixels for one output; the backbone sees twice the PDN's resolution
PROBES = ((96, 128), (96, 192))  # height, width, in pixels: the two differ in width alone
# which dimensions change with an image's width -> the order that makes them (N, C, h, w)
WIDTH_LAST = {
    (False, False, False, True): (0, 1, 2, 3),
    (False, False, True, False): (0, 3, 1, 2),  # of some transformers
}


class Backbone(nn.Module):
    """Patch features of an ImageNet network.

    uint8 (N, 3, 2H, 2W) -> float32 (N, channels, H / 4, W / 4): each layer averaged over 3 x 3
    neighbours, brought to one size, its channels brought to an equal share by adaptive pooling.
    Source: PatchCore (Roth et al., CVPR 2022), section 3.1; EfficientAD, appendix A.2.
    """

    def __init__(
        self,
        extractor: nn.Module,
        channels: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ):
        super().__init__()
        self.extractor = extractor.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.orders = self._probe()
        self.share = channels // len(self.orders)

    @torch.no_grad()
    def _probe(self) -> dict[str, tuple[int, ...]]:
        """Return how each layer's dimensions become (N, C, h, w). Raises ValueError if none can."""
        try:
            with redirect_stderr(io.StringIO()):  # a traced network prints its own traceback
                first, second = (self.extractor(torch.zeros(1, 3, *size)) for size in PROBES)
        except (AssertionError, RuntimeError) as error:
            raise ValueError("it takes images of one size only: choose another") from error
        orders = {}
        for name, features in first.items():
            changed = [a != b for a, b in zip(features.shape, second[name].shape, strict=True)]
            order = WIDTH_LAST.get(tuple(changed))
            if order is None:
                raise ValueError(f"{name} gives {tuple(features.shape)}, no map of features")
            orders[name] = order
        return orders

    def train(self, mode: bool = True) -> "Backbone":
        return super().train(False)  # a teacher's teacher never leaves evaluation mode

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        size = tuple(side // STRIDE for side in images.shape[-2:])
        inputs = ((images / 255 - self.mean) / self.std).contiguous(
            memory_format=torch.channels_last
        )
        layers = self.extractor(inputs)
        described = [self._describe(layers[k].permute(o), size) for k, o in self.orders.items()]
        return torch.cat(described, dim=1)

    def _describe(self, features: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        pooled = F.avg_pool2d(features.float(), 3, stride=1, padding=1)
        pooled = F.interpolate(pooled, size, mode="bilinear", align_corners=False)
        last = pooled.permute(0, 2, 3, 1).flatten(0, 2)  # (N * h * w, C)
        last = F.adaptive_avg_pool1d(last, self.share)
        return last.unflatten(0, (len(features), *size)).permute(0, 3, 1, 2)


def backbone_names() -> list[str]:
    """Return torchvision's classification networks."""
    return torchvision.models.list_models(module=torchvision.models)


def published_weights(name: str) -> torchvision.models.WeightsEnum:
    """Return which of torchvision's weights are meant: the first version, as papers use it."""
    weights = torchvision.models.get_model_weights(name)
    return getattr(weights, "IMAGENET1K_V1", next(iter(weights)))


def build_backbone(
    name: str,
    channels: int,
    layers: Sequence[str],
    state_dict: dict[str, torch.Tensor] | None = None,
) -> Backbone:
    """Build a backbone from `state_dict`, or from weights that torchvision downloads.

    `state_dict` is in torchvision's layout: the whole network's, that of its `features` alone, or
    any part that has the layers and what they need. Raises ValueError when the network has no such
    layers or cannot be used, UnfitWeights, OSError when the download fails.
    """
    weights = published_weights(name)
    own = OWN_NORMALISATION if name in ("googlenet", "inception_v3") else {}
    network = torchvision.models.get_model(name, weights=None, **own).eval()
    known = get_graph_node_names(network, suppress_diff_warning=True)[1]
    for layer in layers:
        if not any(node == layer or node.startswith(f"{layer}.") for node in known):
            raise ValueError(f"{name} has no layer {layer}, but {', '.join(outer_layers(known))}")
    extractor = create_feature_extractor(network, list(layers), suppress_diff_warning=True)
    if state_dict is None:
        state_dict = weights.get_state_dict(check_hash=True)
    load(extractor, state_dict, set(network.state_dict()))
    transforms = weights.transforms()
    return Backbone(extractor, channels, transforms.mean, transforms.std)


def outer_layers(nodes: list[str]) -> list[str]:
    """Shorten a list of layers to its outer ones: features.0.conv, features.1.conv, ... is one."""
    groups = {}
    for node in nodes[1:]:  # the first is the image
        outer, _, rest = node.partition(".")
        groups.setdefault(outer, []).append(rest.partition(".")[0])
    return [
        f"{outer}.{inner[0]} to {outer}.{inner[-1]}" if inner[0] else outer
        for outer, inner in groups.items()
    ]


class UnfitWeights(ValueError):
    """Weights are of another network."""


def load(extractor: nn.Module, state_dict: dict[str, torch.Tensor], trained: set[str]) -> None:
    """Load what the extractor has of the `trained` keys. Raises UnfitWeights if it cannot.

    An extractor may hold constants beside them, which no file has.
    """
    own = {k: v for k, v in extractor.state_dict().items() if k in trained}
    if not own.keys() & state_dict.keys():
        state_dict = {f"features.{key}": tensor for key, tensor in state_dict.items()}
    for key, tensor in own.items():
        if key not in state_dict and not key.endswith("num_batches_tracked"):
            raise UnfitWeights(f"it holds no {key}: is it of another network?")
        if key in state_dict and state_dict[key].shape != tensor.shape:
            raise UnfitWeights(
                f"{key} is {tuple(state_dict[key].shape)}, not {tuple(tensor.shape)}"
            )
    extractor.load_state_dict({k: state_dict[k] for k in own if k in state_dict}, strict=False)
