"""One step of training: eager, through torch.compile, or replayed as a CUDA graph."""

import warnings

import torch

from data.images import jitter, normalise
from models.detector import Detector
from utils.compilation import CudaGraph, compiled, warn_eager
from utils.devices import Compute

LEARNING_RATE = 1e-4
WEIGHT_DECAY = 1e-5
DECAY_AT, DECAY = 0.95, 0.1  # after this part of the steps the learning rate is multiplied by that
TERMS = ("hard", "autoencoder", "student_autoencoder", "penalty")


def learning_rate(step: int, steps: int) -> float:
    """Return the learning rate at `step`. Source: EfficientAD, section 4."""
    return LEARNING_RATE * (1.0 if step < DECAY_AT * steps else DECAY)


class Optimisation:
    """What changes from step to step beside the detector: optimiser, scaler, RNG."""

    def __init__(self, detector: Detector, steps: int, compute: Compute):
        self.steps, self.device = steps, compute.device
        self.on_cuda = compute.device.type == "cuda"
        self.in_graph = compute.compiler == "graph"
        if self.in_graph:  # the steps before the capture are meant to run without it
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
        self.adam = torch.optim.Adam(
            detector.trained_parameters(),
            lr=self._rate(0),
            weight_decay=WEIGHT_DECAY,
            fused=True,
            capturable=self.in_graph,
        )
        half = compute.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=half)

    def _rate(self, step: int) -> float | torch.Tensor:
        """Return the learning rate as the optimiser wants it: a graph reads it from the device."""
        rate = learning_rate(step, self.steps)
        return torch.tensor(rate, device=self.device) if self.in_graph else rate

    def set_learning_rate(self, step: int) -> None:
        """Set the learning rate of `step`; does nothing where it is that of the step before."""
        if learning_rate(step, self.steps) != learning_rate(step - 1, self.steps):
            for group in self.adam.param_groups:
                if self.in_graph:
                    group["lr"].fill_(learning_rate(step, self.steps))
                else:
                    group["lr"] = self._rate(step)

    def step(self, loss: torch.Tensor) -> None:
        """Take one step down the gradient of `loss`."""
        self.adam.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.adam)
        self.scaler.update()

    def state_dict(self) -> dict:
        """Return everything that a bit-for-bit continuation needs, as tensors and numbers."""
        return {
            "adam": self.adam.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(self.device) if self.on_cuda else None,
        }

    def load_state_dict(self, state: dict, step: int) -> None:
        """Take up where `state_dict` left off, `step` steps done."""
        groups = self.adam.state_dict()["param_groups"]  # this device's, not the former one's
        self.adam.load_state_dict({"state": state["adam"]["state"], "param_groups": groups})
        for group in self.adam.param_groups:
            group["lr"] = self._rate(step)
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if state["device_rng"] is not None and self.on_cuda:
            torch.cuda.set_rng_state(state["device_rng"], self.device)


class TrainingStep:
    """Losses, gradients and the optimiser's step, without ever waiting for the device.

    `images`, uint8 (N, 3, H, W), lie on the device. `features` are the teacher's outputs for them,
    (N, h, w, C) on the device or in pinned host memory, or None: then they are computed.
    """

    def __init__(
        self,
        detector: Detector,
        optimisation: Optimisation,
        images: torch.Tensor,
        features: torch.Tensor | None,
        batch_size: int,
        compute: Compute,
    ):
        self.optimisation, self.images, self.features = optimisation, images, features
        self.compute = compute
        device = compute.device
        self.losses, self.run = detector.losses, self._run
        if compute.compiler == "inductor":
            self.losses = compiled(detector.losses)
        elif compute.compiler == "graph" and optimisation.scaler.is_enabled():
            warn_eager("a CUDA graph of training", "fp16 scales its losses; bf16 need not")
        elif compute.compiler == "graph":
            self.run = CudaGraph(self._run)
        # What changes from step to step is copied into these, where a graph looks for it.
        self.indices = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.changes = torch.zeros(batch_size, 3, device=device)
        self.natural = None
        self.fetched = None
        if features is not None and features.device != images.device:
            self.fetched = torch.empty_like(features[:1], device=device).repeat(batch_size, 1, 1, 1)

    def __call__(
        self, indices: list[int], changes: torch.Tensor, natural: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Train on the images at `indices` with `jitter`'s `changes`; return the loss TERMS, (4,).

        `natural` is uint8 (N, 3, H, W), of one size throughout, or always None.
        """
        pinned = self.compute.pinned
        self.indices.copy_(pinned(torch.tensor(indices)), non_blocking=True)
        self.changes.copy_(pinned(changes), non_blocking=True)
        if natural is not None:
            if self.natural is None:
                self.natural = torch.empty_like(natural, device=self.compute.device)
            self.natural.copy_(natural, non_blocking=True)
        if self.fetched is not None:
            for slot, index in zip(self.fetched, indices, strict=True):
                slot.copy_(self.features[index], non_blocking=True)
        return self.run()

    def _run(self) -> torch.Tensor:
        image = self.images.index_select(0, self.indices)
        inputs = [normalise(image), normalise(jitter(image, self.changes)), None, None]
        if self.natural is not None:
            inputs[2] = normalise(self.natural)
        if self.features is not None:
            fetched = self.fetched
            if fetched is None:
                fetched = self.features.index_select(0, self.indices)
            inputs[3] = fetched.permute(0, 3, 1, 2)
        with self.compute.autocast():
            losses = self.losses(*inputs)
        self.optimisation.step(sum(losses.values()))
        zero = self.changes.new_zeros(())
        return torch.stack([losses.get(term, zero).detach() for term in TERMS])
