"""What a CUDA graph holds of a step: compiled losses, two streams, one place for every input."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from data.images import draw_jitter, normalise
from tests.playing_cuda import play_cuda
from tests.training.fitting import fit_to, run_in
from tests.training.fitting import losses_of as losses_of_run
from tests.training.fitting import new_detector as trained_detector
from tests.training.stepping import (
    CPU,
    assert_near,
    assert_same_in_every_step,
    new_detector,
    some_images,
    steps_of,
    without_dropout,
)
from training import steps
from training.features import describe_training_images
from training.steps import (
    TERMS,
    CapturedLosses,
    Optimisation,
    TrainingStep,
    for_training,
    teacher_in,
)
from utils.devices import Compute


@pytest.fixture
def streams(monkeypatch):
    """Play the streams that a capture forks and joins; returns the tensors noted for each."""
    play_cuda(monkeypatch)
    noted = []
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *pair: noted.append(pair))
    return noted


@pytest.mark.slow
def test_the_losses_of_a_graph_are_compiled_and_the_same(kind, streams):
    torch._dynamo.reset()
    counters.clear()
    assert_same_in_every_step(kind, lambda detector: CapturedLosses(detector, CPU.device))
    assert counters["stats"]["unique_graphs"] == 3  # the trial's and the two passes'
    assert not counters["graph_break"]


def noting(at: dict, name: str, function):
    """Return the function, which then notes the stream that it was called on."""

    def noted(*inputs):
        at[name] = torch.cuda.current_stream()
        return function(*inputs)

    return noted


def test_the_autoencoders_pass_runs_beside_the_students_and_is_waited_for(streams, monkeypatch):
    monkeypatch.setattr(steps, "compiles", lambda _: False)  # as they are
    detector, at = without_dropout(new_detector()), {}
    for name in ("student_pass", "autoencoder_pass"):
        monkeypatch.setattr(detector, name, noting(at, name, getattr(detector, name)))
    losses = CapturedLosses(detector, CPU.device)
    image, jittered, natural = (normalise(some_images(2, seed)) for seed in range(3))
    expected = detector.losses(image, jittered, natural)
    found = losses(image, jittered, natural)
    assert list(found) == list(expected) == list(TERMS)
    assert all(torch.equal(found[term], expected[term]) for term in TERMS)
    here = torch.cuda.current_stream()
    assert at == {"student_pass": here, "autoencoder_pass": losses.beside}
    assert losses.beside.waited == [here]
    assert here.waited == [losses.beside]
    owners = [owner for tensor, owner in streams if tensor is jittered]
    assert owners == [losses.beside]
    assert [owner for tensor, owner in streams if tensor is not jittered] == [here, here]


class Casts(TorchDispatchMode):
    """Counts the tensors of some shapes that are copied to another type."""

    def __init__(self, shapes: set[torch.Size]):
        super().__init__()
        self.shapes, self.count = shapes, 0

    def __torch_dispatch__(self, function, types, arguments=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default:
            self.count += arguments[0].shape in self.shapes
        return function(*arguments, **(kwargs or {}))


def test_the_teacher_is_cast_once_to_the_precision_and_computes_the_same():
    """Autocast casts weights that need no gradient again for every product."""
    detector, compute = new_detector(), replace(CPU, precision="bf16")
    image = normalise(some_images(2))
    shapes = {parameter.shape for parameter in detector.teacher.parameters()}
    before = detector.teacher

    def described() -> tuple[torch.Tensor, int]:
        with compute.autocast(), Casts(shapes) as casts:
            return detector.describe(image), casts.count

    plain, many = described()
    with teacher_in(compute.dtype, detector):
        cast, none = described()
    assert (many, none) == (8, 0)  # weights and biases of four layers
    assert torch.equal(cast, plain)
    assert detector.teacher is before
    assert detector.teacher[0].weight.dtype == torch.float32


def test_a_replayed_step_reads_what_was_copied_in_and_runs_the_same_operations(monkeypatch):
    """The part of a CUDA graph that can be had without CUDA: one function of fixed tensors."""

    class Recorded:
        def __init__(self, function):
            self.function = function

        def __call__(self):
            held = (train.inputs.indices, train.inputs.changes, train.inputs.natural)
            held = [tensor.data_ptr() for tensor in held]
            places.append(held)
            return self.function()

    places = []
    monkeypatch.setattr(steps, "CudaGraph", Recorded)
    monkeypatch.setattr(steps, "CapturedLosses", lambda detector, _: detector.losses)
    detector, images = new_detector(), some_images(5)
    compute = replace(CPU, compiler="graph")
    train = TrainingStep(detector, Optimisation(detector, 4, compute), images, None, 1, compute)
    for step in range(4):
        train([step], draw_jitter(1, np.random.default_rng(step), 0.2), some_images(1, step))
    assert len(places) == 4
    assert all(place == places[0] for place in places)


def test_fp16_is_trained_eagerly_and_that_is_said():
    compute = Compute(torch.device("cuda"), "fp16", "graph")
    with pytest.warns(UserWarning, match="fp16"):
        assert for_training(compute) == replace(compute, compiler="none")
    for other in (replace(compute, precision="bf16"), CPU):
        assert for_training(other) == other


@pytest.fixture
def exact_products():
    """Let a GPU multiply in full fp32, so that another order of sums is all the difference."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "first", "later"), [("fp32", 1e-3, 0.05), ("bf16", 0.03, 0.1)]
)
def test_a_gpu_replays_the_step_and_gives_the_same_losses(
    kind, exact_products, precision, first, later
):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda")

    def losses(compiler: str) -> np.ndarray:
        detector = without_dropout(new_detector(*kind)).to(device)
        images = some_images(5).to(device)
        compute = Compute(device, precision, compiler)
        features = describe_training_images(detector, images, compute, 64)
        optimisation = Optimisation(detector, steps_of(detector), compute)
        train = TrainingStep(detector, optimisation, images, features, 1, compute)
        terms = []
        with teacher_in(compute.dtype, detector):
            for step in range(steps_of(detector)):
                changes = draw_jitter(1, np.random.default_rng((3, step)), 0.2)
                optimisation.set_learning_rate(step)
                terms.append(train([step % 5], changes, some_images(1, step)).cpu().numpy())
        return np.stack(terms)

    assert_near(losses("graph"), losses("none"), first, later=0.1)


@pytest.mark.gpu
def test_a_gpu_trains_by_the_graph_with_dropout_as_without_it(tmp_path):
    """Each replay draws a mask of its own: the losses come out as eager ones do."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda")

    def means(compiler: str) -> list[float]:
        run, compute = run_in(tmp_path / compiler), Compute(device, "bf16", compiler)
        fit_to(compute.place(trained_detector()), run, compute=compute, train_steps=60)
        rows = losses_of_run(run)
        return [np.mean([float(row[term]) for row in rows]) for term in TERMS[:3]]

    np.testing.assert_allclose(means("graph"), means("none"), rtol=0.1)
