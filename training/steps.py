"""One step of training: eager, or replayed as a CUDA graph."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import torch

from data.images import jitter, normalise
from models.detector import Detector, join_losses
from training.adam import restore_adam
from utils.compilation import CudaGraph, compiles
from utils.devices import Compute

TERMS = ("hard", "autoencoder", "student_autoencoder", "penalty")


class Optimisation:
    """What changes from step to step beside the detector: optimiser, scaler, RNG."""

    def __init__(self, detector: Detector, steps: int, compute: Compute):
        self.steps, self.device, self.recipe = steps, compute.device, detector.recipe
        self.on_cuda = compute.device.type == "cuda"
        self.in_graph = compute.compiler == "graph"
        self.adam = torch.optim.Adam(
            detector.trained_parameters(),
            lr=self._group_rate(0),
            weight_decay=self.recipe.weight_decay,
            fused=True,
            capturable=self.in_graph,
        )
        half = compute.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=half)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate at `step`."""
        return self.recipe.learning_rate_at(step, self.steps)

    def _group_rate(self, step: int) -> float | torch.Tensor:
        """Return the learning rate as the optimiser wants it: a graph reads it from the device."""
        rate = self.learning_rate(step)
        return torch.tensor(rate, device=self.device) if self.in_graph else rate

    def set_learning_rate(self, step: int) -> None:
        """Set the learning rate of `step`; does nothing where it is that of the step before."""
        if self.learning_rate(step) != self.learning_rate(step - 1):
            for group in self.adam.param_groups:
                if self.in_graph:
                    group["lr"].fill_(self.learning_rate(step))
                else:
                    group["lr"] = self._group_rate(step)

    def step(self, loss: torch.Tensor) -> None:
        """Take one step down the gradient of `loss`."""
        self.adam.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.adam)
        self.scaler.update()

    def state_dict(self) -> dict:
        """Return what going on bit for bit needs beside Adam's tensors, as JSON can hold it."""
        device_rng = torch.cuda.get_rng_state(self.device) if self.on_cuda else None
        return {
            "scaler": self.scaler.state_dict(),
            "rng": as_text(torch.get_rng_state()),
            "device_rng": None if device_rng is None else as_text(device_rng),
        }

    def load_state_dict(self, adam: dict[str, torch.Tensor], state: dict) -> None:
        """Take up where `state_dict` left off, state["step"] steps done.

        `adam` is what `adam_tensors` returned.
        """
        restore_adam(self.adam, adam)
        for group in self.adam.param_groups:
            group["lr"] = self._group_rate(state["step"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(from_text(state["rng"]))
        if state["device_rng"] is not None and self.on_cuda:
            torch.cuda.set_rng_state(from_text(state["device_rng"]), self.device)


def as_text(state: torch.Tensor) -> str:
    """Write a random generator's state, uint8 (N,), as text."""
    return state.numpy().tobytes().hex()


def from_text(text: str) -> torch.Tensor:
    """Read what `as_text` wrote."""
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


def for_training(compute: Compute) -> Compute:
    """Return how to train where it differs: fp16 scales its losses, which no graph can hold."""
    if compute.compiler != "graph" or compute.precision != "fp16":
        return compute
    text = "training without a CUDA graph: fp16 scales its losses, which bf16 need not"
    warnings.warn(text, stacklevel=2)
    return replace(compute, compiler="none")


@contextmanager
def teacher_in(dtype: torch.dtype, detector: Detector) -> Iterator[None]:
    """Hold the teacher's weights in `dtype` within the block.

    Autocast would cast them at every step: it remembers those alone that need a gradient.
    """
    whole = detector.teacher
    if next(whole.parameters()).dtype != dtype:
        detector.teacher = deepcopy(whole).to(dtype)
    try:
        yield
    finally:
        detector.teacher = whole


class CapturedLosses:
    """`Detector.losses` for a CUDA graph: compiled, its two passes on streams side by side.

    A third of a step's operations are casts, which a compiler fuses with their neighbours; without
    one the graph holds them as they are.
    """

    def __init__(self, detector: Detector, device: torch.device):
        self.student_pass, self.autoencoder_pass = detector.student_pass, detector.autoencoder_pass
        if compiles(device):
            self.student_pass = torch.compile(self.student_pass, dynamic=False)
            self.autoencoder_pass = torch.compile(self.autoencoder_pass, dynamic=False)
        self.beside = torch.cuda.Stream()

    def __call__(
        self,
        image: torch.Tensor,
        jittered: torch.Tensor,
        natural: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return what `Detector.losses` does."""
        here = torch.cuda.current_stream()
        self.beside.wait_stream(here)
        with torch.cuda.stream(self.beside):
            autoencoder = self.autoencoder_pass(jittered)
        student = self.student_pass(image, jittered, natural, features)
        here.wait_stream(self.beside)
        jittered.record_stream(self.beside)  # or its memory could be given away too early
        for tensor in autoencoder:
            tensor.record_stream(here)
        return join_losses(student, autoencoder)


@dataclass
class Inputs:
    """What a step reads, always in the same memory, where a CUDA graph looks for it.

    All on the device, but `features` may be in pinned host memory; then `fetched` has the step's.
    """

    images: torch.Tensor  # uint8 (N, 3, H, W)
    features: torch.Tensor | None  # the teacher's of the images, (N, h, w, C)
    indices: torch.Tensor  # of the step's images, (B,)
    changes: torch.Tensor  # see `jitter`, (B, 3)
    natural: torch.Tensor | None = None  # uint8 (B, 3, H, W)
    fetched: torch.Tensor | None = None  # (B, h, w, C)

    def step_features(self) -> torch.Tensor | None:
        """Return the teacher's features of the step's images, (B, C, h, w)."""
        if self.features is None:
            return None
        fetched = self.fetched
        if fetched is None:
            fetched = self.features.index_select(0, self.indices)
        return fetched.permute(0, 3, 1, 2)


def take_step(
    inputs: Inputs, optimisation: Optimisation, compute: Compute, losses: Callable
) -> torch.Tensor:
    """Compute losses and gradients, take the optimiser's step; return the loss TERMS, (4,)."""
    image = inputs.images.index_select(0, inputs.indices)
    jittered = jitter(image, inputs.changes)
    natural = None if inputs.natural is None else normalise(inputs.natural)
    with compute.autocast():
        terms = losses(normalise(image), normalise(jittered), natural, inputs.step_features())
    optimisation.step(sum(terms.values()))
    zero = inputs.changes.new_zeros(())
    return torch.stack([terms.get(term, zero).detach() for term in TERMS])


class TrainingStep:
    """A step of training that never waits for the device.

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
        device, self.compute = compute.device, compute
        self.inputs = Inputs(
            images,
            features,
            torch.zeros(batch_size, dtype=torch.long, device=device),
            torch.zeros(batch_size, 3, device=device),
        )
        if features is not None and features.device != images.device:
            shape = (batch_size, *features.shape[1:])
            self.inputs.fetched = torch.empty(shape, dtype=features.dtype, device=device)
        step = partial(take_step, self.inputs, optimisation, compute)
        self.run = self.eager = partial(step, detector.losses)
        if compute.compiler == "graph":
            self.run = CudaGraph(partial(step, CapturedLosses(detector, device)))

    def __call__(
        self, indices: list[int], changes: torch.Tensor, natural: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Train on the images at `indices` with `jitter`'s `changes`; return the loss TERMS, (4,).

        `natural` is uint8 (N, 3, H, W), of one size throughout, or always None.
        """
        inputs, pinned = self.inputs, self.compute.pinned
        inputs.indices.copy_(pinned(torch.tensor(indices)), non_blocking=True)
        inputs.changes.copy_(pinned(changes), non_blocking=True)
        if natural is not None:
            if inputs.natural is None:
                inputs.natural = torch.empty_like(natural, device=self.compute.device)
            inputs.natural.copy_(natural, non_blocking=True)
        if inputs.fetched is not None:
            for slot, index in zip(inputs.fetched, indices, strict=True):
                slot.copy_(inputs.features[index], non_blocking=True)
        return self.run()
