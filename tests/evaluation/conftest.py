"""Made-up results of one run and of three."""

import pytest

from tests.evaluation.made_up import made_up


@pytest.fixture
def one_run() -> dict[str, dict[str, dict]]:
    """Make two datasets of two categories; one of them lacks a number."""
    return {
        "mvtec_loco": {
            "screw_bag": made_up("mvtec_loco", 1),
            "juice_bottle": made_up("mvtec_loco", 2, missing="AUROC logical"),
        },
        "mvtec_ad": {"bottle": made_up("mvtec_ad", 3), "metal_nut": made_up("mvtec_ad", 4)},
    }


@pytest.fixture
def three_runs() -> list[dict[str, dict[str, dict]]]:
    """Make three runs; one category is in all of them, one in two, one in a single one."""
    runs = [{"mvtec_ad": {"bottle": made_up("mvtec_ad", seed)}} for seed in range(3)]
    runs[0]["mvtec_ad"]["cable"] = made_up("mvtec_ad", 10)
    runs[2]["mvtec_ad"]["cable"] = made_up("mvtec_ad", 11, missing="AU-PRO 0.3")
    runs[1]["mvtec_ad"]["tile"] = made_up("mvtec_ad", 12)
    return runs
