"""What tests of distillation share: a world of small photographs, and a short distillation."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import vgg16

import pretrain
from utils.presets import parse


def make_world(folder: Path, images: int) -> Path:
    """Make photographs and the weights of a backbone, vgg16.safetensors; return the folder."""
    torch.manual_seed(0)
    save_file(vgg16(weights=None).features.state_dict(), folder / "vgg16.safetensors")
    for index in range(images):
        rng = np.random.default_rng(index)
        small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), "uint8"))
        small.resize((100, 90)).save(folder / f"{index}.png")
    return folder


def distil(world: Path, output: Path, *more: str) -> Path:
    """Distil the small teacher for four steps; return its file."""
    line = ["--imagenet_train_path", str(world), "--output_dir", str(output)]
    line += ["--model_size", "small", "--train_steps", "4", "--batch_size", "2"]
    line += ["--backbone", "vgg16", "--backbone_weights", str(world / "vgg16.safetensors")]
    line += ["--image_size", "64", "--crop_size", "48"]
    line += ["--workers", "0", "--device", "cpu", "--precision", "fp32", *more]
    pretrain.main(parse(pretrain.get_parser(), line))
    return output / "teacher_small.safetensors"
