from pathlib import Path

import pytest

from hf_audioformer.recipes import baseline


@pytest.mark.reference
def test_command_reproduces_the_known_floor_on_esc10(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_AUDIOFORMER_DATA", str(data_folder))
    baseline.main(["esc10"])
    *folds, mean = capsys.readouterr().out.splitlines()
    assert len(folds) == 4
    assert float(mean.removeprefix("mean: ").removesuffix("%")) == pytest.approx(78.0, abs=2.0)
