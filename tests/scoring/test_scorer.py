"""Scoring: a detector made ready for it gives the detector's own scores and maps."""

from dataclasses import replace

import pytest
import torch

from data.catalog import read_category
from data.images import normalise
from evaluation import maps
from evaluation.evaluation import measure_scored
from models.building import build_detector
from scoring import scorer as scoring
from scoring import stream
from scoring.scorer import Scorer
from tests.conftest import disagreeing_detector, make_mvtec_ad
from utils.devices import Compute

CPU = Compute(torch.device("cpu"))
SIZE = (64, 80)
ORIGINAL = (90, 130)


@pytest.fixture(params=["glae", "efficientad"])
def detector(request):
    detector = disagreeing_detector(request.param, SIZE).eval()
    detector.student_quantiles.copy_(torch.tensor([0.2, 0.9]))
    detector.autoencoder_quantiles.copy_(torch.tensor([0.1, 0.3]))
    return detector


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, *SIZE), dtype=torch.uint8, generator=generator)


def assert_same(found: tuple, expected: tuple, tolerance: float = 1e-4) -> None:
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)


def assert_same_maps(scorer: Scorer, detector, images: torch.Tensor) -> None:
    expected = detector.maps(normalise(images))
    assert_same(scorer.look(images).maps.values(), expected.values())


def test_scores_and_maps_are_the_detectors(detector, images):
    scorer = Scorer(detector, CPU)
    scores, maps = scorer.score(images, [ORIGINAL] * 3)
    assert_same((scores, torch.stack(maps)), detector.score(normalise(images), ORIGINAL))
    assert_same_maps(scorer, detector, images)


def test_images_of_several_sizes_are_scored_together_each_at_its_own(detector, images):
    sizes = [ORIGINAL, (40, 30), ORIGINAL]
    scores, maps = Scorer(detector, CPU).score(images, sizes)
    assert [tuple(found.shape) for found in maps] == sizes
    for image, size, score, found in zip(images, sizes, scores, maps, strict=True):
        alone, expected = detector.score(normalise(image[None]), size)
        assert_same((score[None], found[None]), (alone, expected))


def test_one_at_a_time_or_together_they_are_the_same(detector, images):
    scorer = Scorer(detector, CPU)
    scores, maps = scorer.score(images, [ORIGINAL] * 3)
    for image, score, found in zip(images, scores, maps, strict=True):
        alone, (expected,) = scorer.score(image[None], [ORIGINAL])
        assert_same((score[None], found), (alone, expected))


