"""A training step: no way of computing it faster changes what it computes."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from data.images import draw_jitter, jitter, normalise
from models.detector import TEACHER_CHANNELS, build_detector, hard_feature_loss
from models.pdn import PDNS
from tests.playing_cuda import play_cuda
from training import steps
from training.features import describe_training_images
from training.loop import batch_indices
from training.steps import TERMS, CapturedLosses, Optimisation, TrainingStep, teacher_in
from utils.devices import Compute

CPU = Compute(torch.device("cpu"))
SIZE = (64, 72)


def some_images(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=generator)


def new_detector(model: str = "glae", size: str = "small"):
    torch.manual_seed(1)
    teacher = PDNS[size]()
    for parameter in teacher.parameters():
        parameter.data *= 2
    return build_detector(model, size, SIZE, teacher.eval()).train()


def steps_of(detector) -> int:
    """Return how many steps are compared: one of medium networks takes four times as long."""
    return 20 if detector.teacher[0].out_channels == 128 else 12


def without_dropout(detector):
    """Where its random numbers fall depends on how the work is laid out."""
    for module in detector.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return detector


def losses_of(
    detector, compute: Compute = CPU, budget: int = 64, batch_size: int = 2, penalty: bool = True
) -> np.ndarray:
    """Return the loss terms of the first steps, (steps, 4)."""
    images = some_images(5)
    compute.place(detector)
    features = describe_training_images(detector, images, compute, budget)
    assert (features is None) == (budget == 0)
    optimisation = Optimisation(detector, steps_of(detector), compute)
    train = TrainingStep(detector, optimisation, images, features, batch_size, compute)
    torch.manual_seed(2)  # dropout
    terms = []
    for step in range(steps_of(detector)):
        changes = draw_jitter(batch_size, np.random.default_rng((3, step)))
        optimisation.set_learning_rate(step)
        natural = some_images(batch_size, seed=10 + step) if penalty else None
        terms.append(train(batch_indices(step, batch_size, 5, seed=4), changes, natural).numpy())
    return np.stack(terms)


KINDS = [("glae", "small"), pytest.param(("efficientad", "medium"), marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=KINDS, ids=str)
def kind(request) -> tuple[str, str]:
    return request.param


@pytest.fixture(scope="module")
def plain(kind) -> np.ndarray:
    """The losses by the ways that are usual: features kept, eager, channels last, fp32."""
    return losses_of(new_detector(*kind))


def test_losses_change_from_step_to_step(plain):
    assert (plain > 0).all()
    assert all((before != after).all() for before, after in pairwise(plain))


def assert_same_in_every_step(kind, make_twin) -> None:
    """Check at each of the first steps that two ways give the same losses for the same weights.

    Left to themselves they may drift apart by their last bits, see `assert_near`. Without dropout:
    the second way would draw other numbers. `make_twin` makes it of the detector.
    """
    detector, pairs = without_dropout(new_detector(*kind)), []
    plain, twin = detector.losses, make_twin(detector)

    def both(*inputs):
        losses = plain(*inputs)
        pairs.append([[way[term].item() for term in TERMS] for way in (losses, twin(*inputs))])
        return losses

    detector.losses = both
    losses_of(detector)
    assert len(pairs) == steps_of(detector)
    ours, twins = np.array(pairs).swapaxes(0, 1)
    np.testing.assert_allclose(ours, twins, rtol=1e-5)


def assert_near(losses: np.ndarray, plain: np.ndarray, first: float, later: float) -> None:
    """Check the first step's losses, and how far the terms' means over all the steps are apart.

    Sums in another order differ in their last bits; Adam's first updates, which depend on the sign
    of a gradient alone, make more of that where a gradient is nearly 0.
    """
    np.testing.assert_allclose(losses[0], plain[0], rtol=first)
    np.testing.assert_allclose(losses.mean(0), plain.mean(0), rtol=later)


def test_features_kept_or_computed_at_every_step_give_the_same_losses(kind, plain):
    def computed(detector):
        losses = detector.losses
        return lambda image, jittered, natural, features: losses(image, jittered, natural)

    assert_same_in_every_step(kind, computed)
    assert_near(losses_of(new_detector(*kind), budget=0), plain, first=1e-5, later=5e-2)


def test_features_that_are_fetched_from_elsewhere_give_the_same_losses(kind, plain, monkeypatch):
    """On a GPU they may lie in the host's memory; here a copy between two places stands for it."""
    real = TrainingStep.__init__

    def elsewhere(self, *arguments):
        real(self, *arguments)
        self.inputs.fetched = torch.empty_like(self.inputs.features[:2])

    monkeypatch.setattr(TrainingStep, "__init__", elsewhere)
    assert (losses_of(new_detector(*kind)) == plain).all()


