import math
from pathlib import Path

import pytest
import torch

from hf_audioformer import assets, cli
from hf_audioformer.audio.log_mel import log_mel_distance
from hf_audioformer.recipes.codec_report import codebook_perplexities
from hf_audioformer.recipes.train_codec import ARGUMENTS_FILE, TrainCodecArguments
from hf_audioformer.training.arguments import parse_config


@pytest.mark.unit
def test_perplexity_is_the_size_for_even_use_and_one_for_a_single_code() -> None:
    even, single = torch.arange(16), torch.full((16,), 3)
    codes = torch.stack([even, single])
    assert codebook_perplexities([codes[:, :7], codes[:, 7:]], 16) == pytest.approx([16, 1])


@pytest.mark.unit
def test_distance_is_the_change_of_level_in_nepers_of_power() -> None:
    original = torch.randn(24_000)
    assert log_mel_distance(original, original, 24_000) == 0
    assert log_mel_distance(10 * original, original, 24_000) == pytest.approx(math.log(100), rel=1e-3)


@pytest.mark.unit
def test_what_is_80_db_under_the_peak_does_not_count() -> None:
    original = torch.cat([torch.randn(12_000), torch.zeros(12_000)])
    noisy = original + 1e-6 * torch.randn(24_000)
    assert log_mel_distance(noisy, original, 24_000) < 1e-3


@pytest.mark.fault
def test_a_folder_without_a_codec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["codec-report", "--codec", str(tmp_path)]) == 1
    assert f"codec is {tmp_path}, which has no train_codec.yaml; name a folder" in capsys.readouterr().err


@pytest.mark.unit
def test_the_bundled_codec_can_be_reported_on() -> None:
    settings = parse_config(TrainCodecArguments, [str(Path(assets.codec_folder()) / ARGUMENTS_FILE)], description="")
    assert settings.hold_out
