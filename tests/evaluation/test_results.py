"""Files of results: read as written, earlier ones too; others are refused in one line."""

import pytest

from data.samples import ANOMALOUS, GOOD, InputError
from evaluation.results import TEST, UNLABELLED, ImageResult, read_results_file, write_results

HOSTILE = ['dent/"a, b"\u202e\n<script>.png', "d/a\rb.png", "d/a\r\nb\n\r.png", "d/\udcff.png"]
RESULTS = [
    ImageResult("good/0.png", TEST, GOOD, 0.25, 0.5, GOOD, 0.125, {"position": 0.1}),
    ImageResult("dent/0.png", TEST, "dent", 1e-30, None, ANOMALOUS, None, {"position": 3.0}),
    ImageResult("new/0.png", UNLABELLED, "new", 2.0, 0.01, ANOMALOUS, 0.5, {"position": -1.0}),
]


def test_what_is_read_is_what_was_written(tmp_path):
    results = [*RESULTS, *(RESULTS[0]._replace(image=name) for name in HOSTILE)]
    write_results(tmp_path / "results.csv", results)
    assert read_results_file(tmp_path / "results.csv") == results


def test_an_outcome_is_what_became_of_an_image_and_without_a_label_its_verdict():
    alarm = RESULTS[0]._replace(verdict=ANOMALOUS)
    missed = RESULTS[1]._replace(verdict=GOOD)
    found = [result.outcome for result in (*RESULTS, alarm, missed)]
    assert found == ["passed", "found", "anomalous", "false alarm", "missed"]


def test_a_file_of_an_earlier_version_is_all_of_the_test_set(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("image,defect,score,p_value,verdict,student\nb/1.png,b,2.5,,anomalous,7\n")
    (result,) = read_results_file(path)
    assert result == ImageResult("b/1.png", TEST, "b", 2.5, None, ANOMALOUS, None, {"student": 7.0})


@pytest.mark.parametrize(
    "text",
    [
        "image,score\na,1\n",
        "image,defect,score,p_value,verdict\na,b,high,,good\n",
        "image,defect,score,p_value,verdict\na,b,1,,maybe\n",
        "image,defect,score,p_value,verdict\na,b,1\n",
        'image,defect,score,p_value,verdict\n"a,b,1,,good\n',
        "image,defect,score,p_value,verdict\na,b,1,,good,2,3\n",
        "image,defect,score,p_value,verdict\na,b,nan,,good\n",
        "\x00\x00",
        "",
    ],
)
def test_another_file_is_named_in_one_line(tmp_path, text):
    path = tmp_path / "results.csv"
    path.write_text(text)
    with pytest.raises(InputError, match="no file of results: evaluate it again") as raised:
        read_results_file(path)
    assert str(path) in str(raised.value)