def published(detector):
    """Return the published losses: a pass of each network for each input, all 2 C channels."""

    def losses(image, jittered, natural, features):
        distance = (detector.describe(image) - detector.student(image)[:, :TEACHER_CHANNELS]) ** 2
        reconstructed = detector.autoencoder(jittered)
        as_autoencoder = detector.student(jittered)[:, TEACHER_CHANNELS:]
        return {
            "hard": distance[distance >= torch.quantile(distance, 0.999)].mean(),
            "autoencoder": F.mse_loss(detector.describe(jittered), reconstructed),
            "student_autoencoder": F.mse_loss(as_autoencoder, reconstructed),
            "penalty": detector.student(natural)[:, :TEACHER_CHANNELS].square().mean(),
        }

    return losses


def test_the_whole_student_and_its_halves_give_the_same_losses(kind, plain):
    assert_same_in_every_step(kind, published)
    detector = new_detector(*kind)
    detector.losses = published(detector)
    assert_near(losses_of(detector), plain, first=1e-5, later=5e-2)


@pytest.fixture
def streams(monkeypatch):
    """Play the streams that a capture forks and joins; returns the tensors noted for each."""
    play_cuda(monkeypatch)
    noted = []
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *pair: noted.append(pair))
    return noted


@pytest.mark.slow
def test_the_losses_of_a_graph_are_compiled_and_the_same(kind, streams, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(steps, "find_spec", lambda _: True)
    assert_same_in_every_step(kind, CapturedLosses)


def test_the_autoencoders_pass_runs_beside_the_students_and_is_waited_for(streams, monkeypatch):
    monkeypatch.setattr(steps, "find_spec", lambda _: None)  # no compiler: as they are
    detector = without_dropout(new_detector())
    losses = CapturedLosses(detector)
    image, jittered, natural = (normalise(some_images(2, seed)) for seed in range(3))
    found = losses(image, jittered, natural)
    expected = detector.losses(image, jittered, natural)
    assert list(found) == list(expected) == list(TERMS)
    assert all(torch.equal(found[term], expected[term]) for term in TERMS)
    here = torch.cuda.current_stream()
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


def test_half_precision_stays_near(kind, plain):
    losses = losses_of(new_detector(*kind), replace(CPU, precision="bf16"))
    assert_near(losses, plain, first=0.01, later=0.1)


def test_without_natural_images_the_penalty_is_0(kind):
    losses = losses_of(new_detector(*kind), penalty=False)
    assert (losses[:, TERMS.index("penalty")] == 0).all()
    assert (losses[:, :3] > 0).all()


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 0.05)])
def test_a_gpu_replays_the_step_and_gives_the_same_losses(kind, precision, tolerance):
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
        for step in range(steps_of(detector)):
            changes = draw_jitter(1, np.random.default_rng((3, step)))
            optimisation.set_learning_rate(step)
            terms.append(train([step % 5], changes, some_images(1, step)).cpu().numpy())
        return np.stack(terms)

    np.testing.assert_allclose(losses("graph"), losses("none"), rtol=tolerance)


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
    monkeypatch.setattr(steps, "CapturedLosses", lambda detector: detector.losses)
    detector, images = new_detector(), some_images(5)
    compute = replace(CPU, compiler="graph")
    train = TrainingStep(detector, Optimisation(detector, 4, compute), images, None, 1, compute)
    for step in range(4):
        train([step], draw_jitter(1, np.random.default_rng(step)), some_images(1, step))
    assert len(places) == 4
    assert all(place == places[0] for place in places)


@pytest.mark.parametrize("budget", [0, 64])
def test_every_step_reads_its_own_images_changes_and_natural_images(budget):
    detector, images = without_dropout(new_detector()), some_images(5)
    features = describe_training_images(detector, images, CPU, budget)
    train = TrainingStep(detector, Optimisation(detector, 4, CPU), images, features, 2, CPU)
    for step in range(4):
        indices, natural = [step, (3 * step + 1) % 5], some_images(2, 20 + step)
        changes = draw_jitter(2, np.random.default_rng(step))
        batch = images[indices]
        inputs = (batch, jitter(batch, changes), natural)
        with torch.no_grad():
            expected = detector.losses(*map(normalise, inputs))
        terms = train(indices, changes, natural)
        assert terms.tolist() == pytest.approx([expected[term].item() for term in TERMS], rel=1e-4)


def test_fp16_is_trained_eagerly_and_that_is_said():
    detector, compute = new_detector(), Compute(torch.device("cpu"), "fp16", "graph")
    optimisation = Optimisation(detector, 4, compute)
    if not optimisation.scaler.is_enabled():
        pytest.skip("this torch scales losses on CUDA alone")
    with pytest.warns(UserWarning, match="fp16"):
        train = TrainingStep(detector, optimisation, some_images(2), None, 1, compute)
    assert train.run is train.eager


def test_the_hard_loss_sees_the_kept_features(kind):
    """With the student's own first half as the teacher's features there is nothing hard."""
    detector = new_detector(*kind).eval()
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = detector.student(image)[:, :TEACHER_CHANNELS]
    none = detector.losses(image, image, features=features)["hard"]
    assert none.item() == pytest.approx(0, abs=1e-9)
    some = detector.losses(image, image, features=features + 2)["hard"]
    assert some.item() == pytest.approx(hard_feature_loss(torch.full((2000,), 4.0)).item())