def test_folding_takes_the_normalisation_into_the_teacher(detector, images):
    folded = detector.for_scoring()
    plain = detector.describe(normalise(images))
    torch.testing.assert_close(folded.teacher(normalise(images)), plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(folded.describe(normalise(images)), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", ["small", "medium"])
def test_folding_twice_is_folding_once_and_leaves_the_detector_alone(size):
    torch.manual_seed(0)
    detector = build_detector("glae", size, SIZE)
    detector.teacher_mean.normal_()
    detector.teacher_std.uniform_(0.5, 2)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    once = detector.for_scoring()
    twice = once.for_scoring()
    for name, tensor in once.state_dict().items():
        assert torch.equal(tensor, twice.state_dict()[name]), name
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert any(parameter.requires_grad for parameter in detector.parameters())
    assert not any(parameter.requires_grad for parameter in once.parameters())


def test_half_precision_is_near_and_its_maps_are_float32(detector, images):
    scorer = Scorer(detector, replace(CPU, precision="bf16"))
    expected = detector.maps(normalise(images))
    for name, ours in scorer.look(images).maps.items():
        plain = expected[name]
        assert ours.dtype == torch.float32
        assert (ours - plain).abs().mean() < 0.02 * plain.std()
    state = scorer.detector.state_dict()
    assert state["student.0.weight"].dtype == torch.bfloat16
    for name in ("student_quantiles", "autoencoder_quantiles", "threshold"):
        assert torch.equal(state[name], detector.state_dict()[name])


def test_a_graph_serves_batches_of_any_size_and_its_maps_outlive_the_next(
    detector, images, monkeypatch
):
    """Without CUDA a function that reuses its result's memory, as a replay does, stands for it."""

    class Reusing:
        def __init__(self, function):
            self.function, self.result, self.calls = function, None, 0

        def __call__(self):
            self.calls += 1
            fresh = self.function()
            if self.result is None:
                self.result = fresh
            for held, new in zip(self.result, fresh, strict=True):
                for name, tensor in new.items():
                    held[name].copy_(tensor)
            return self.result

    monkeypatch.setattr(scoring, "CudaGraph", Reusing)
    scorer = Scorer(detector, replace(CPU, compiler="graph", scoring_batch_size=2))
    batches = (images[:2], images[1:], images[2:])
    found = [scorer.look(batch).raw for batch in batches]
    assert scorer.graph.calls == 3
    for batch, distances in zip(batches, found, strict=True):  # the last batch is not full
        expected = detector.distances(normalise(batch))
        assert_same(distances.values(), expected.values())
    assert_same_maps(scorer, detector, images[:1])


@pytest.mark.gpu
def test_a_gpu_replays_the_scoring_and_gives_the_same_maps(detector, images):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda")
    detector = detector.to(device)
    graph, plain = (
        Scorer(detector, Compute(device, "fp32", compiler, scoring_batch_size=2))
        for compiler in ("graph", "none")
    )
    graph.warm_up(SIZE)
    for batch in (images[:2], images[2:]):  # another number may be another algorithm
        assert_same(graph.look(batch).maps.values(), plain.look(batch).maps.values(), 1e-2)


@pytest.mark.parametrize(("compiler", "calls"), [("none", 1), ("graph", 4)])
def test_warming_up_runs_what_is_timed_later(detector, monkeypatch, compiler, calls):
    """Three calls before a capture, and the capture: afterwards a graph is only replayed."""
    seen = []
    monkeypatch.setattr(scoring, "CudaGraph", lambda function: function)
    real = scoring.look

    def counted(detector, images):
        seen.append(images.shape)
        return real(detector, images)

    monkeypatch.setattr(scoring, "look", counted)
    Scorer(detector, replace(CPU, compiler=compiler, scoring_batch_size=2)).warm_up(SIZE)
    assert seen == [(2, 3, *SIZE)] * calls


def test_a_map_that_cannot_be_written_stops_the_scoring_with_its_error(tmp_path, monkeypatch):
    make_mvtec_ad(tmp_path / "ad", "bottle")
    category = read_category("mvtec_ad", tmp_path / "ad", "bottle", seed=0)
    scorer = Scorer(disagreeing_detector("glae", SIZE), CPU)
    real, written = maps.tifffile.imwrite, []

    def full(path, scores):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path)
        real(path, scores)

    monkeypatch.setattr(maps.tifffile, "imwrite", full)
    with pytest.raises(OSError, match="No space left"):
        maps.write_maps(maps.warmed_up(scorer, SIZE), category, 1, tmp_path / "maps", {}, {})
    assert len(list((tmp_path / "maps").rglob("*.tiff"))) == 2
    assert not list((tmp_path / "maps").rglob("*.part"))


def test_the_time_of_an_image_is_the_median_after_a_warm_up(tmp_path, monkeypatch):
    """The first batch of a session takes long for reasons that are not the detector's."""
    make_mvtec_ad(tmp_path / "ad", "bottle")
    category = read_category("mvtec_ad", tmp_path / "ad", "bottle", seed=0)
    scorer = Scorer(disagreeing_detector("glae", SIZE), replace(CPU, scoring_batch_size=2))
    order, clock = [], iter([0, 90, 100, 102, 200, 206])  # three batches of two
    for name in ("warm_up", "resized"):
        real = getattr(scorer, name)
        monkeypatch.setattr(
            scorer, name, lambda *a, real=real, name=name: (order.append(name), real(*a))[1]
        )
    monkeypatch.setattr(stream.time, "perf_counter", lambda: next(clock))
    score = maps.warmed_up(scorer, SIZE)
    scores: maps.Scores = {}
    *_, seconds = measure_scored(score, category, 1, tmp_path / "maps", {}, scores)
    assert order == ["warm_up", "resized", "resized", "resized"]
    assert [scores[sample.image].seconds for sample in category.test] == [45, 45, 1, 1, 3, 3]
    assert seconds == 3.0
