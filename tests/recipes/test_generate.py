"""`hf-audioformer generate`: wav files of each task, and mistakes."""

import csv
from pathlib import Path

import pytest
import soundfile
import torch

from hf_audioformer import AudioFormerFeatureExtractor, AudioFormerForConditionalGeneration, cli, load_audio
from hf_audioformer.inference.generation import generate_clips
from hf_audioformer.training.checkpoints import save_final

from ..fixtures_recipes import SAMPLING_RATE, tiny_config, tone

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def generator(tiny_extractor: AudioFormerFeatureExtractor, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a random model, whose codes differ from frame to frame."""
    folder = tmp_path_factory.mktemp("generator")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = tiny_config(decoder_layers=1, tie_word_embeddings=False, initializer_range=0.2)
        save_final(AudioFormerForConditionalGeneration(config), tiny_extractor, folder)
    return str(folder)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of two clips, 0.3 and 0.2 s long."""
    folder = tmp_path / "clips"
    folder.mkdir()
    soundfile.write(folder / "long.wav", tone(["low"], seed=0, seconds=0.3), SAMPLING_RATE)
    soundfile.write(folder / "short.wav", tone(["high"], seed=1, seconds=0.2), SAMPLING_RATE)
    return folder


@pytest.mark.cli
@pytest.mark.parametrize(
    ("task", "settings", "samples", "stretch"),
    [
        ("denoise", ["--num_beams", "2"], (7200, 4800), ("0.000", "0.300")),
        ("continue", ["--seconds", "0.1", "--do_sample", "true"], (9920, 7360), ("0.307", "0.413")),
        ("inpaint", ["--start", "0.05", "--end", "0.1"], (7200, 4800), ("0.040", "0.107")),
    ],
)
def test_a_wav_of_each_clip(
    task: str,
    settings: list[str],
    samples: tuple[int, int],
    stretch: tuple[str, str],
    generator: str,
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    command = ["generate", generator, str(clips), "--task", task, "--output_dir", str(output), "--device", "cpu"]
    assert cli.main([*command, *settings]) == 0
    for name, expected in zip(("long", "short"), samples, strict=True):
        found, rate = soundfile.read(output / f"{name}.wav")
        assert (len(found), rate) == (expected, 24_000)
        assert abs(found).max() > 0
    with (output / "generated.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["generated"] for row in rows] == ["long.wav", "short.wav"]
    assert (rows[0]["task"], rows[0]["start"], rows[0]["end"]) == (task, *stretch)
    assert cli.main([*command, *settings]) == 1
    assert "holds earlier results. Replace them with --overwrite true" in capsys.readouterr().err


@pytest.mark.property
def test_only_what_is_hidden_is_generated(generator: str, clips: Path) -> None:
    model = AudioFormerForConditionalGeneration.from_pretrained(generator)
    extractor = AudioFormerFeatureExtractor.from_pretrained(generator)
    waveforms = [torch.from_numpy(load_audio(clips / f"{name}.wav", 24_000)["array"]) for name in ("long", "short")]
    own = [extractor(wave, sampling_rate=24_000, return_tensors="pt")["input_ids"][0][1:-1] for wave in waveforms]
    gap, none, more = slice(3, 7), slice(0, 0), slice(15, 20)
    together = generate_clips(model, extractor, waveforms, [gap, more])
    assert [len(found.codes) for found in together] == [23, 20]
    kept = torch.ones(23, dtype=torch.bool)
    kept[gap] = False
    assert torch.equal(together[0].codes[kept], own[0][kept])
    assert not torch.equal(together[0].codes[gap], own[0][gap])
    assert torch.equal(together[1].codes[:15], own[1])
    torch.testing.assert_close(together[0].waveform, extractor.decode(together[0].codes)[:7200])
    torch.testing.assert_close(together[0].round_trip, extractor.decode(own[0])[:7200])
    for index, hidden in enumerate((gap, more)):
        (alone,) = generate_clips(model, extractor, waveforms[index : index + 1], [hidden])
        assert torch.equal(alone.codes, together[index].codes)
    (whole,) = generate_clips(model, extractor, waveforms[:1], [none])
    assert (whole.codes != own[0]).float().mean() > 0.5


@pytest.mark.fault
def test_no_file_is_replaced_unasked_and_a_source_never(
    generator: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {path: path.read_bytes() for path in clips.iterdir()}
    command = ["generate", generator, str(clips), "--task", "denoise", "--device", "cpu", "--output_dir"]
    for folder, overwrite in ((clips, "false"), (clips, "true"), (tmp_path / "out", "false")):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "short.wav").write_bytes(b"mine")
        assert cli.main([*command, str(folder), "--overwrite", overwrite]) == 1
        assert "is there already, and" in capsys.readouterr().err
    assert (tmp_path / "out" / "short.wav").read_bytes() == b"mine"
    assert all(path.read_bytes() == content for path, content in sources.items())


@pytest.mark.fault
def test_mistakes_are_named(
    generator: str, tiny_checkpoint: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error_of(model: str, *settings: str) -> str:
        command = ["generate", model, str(clips), "--output_dir", str(tmp_path / "out"), "--device", "cpu"]
        assert cli.main([*command, "--overwrite", "true", *settings]) == 1
        return capsys.readouterr().err

    assert "AudioFormerForMaskedLM, which does not generate" in error_of(tiny_checkpoint, "--task", "denoise")
    assert "inpaint alone needs both" in error_of(generator, "--task", "inpaint", "--start", "0.1")
    assert "inpaint alone needs both" in error_of(generator, "--task", "denoise", "--end", "0.1")
    for setting, value, message in (
        ("num_beams", "0", "it must be at least 1"),
        ("temperature", "0", "it must be above 0"),
        ("temperature", "0.5", "nothing is drawn; set do_sample, too"),
        ("seconds", "nan", "it must be above 0"),
    ):
        shown = error_of(generator, "--task", "denoise", f"--{setting}", value)
        assert f"{setting} is {float(value):g}" in shown
        assert message in shown
    assert "num_beams is 2 and do_sample set" in error_of(
        generator, "--task", "denoise", "--num_beams", "2", "--do_sample", "true"
    )
    (clips / "broken.wav").write_bytes(b"RIFF")
    shown = error_of(generator, "--task", "inpaint", "--start", "0.1", "--end", "0.25")
    assert "2 of 3 clips could not be generated from" in shown
    assert "broken.wav" in shown
    assert "the gap from 0.1 to 0.25 s must lie within the clip, which has 0.20 s" in shown
    assert (tmp_path / "out" / "long.wav").exists()
