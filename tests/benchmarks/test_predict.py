"""The benchmark of a prediction goes through every step, on a real file."""

import sys

from benchmarks.network import predict


def test_every_step_from_the_file_to_its_segmentation_is_timed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["predict", "--size", "64", "--repeats", "1"])
    predict.main()
    lines = capsys.readouterr().out.splitlines()
    seconds = {line[:28].strip(): line[28:].split() for line in lines}
    assert float(seconds["DICOM SEG"][0]) > 0
    assert float(seconds["from file to SEG"][0]) > float(seconds["six pictures"][0])
