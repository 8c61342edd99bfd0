"""Backbones: their features by the papers' formula, any network of torchvision, bad weights."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.models import get_model, resnet18, vgg16

from models.backbone import LAYERS, build_backbone, published_weights
from models.pdn import TEACHER_CHANNELS

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)  # of torchvision's ImageNet weights
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
IMAGE = torch.randint(0, 256, (1, 3, 64, 48), generator=torch.Generator().manual_seed(1))
IMAGE = IMAGE.to(torch.uint8)


@pytest.fixture(scope="module")
def vgg() -> torch.nn.Module:
    torch.manual_seed(0)
    return vgg16(weights=None, init_weights=False).eval()


def test_features_are_what_the_papers_say(vgg):
    backbone = build_backbone("vgg16", TEACHER_CHANNELS, LAYERS["vgg16"], vgg.features.state_dict())
    inputs = (IMAGE / 255 - MEAN) / STD
    with torch.no_grad():
        third, fourth = vgg.features[:16](inputs), vgg.features[:23](inputs)  # relu3_3, relu4_3
    expected = []
    for layer in (third, fourth):
        smooth = F.unfold(layer, 3, padding=1).view(1, layer.shape[1], 9, -1).mean(2)
        smooth = smooth.view(layer.shape)
        if layer is third:  # bilinear halving is the mean of two by two
            smooth = smooth.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
        channels = smooth.shape[1]
        bins = [(i * channels // 192, -(-(i + 1) * channels // 192)) for i in range(192)]
        expected.append(torch.stack([smooth[:, a:b].mean(1) for a, b in bins], 1))
    torch.testing.assert_close(backbone(IMAGE), torch.cat(expected, 1), atol=1e-5, rtol=1e-4)


def test_a_whole_networks_weights_and_its_features_alone_are_the_same(vgg):
    whole = build_backbone("vgg16", 8, LAYERS["vgg16"], vgg.state_dict())
    part = build_backbone("vgg16", 8, LAYERS["vgg16"], vgg.features.state_dict())
    assert torch.equal(whole(IMAGE), part(IMAGE))


def test_half_precision_weights_are_read(vgg):
    half = {key: tensor.half() for key, tensor in vgg.features.state_dict().items()}
    assert build_backbone("vgg16", 8, LAYERS["vgg16"], half)(IMAGE).dtype == torch.float32


CASES = {
    "resnet18": ("layer2", "layer3"),
    "efficientnet_b0": ("features.3", "features.5"),
    "mobilenet_v3_small": ("features.3",),
    "convnext_tiny": ("features.3", "features.5"),
    "regnet_y_400mf": ("trunk_output.block2", "trunk_output.block3"),
    "densenet121": ("features.denseblock2", "features.denseblock3"),
    "swin_t": ("features.3", "features.5"),  # channels last
}


@pytest.mark.parametrize(("name", "layers"), CASES.items(), ids=list(CASES))
def test_any_network_of_torchvision_may_be_learnt_from(name, layers):
    torch.manual_seed(0)
    network = get_model(name, weights=None).eval()
    backbone = build_backbone(name, TEACHER_CHANNELS, layers, network.state_dict())
    features = backbone(IMAGE)
    assert features.shape == (1, TEACHER_CHANNELS, 8, 6)
    with torch.no_grad():
        outputs = {}
        for layer in layers:
            keep = network.get_submodule(layer).register_forward_hook
            keep(lambda m, i, output, layer=layer: outputs.__setitem__(layer, output))
        network((IMAGE / 255 - MEAN) / STD)
    first = outputs[layers[0]]
    first = first.permute(0, 3, 1, 2) if name == "swin_t" else first
    mean = F.avg_pool2d(first, 3, 1, 1).mean((0, 2, 3))
    share = TEACHER_CHANNELS // len(layers)
    if first.shape[1] % share == 0 and first.shape[-1] == 6:  # neither stretched nor resized
        found = features[:, :share].mean((0, 2, 3))
        torch.testing.assert_close(found, mean.view(share, -1).mean(1), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", LAYERS)
def test_the_default_layers_are_there(name):
    network = get_model(name, weights=None)
    backbone = build_backbone(name, TEACHER_CHANNELS, LAYERS[name], network.state_dict())
    assert list(backbone.orders) == list(LAYERS[name])
    assert backbone(IMAGE).shape == (1, TEACHER_CHANNELS, 8, 6)


def test_a_network_is_normalised_as_its_weights_ask():
    torch.manual_seed(0)
    network = get_model("efficientnet_v2_l", weights=None).eval()
    backbone = build_backbone("efficientnet_v2_l", 4, ("features.1",), network.state_dict())
    assert backbone.mean.flatten().tolist() == [0.5, 0.5, 0.5]


def test_the_first_published_weights_are_meant():
    assert published_weights("wide_resnet101_2").name == "IMAGENET1K_V1"
    assert published_weights("regnet_y_128gf").url  # which has no such version


def test_a_backbone_never_trains():
    network = resnet18(weights=None)
    backbone = build_backbone("resnet18", 4, ("layer2",), network.state_dict())
    before = backbone(IMAGE)
    backbone.train()
    assert torch.equal(backbone(IMAGE), before)
    assert not any(p.requires_grad for p in backbone.parameters())


def test_a_layer_that_is_not_there_names_those_that_are():
    state = resnet18(weights=None).state_dict()
    with pytest.raises(ValueError, match=r"no layer layer9, but conv1, .*layer2\.0 to layer2\.1, "):
        build_backbone("resnet18", 4, ("layer9",), state)


def test_a_layer_without_a_map_is_refused():
    state = resnet18(weights=None).state_dict()
    with pytest.raises(ValueError, match=r"fc gives \(1, 1000\), no map"):
        build_backbone("resnet18", 4, ("fc",), state)


def test_a_network_of_one_image_size_is_refused():
    state = get_model("vit_b_16", weights=None).state_dict()
    with pytest.raises(ValueError, match="images of one size only"):
        build_backbone("vit_b_16", 4, ("encoder",), state)


def test_weights_that_do_not_fit_are_named():
    state = resnet18(weights=None).state_dict()
    with pytest.raises(ValueError, match=r"conv1\.weight is \(2, 3\)"):
        build_backbone("resnet18", 4, ("layer2",), {**state, "conv1.weight": torch.zeros(2, 3)})
    del state["layer2.0.conv1.weight"]
    with pytest.raises(ValueError, match=r"holds no layer2\.0\.conv1\.weight"):
        build_backbone("resnet18", 4, ("layer2",), state)


def test_weights_beyond_the_layers_are_not_needed():
    state = resnet18(weights=None).state_dict()
    part = {key: t for key, t in state.items() if not key.startswith(("layer4", "fc"))}
    one = build_backbone("resnet18", 4, ("layer2", "layer3"), part)
    assert torch.equal(
        one(IMAGE), build_backbone("resnet18", 4, ("layer2", "layer3"), state)(IMAGE)
    )
