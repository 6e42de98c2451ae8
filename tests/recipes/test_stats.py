import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from hf_audioformer import ASTLogMelFeatureExtractor, AudioFormerFeatureExtractor, read_clips
from hf_audioformer.recipes import stats
from hf_audioformer.recipes.stats import STATS_FILE, StatsArguments, StatsClips

from ..fixtures_recipes import SAMPLING_RATE, tone


def all_frames(source: Path, extractor: ASTLogMelFeatureExtractor, fold: str | None = None) -> np.ndarray:
    clips = read_clips(source)
    kept = [index for index in range(len(clips)) if fold is None or clips.column("fold")[index] == fold]
    audio = [clips.load(index) for index in kept]
    log_mels = [extractor.log_mels(clip["array"], clip["sampling_rate"])[0] for clip in audio]
    return torch.cat(log_mels).double().numpy()


@pytest.mark.reference
def test_equals_numpy_on_all_frames_at_once(tone_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    stats.main(["--data.source", str(tone_folder), "--output_dir", str(tmp_path / "out")])
    frames = all_frames(tone_folder, ASTLogMelFeatureExtractor())
    report = json.loads((tmp_path / "out" / STATS_FILE).read_text())
    assert report["mean"] == pytest.approx(frames.mean(), rel=1e-12)
    assert report["std"] == pytest.approx(frames.std(), rel=1e-12)
    assert (report["frames"], report["clips"], report["clips_skipped"]) == (len(frames), 24, {})
    assert f"mean {frames.mean():.7f}, std {frames.std():.7f} over {len(frames)} frames" in capsys.readouterr().out
    stock = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    assert type(stock).__name__ == "ASTFeatureExtractor"
    assert (stock.mean, stock.std) == (report["mean"], report["std"])


@pytest.mark.cli
def test_counts_the_training_part_with_the_settings_of_a_checkpoint(tone_csv: Path, tmp_path: Path) -> None:
    settings = {"num_mel_bins": 40, "sampling_rate": 8000, "max_length": 77, "do_normalize": False}
    ASTLogMelFeatureExtractor(**settings).save_pretrained(tmp_path / "ast")
    config = tmp_path / "stats.yaml"
    config.write_text(f"data:\n  source: {tone_csv}\nsplit:\n  column: fold\n  values: [1]\n")
    stats.main([str(config), "--extractor", str(tmp_path / "ast"), "--output_dir", str(tmp_path / "out")])
    found = ASTLogMelFeatureExtractor.from_pretrained(tmp_path / "out")
    assert (found.num_mel_bins, found.sampling_rate, found.max_length) == (40, 8000, 77)
    assert found.do_normalize, "statistics that are measured are used"
    frames = all_frames(tone_csv, found, fold="1")
    assert (found.mean, found.std) == (pytest.approx(frames.mean(), rel=1e-12), pytest.approx(frames.std(), rel=1e-12))


@pytest.fixture
def clips_with_a_bad_one(tmp_path: Path) -> Path:
    import soundfile

    folder = tmp_path / "clips"
    for label in ("low", "high"):
        (folder / label).mkdir(parents=True)
        for index in range(4):
            soundfile.write(folder / label / f"{index}.wav", tone([label], seed=index), SAMPLING_RATE)
    (folder / "low" / "1.wav").write_bytes(b"no sound")
    return folder


@pytest.mark.fault
def test_bad_files_are_left_out_and_reported(
    clips_with_a_bad_one: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = stats.run(StatsArguments(StatsClips(str(clips_with_a_bad_one)), str(tmp_path / "out")))
    assert list(report["clips_skipped"]) == ["low/1.wav"]
    assert report["clips"] == 7
    assert "left out: clip 'low/1.wav'" in caplog.text
    with pytest.raises(ValueError, match=r"low/1\.wav.*--data\.skip_bad true leaves such clips out"):
        stats.run(StatsArguments(StatsClips(str(clips_with_a_bad_one), skip_bad=False), str(tmp_path / "other")))
    (clips_with_a_bad_one / "low" / "2.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match="2 of 8 clips cannot be used, more than 20%"):
        stats.run(StatsArguments(StatsClips(str(clips_with_a_bad_one)), str(tmp_path / "other")))
    assert not (tmp_path / "other").exists()


@pytest.mark.fault
def test_refuses_to_replace_a_preprocessor(tone_folder: Path, tmp_path: Path) -> None:
    ASTLogMelFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(FileExistsError, match="Replace it with --overwrite true"):
        stats.run(StatsArguments(StatsClips(str(tone_folder)), str(tmp_path)))
    stats.run(StatsArguments(StatsClips(str(tone_folder)), str(tmp_path), overwrite=True))
    assert ASTLogMelFeatureExtractor.from_pretrained(tmp_path).mean != ASTLogMelFeatureExtractor().mean


@pytest.mark.fault
def test_refuses_silence_and_other_models(
    tone_folder: Path, tmp_path: Path, tiny_extractor: AudioFormerFeatureExtractor
) -> None:
    import soundfile

    for index in range(2):
        (tmp_path / "clips" / str(index)).mkdir(parents=True)
        soundfile.write(tmp_path / "clips" / str(index) / "a.wav", np.zeros(1600), SAMPLING_RATE)
    with pytest.raises(ValueError, match="all frames of the clips are the same"):
        stats.run(StatsArguments(StatsClips(str(tmp_path / "clips")), str(tmp_path / "out")))
    tiny_extractor.save_pretrained(tmp_path / "audioformer", include_codec=False)
    with pytest.raises(ValueError, match="holds a AudioFormerFeatureExtractor; an AST's is needed"):
        stats.run(
            StatsArguments(StatsClips(str(tone_folder)), str(tmp_path / "out"), extractor=str(tmp_path / "audioformer"))
        )
