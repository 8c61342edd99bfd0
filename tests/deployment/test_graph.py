"""The graph: it resizes as PIL does, and says what the detector says."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from data.images import resize
from deployment.graph import ScoringGraph
from deployment.resizing import enlarged, resized, taps, triangles
from scoring.scorer import Scorer
from tests.conftest import disagreeing_detector
from utils.devices import Compute

SIZES = [(64, 64), (97, 31), (256, 256), (200, 300), (1, 5)]  # height, width, that is wanted


def photograph(height: int, width: int) -> np.ndarray:
    """Return edges, ramps and noise, uint8 (H, W, 3)."""
    rng = np.random.default_rng(height)
    ramp = np.linspace(0, 255, width)[None, :, None] * np.array([1, 0.5, 0.2])
    image = np.broadcast_to(ramp, (height, width, 3)) + rng.normal(0, 25, (height, width, 3))
    image[height // 4 : height // 2, width // 3 :] = (255, 0, 128)
    return image.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("source", [(240, 180), (75, 300), (64, 64), (1, 7), (901, 333)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_images_are_resized_as_by_pil_up_and_down(source, size):
    image = photograph(*source)
    pil = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    ours = resized(torch.from_numpy(image)[None], taps(source, size, 2))
    assert np.array_equal(ours[0].permute(1, 2, 0).numpy(), np.asarray(pil))
    nearly = resized(torch.from_numpy(image)[None], taps(source, size, 1))
    assert (nearly - ours).abs().max() <= 1
    assert (nearly != ours).float().mean() < 0.4  # it is rounded once


def test_weights_are_pils_triangle_worked_by_hand():
    # 4 pixels to 2: centres at 1 and 3, each reaching 2 pixels: 1.5, 1.5, 0.5 of 3.5 and none
    places, weights = triangles(4, 2)
    by_pixel = torch.zeros(2, 4, dtype=torch.int32).index_add(1, places[0], weights[0, :2])
    expected = torch.tensor([[3, 3, 1, 0], [0, 1, 3, 3]])
    assert torch.equal(by_pixel * 7, by_pixel.sum(1, keepdim=True) * expected)


@pytest.mark.parametrize("size", [(64, 64), (97, 31), (5, 1)], ids=str)
def test_a_map_is_enlarged_as_by_torch(size):
    maps = torch.rand(2, 11, 14)
    theirs = torch.nn.functional.interpolate(maps[:, None], size, mode="bilinear")[:, 0]
    assert torch.allclose(enlarged(maps, size), theirs, atol=1e-5)


@pytest.fixture(scope="module")
def graph() -> ScoringGraph:
    """Of two networks, with nine good images' scores."""
    detector = disagreeing_detector("glae", (64, 96))
    detector.good_scores = torch.linspace(0.1, 0.9, 9).expand(3, 9)
    return ScoringGraph(detector.eval(), (64, 96)).eval()


def test_of_networks_alone_it_gives_the_scorers_score_and_map(graph):
    image = photograph(120, 90)
    seen = resize(Image.fromarray(image), graph.size)[None]
    scores, maps = Scorer(graph.detector, Compute(torch.device("cpu"))).score(seen, [(120, 90)])
    found = graph(torch.from_numpy(image)[None])
    assert "experts" not in found
    assert torch.allclose(found["score"], scores, rtol=1e-4)
    assert torch.allclose(found["anomaly_map"], maps[0], rtol=1e-3, atol=1e-4)
    assert found["score"] == found["anomaly_map"].max()


def test_the_p_value_is_scipys_of_a_rank_and_the_verdict_is_by_the_threshold(graph):
    images = torch.from_numpy(np.stack([photograph(80, 70), 255 - photograph(80, 70)]))
    score = graph(images)["score"]
    for threshold, anomalous in ((score.min() - 1, True), (score.max(), False)):
        graph.detector.threshold.copy_(threshold)
        graph.detector.good_scores = torch.tensor([[-1.0, *score.tolist(), 1e9]]).sort().values
        found = graph(images)
        assert found["anomalous"].tolist() == [anomalous, anomalous]
    good = graph.detector.good_scores[0].numpy()
    below = [stats.percentileofscore(good, s, "strict") / 100 * len(good) for s in score.numpy()]
    assert found["p_value"].numpy() == pytest.approx((1 + len(good) - np.array(below)) / 5)


def test_a_score_that_is_no_number_is_not_called_good(graph):
    graph.detector.threshold.copy_(torch.tensor(float("nan")))
    assert graph(torch.zeros(1, 9, 9, 3, dtype=torch.uint8))["anomalous"].item()
