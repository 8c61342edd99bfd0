"""A student in closed form: the regression, what it is fitted to, how a training ends with it."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

import main
from data.images import normalise
from data.samples import InputError
from models.recipe import Recipe
from tests.running_main import ALL, arguments, run_main
from tests.training.fitting import (
    COMPUTE,
    fit_to,
    losses_of,
    new_detector,
    run_in,
    same,
    some_images,
)
from tests.training.test_resuming import stop_after
from training import closed_form
from training.closed_form import RidgeRegression, fit_student
from training.preparation import check
from training.steps import CapturedLosses
from utils.presets import parse
from utils.runs import Run

IN_CLOSED_FORM = Recipe(ridge=1e-4)


def detector_in_closed_form(size: str = "small"):
    detector = new_detector(size)
    detector.recipe = IN_CLOSED_FORM
    return detector


def patches_and_targets(detector, images) -> tuple[np.ndarray, np.ndarray]:
    """Cut each place's input of the student's last layer out by hand, place by place."""
    side = detector.student[-1].kernel_size[0]
    inputs, outputs = [], []
    with torch.no_grad():
        for image in normalise(images).split(1):
            hidden = detector.student[:-1](image)[0]
            own = torch.cat([detector.describe(image), detector.autoencoder(image)], 1)[0]
            for y in range(own.shape[1]):
                for x in range(own.shape[2]):
                    inputs.append(hidden[:, y : y + side, x : x + side].flatten().numpy())
                    outputs.append(own[:, y, x].numpy())
    return np.stack(inputs).astype(np.float64), np.stack(outputs).astype(np.float64)


def test_the_regression_is_scikit_learns_however_the_samples_come():
    rng = np.random.default_rng(0)
    inputs = rng.normal(1, 2, (200, 7)).astype(np.float32)
    outputs = (inputs @ rng.normal(size=(7, 3)) + rng.normal(3, 1, (200, 3))).astype(np.float32)
    regression = RidgeRegression()
    for part in (slice(0, 1), slice(1, 150), slice(150, 200)):
        regression.add(torch.from_numpy(inputs[part]), torch.from_numpy(outputs[part]))
    weight, intercept = regression.solve(0.01)
    twin = Ridge(alpha=0.01 * len(inputs) * inputs.var(0).mean()).fit(inputs, outputs)
    np.testing.assert_allclose(weight.numpy(), twin.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(intercept.numpy(), twin.intercept_, rtol=1e-4)


@pytest.mark.parametrize("size", ["small", pytest.param("medium", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kept", [True, False])
def test_the_last_layer_is_the_regression_of_all_places_onto_both_networks(size, kept):
    """On more samples than a layer has inputs, and on fewer."""
    detector, images = detector_in_closed_form(size).eval(), some_images()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    inputs, outputs = patches_and_targets(detector, images)
    features = None
    if kept:
        with torch.no_grad():
            features = detector.teacher(normalise(images)).permute(0, 2, 3, 1)
    fit_student(detector, images, features, COMPUTE, seed=0)
    after = detector.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    last = len(detector.student) - 1
    assert changed == {f"student.{last}.weight", f"student.{last}.bias"}
    twin = Ridge(alpha=1e-4 * len(inputs) * inputs.var(0).mean()).fit(inputs, outputs)
    with torch.no_grad():
        found = detector.student(normalise(images)).permute(0, 2, 3, 1).reshape(outputs.shape)
    np.testing.assert_allclose(found.numpy(), twin.predict(inputs), atol=2e-3)


def test_of_many_places_some_are_drawn_anew_for_each_seed(monkeypatch):
    monkeypatch.setattr(closed_form, "PLACES", 40)
    seen = []
    real = RidgeRegression.add
    monkeypatch.setattr(
        RidgeRegression, "add", lambda *given: (seen.append(len(given[1])), real(*given))
    )
    states = []
    for seed in (0, 0, 1):
        detector = detector_in_closed_form()
        fit_student(detector, some_images(), None, COMPUTE, seed)
        states.append(detector.state_dict())
    assert seen == [40] * 3
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_steps_train_the_autoencoder_alone(tmp_path):
    run, detector, drawn = run_in(tmp_path), detector_in_closed_form(), detector_in_closed_form()
    fit_to(detector, run)
    for name, parameter in drawn.student[:-1].named_parameters():
        assert torch.equal(parameter, detector.student.get_parameter(name))
    assert not torch.equal(drawn.student[-1].weight, detector.student[-1].weight)
    trained = dict(detector.autoencoder.named_parameters())
    assert not any(torch.equal(p, trained[n]) for n, p in drawn.autoencoder.named_parameters())
    for row in losses_of(run):
        assert row["total"] == row["autoencoder"] != ""
        assert row["hard"] == row["student_autoencoder"] == row["penalty"] == ""


def test_an_interrupted_training_ends_bit_for_bit_like_one_that_was_not(tmp_path, monkeypatch):
    whole = detector_in_closed_form()
    fit_to(whole, run_in(tmp_path / "whole"))
    run = run_in(tmp_path / "parts")
    with monkeypatch.context() as patch:
        stop_after(4, patch)
        with pytest.raises(KeyboardInterrupt, match="step 4"):
            fit_to(detector_in_closed_form(), run)
    torch.manual_seed(99)
    with monkeypatch.context() as patch:  # and once more, when the steps are done
        patch.setattr("training.loop.fit_student", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit_to(detector_in_closed_form(), run)
    resumed = detector_in_closed_form()
    fit_to(resumed, run)
    assert same(whole.state_dict(), resumed.state_dict())


def interrupted(*_) -> None:
    raise KeyboardInterrupt


def test_a_graphs_losses_are_the_same(monkeypatch):
    from tests.playing_cuda import play_cuda

    play_cuda(monkeypatch)
    monkeypatch.setattr("training.steps.compiles", lambda _: False)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    detector = detector_in_closed_form().eval()
    batch = normalise(some_images(2))
    found = CapturedLosses(detector, COMPUTE.device)(batch, batch)
    assert [*found] == ["autoencoder"]
    assert torch.equal(found["autoencoder"], detector.losses(batch, batch)["autoencoder"])


def test_a_whole_run_goes_on_from_its_checkpoint_to_the_same_detector(
    product, teacher, tmp_path, capsys
):
    what = arguments(product, teacher, tmp_path, *ALL, "--ridge", "0.001")
    assert run_main(*what) == 0
    assert "penalty" not in capsys.readouterr().err
    file = Run(tmp_path, "folder", "bolt").detector_file
    whole = file.read_bytes()
    file.unlink()
    assert run_main(*what, "--resume") == 0
    assert file.read_bytes() == whole


def test_a_student_in_closed_form_has_no_penalty(tmp_path):
    argv = ["--ridge", "0.0001", "--imagenet_train_path", str(tmp_path)]
    with pytest.raises(InputError, match=r"^--imagenet_train_path: .*\(--ridge\) has no penalty"):
        check(parse(main.get_parser(), argv))


def test_the_fast_preset_is_read():
    options = parse(main.get_parser(), ["--config", "configs/fast.yaml"])
    assert options.ridge == 1e-3
