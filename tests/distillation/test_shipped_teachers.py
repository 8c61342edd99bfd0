"""The teachers that ship: what they say of themselves is so."""

import pytest
import torch
import yaml

import pretrain
from data.natural import find_natural_images, hold_out_natural
from distillation.loop import explained_variance
from distillation.targets import FeatureCache, describe
from models.backbone import LAYERS, build_backbone
from models.pdn import PDNS, TEACHER_CHANNELS
from tests.conftest import REPOSITORY
from utils.devices import Compute
from utils.teachers import load_teacher, read_state_dict, shipped_teacher
from utils.tensors import read_about

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", PDNS)
def test_the_shipped_teachers_tell_their_recipe(size):
    path = shipped_teacher(size)
    assert path.is_relative_to(REPOSITORY)
    assert path.stat().st_size < 17e6
    assert load_teacher(path, size)[1] == size
    about = read_about(path)
    assert about["held_out_explained_variance"] > {"small": 0.48, "medium": 0.38}[size]
    preset = yaml.safe_load((REPOSITORY / "configs" / f"teacher_{size}.yaml").read_text())
    assert {key: about[key] for key in preset} == preset
    assert about["held_out_images"] == 50
    card = (REPOSITORY / "models" / "weights" / "README.md").read_text()
    assert f"{about['held_out_explained_variance']:.3f}" in card
    assert f"{about['train_steps']:,} steps" in card


@pytest.mark.slow
def test_the_shipped_teachers_explain_what_they_say_on_images_they_never_saw(shared):
    """Measure the shipped files anew, on their own held-out images, with the shared backbone."""
    source = find_natural_images(shared / "data" / "imagenet_samples")
    train, held_out = hold_out_natural(source, seed=0)
    weights = read_state_dict(shared / "weights" / "vgg16_features_fp16.safetensors")
    backbone = build_backbone("vgg16", TEACHER_CHANNELS, LAYERS["vgg16"], weights)
    features = describe(backbone, Compute(CPU))
    options = pretrain.argparse.Namespace(seed=0, workers=2, image_size=256, max_unreadable=0)
    known = FeatureCache(train.members()[:12], features, options, views=1)
    judged = FeatureCache(held_out[:8], features, options, views=1)
    for size in PDNS:
        about = read_about(shipped_teacher(size))
        assert about["seed"] == 0
        teacher, _ = load_teacher(shipped_teacher(size))
        explained = explained_variance(teacher, judged.pairs(*known.moments().mean_std()))
        assert explained == pytest.approx(about["held_out_explained_variance"], abs=0.08)
