"""Verdicts in words: how many of what are called anomalous, and when a mend is worth naming."""

import pytest

from evaluation.verdicts import tell_verdicts, verdict_text


def measured(auroc: float | None, *of: tuple[str, int, int], held_out: int = 31) -> dict:
    """Return what metrics say of verdicts: defect, images called anomalous, images called good."""
    found = {defect: {"anomalous": above, "good": below} for defect, above, below in of}
    return {
        "verdicts": found,
        "held_out": held_out,
        "false_alarm_rate": 1 / 32 if held_out else None,
        "auroc_pooled": auroc,
    }


PROMISE = ", at a threshold that 31 held-out good images set for at most 3.1 % false alarms"
MEND = (
    "; by AUROC 93.3 a lower threshold would find more: add good images (calibrate.py), "
    "or allow more false alarms (--false_alarm_rate)"
)


@pytest.mark.parametrize(
    ("ours", "text"),
    [
        (
            measured(0.933, ("broken", 0, 20), ("crack", 0, 12), ("good", 0, 14)),
            f"0 of 32 defective and 0 of 14 good test images are called anomalous{PROMISE}{MEND}",
        ),
        (
            measured(1.0, ("broken", 5, 5), ("good", 1, 13)),
            f"5 of 10 defective and 1 of 14 good test images are called anomalous{PROMISE}",
        ),
        (
            measured(0.8, ("broken", 0, 9), ("good", 0, 1)),
            f"0 of 9 defective and 0 of 1 good test images are called anomalous{PROMISE}",
        ),
        (
            measured(None, ("good", 2, 3)),
            f"2 of 5 good test images are called anomalous{PROMISE}",
        ),
        (
            measured(None, ("a", 0, 3), held_out=0),  # by a detector of an earlier version
            "0 of 3 defective test images are called anomalous",
        ),
    ],
)
def test_verdicts_are_counted_and_a_mend_is_named_where_auroc_promises_more(ours, text):
    assert verdict_text(ours) == text


def test_one_line_shows_any_name_and_there_is_none_without_labels(capsys):
    tell_verdicts("a\nb", {"glae": measured(None, ("good", 0, 1), held_out=1)})
    tell_verdicts("c", {"glae": measured(None)})
    assert capsys.readouterr().err == (
        "a b: 0 of 1 good test images are called anomalous, at a threshold that 1 held-out good "
        "image set for at most 3.1 % false alarms\n"
    )
