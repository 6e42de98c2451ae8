import math
from pathlib import Path

import pytest
import torch

from hf_audioformer.audio.io import Audio
from hf_audioformer.recipes import baseline


def tone(frequency_hz: float, sampling_rate: int, seconds: float) -> Audio:
    time = torch.arange(int(seconds * sampling_rate)) / sampling_rate
    waveform = torch.sin(2 * math.pi * frequency_hz * time) + 0.1 * torch.randn(len(time))
    return {"array": waveform.numpy(), "sampling_rate": sampling_rate}


@pytest.mark.unit
def test_log_mel_baseline_tells_tones_apart_at_any_rate_and_length() -> None:
    labels = [0, 1, 2] * 8
    pitches = [(300.0, 900.0, 2500.0)[label] for label in labels]
    train = [tone(pitch, 16000, 0.3) for pitch in pitches]
    test = [tone(pitch, 24000, 0.5) for pitch in pitches]
    assert baseline.log_mel_baseline(train, labels, test, labels) == 1.0


@pytest.mark.unit
def test_log_mel_baseline_is_chance_on_labels_without_meaning() -> None:
    noise = [tone(300.0, 16000, 0.1) for _ in range(200)]
    labels = torch.randint(4, (200,)).tolist()
    accuracy = baseline.log_mel_baseline(noise[:100], labels[:100], noise[100:], labels[100:])
    assert accuracy < 0.45


@pytest.mark.unit
def test_bag_of_codes_baseline_sees_frequencies_and_no_order() -> None:
    labels = [0, 1] * 20
    codebook_size = 8
    uneven = [torch.randint(4 * label, 4 * label + 4, (2, 30 + index)) for index, label in enumerate(labels)]
    assert baseline.bag_of_codes_baseline(uneven[:20], labels[:20], uneven[20:], labels[20:], codebook_size) == 1.0

    rising = torch.arange(codebook_size).repeat(1, 5)
    ordered = [rising.flip(-1) if label else rising for label in labels]
    assert baseline.bag_of_codes_baseline(ordered[:20], labels[:20], ordered[20:], labels[20:], codebook_size) == 0.5


@pytest.mark.reference
def test_command_reproduces_the_known_floor_on_esc10(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_AUDIOFORMER_DATA", str(data_folder))
    baseline.main(["esc10"])
    *folds, mean = capsys.readouterr().out.splitlines()
    assert len(folds) == 4
    assert float(mean.removeprefix("mean: ").removesuffix("%")) == pytest.approx(78.0, abs=2.0)
