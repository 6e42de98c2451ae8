"""The feature extractor: waveforms of any kind in, codes out, and nothing wrong goes in silently."""

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
import unittest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torchaudio
from datasets.fingerprint import Hasher
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoFeatureExtractor, pipeline

from hf_audioformer import AudioFormerFeatureExtractor, AudioFormerForAudioClassification, load_audio
from hf_audioformer.assets import codec_folder
from hf_audioformer.models.audioformer.feature_extraction_audioformer import DEFAULT_CODEC_REVISION
from hf_audioformer.models.audioformer.waveform_audioformer import resample

from ...fixtures_codec import varied_sound
from . import encode_in_workers
from .tiny_models import tiny_model

NOT_FETCHED = "Transformers' common tests are not fetched; run make transformers-tests"
common = pytest.importorskip("transformers_tests.test_sequence_feature_extraction_common", reason=NOT_FETCHED)

RATE, HOP, CODES = 24_000, 320, 64
BOA, EOA, MASK, PAD = range(CODES, CODES + 4)


class AudioFormerFeatureExtractionTester:
    """What the common suite asks of an extractor's tester."""

    batch_size, min_seq_length, seq_length_diff = 7, 40, 26
    max_seq_length = min_seq_length + 5 * seq_length_diff  # one step more is the longest clip, which the suite pads to

    def __init__(self, feature_size: int):
        self.feature_size = feature_size

    def prepare_feat_extract_dict(self) -> dict[str, Any]:
        return {"num_codebooks": self.feature_size, "sampling_rate": 16_000, "return_attention_mask": True}

    def prepare_inputs_for_common(self, equal_length: bool = False, numpify: bool = False) -> list:
        step = 0 if equal_length else self.seq_length_diff
        lengths = [self.min_seq_length + step * index for index in range(self.batch_size)]
        shapes = [(length,) if self.feature_size == 1 else (length, self.feature_size) for length in lengths]
        codes = [np.random.default_rng(0).integers(CODES, size=shape) for shape in shapes]
        return codes if numpify else [clip.tolist() for clip in codes]


@pytest.mark.reference
class AudioFormerFeatureExtractionTest(common.SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = AudioFormerFeatureExtractor
    feature_size = 1

    def setUp(self):
        self.feat_extract_tester = AudioFormerFeatureExtractionTester(self.feature_size)


class AudioFormerSeveralCodebooksFeatureExtractionTest(AudioFormerFeatureExtractionTest):
    feature_size = 4


def sound(seconds: float = 0.5, seed: int = 0) -> np.ndarray:
    return varied_sound(int(seconds * RATE), seed).numpy()


def make(folder: Path | str, **kwargs: Any) -> AudioFormerFeatureExtractor:
    return AudioFormerFeatureExtractor.from_codec(folder, **kwargs)


def codes_of(extractor: AudioFormerFeatureExtractor, waveform: Any, **kwargs: Any) -> np.ndarray:
    """Codes of one clip, without boundary tokens."""
    codes = extractor(waveform, **({"sampling_rate": RATE} | kwargs))["input_ids"][0]
    return codes[1:-1] if extractor.add_boundary_tokens else codes


@pytest.fixture(scope="module")
def extractor(random_encodec_folder: Path) -> AudioFormerFeatureExtractor:
    """One codebook of the random codec; not to be changed."""
    return make(random_encodec_folder)


@pytest.fixture(scope="module")
def extractor_of_four(random_encodec_folder: Path) -> AudioFormerFeatureExtractor:
    return make(random_encodec_folder, num_codebooks=4)


def test_takes_its_settings_from_the_codec(extractor, random_encodec_folder):
    assert (extractor.sampling_rate, extractor.hop_length, extractor.codebook_size) == (RATE, HOP, CODES)
    assert (extractor.frame_rate, extractor.feature_size, extractor.padding_value) == (75.0, 1, PAD)
    assert [extractor.special_token_id(name) for name in ("boa", "eoa", "mask", "pad")] == [BOA, EOA, MASK, PAD]
    assert extractor.codec == str(random_encodec_folder)


def test_default_codec_is_pinned():
    extractor = AudioFormerFeatureExtractor()
    assert (extractor.codec, extractor.codec_revision) == ("facebook/encodec_24khz", DEFAULT_CODEC_REVISION)


# Shapes, lengths and padding


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(samples=st.one_of(st.integers(320, 1500), st.sampled_from([320, 321, 639, 640, 641, 959, 960, 961])))
def test_a_clip_has_one_frame_per_begun_hop(extractor, samples):
    encoded = extractor(sound()[:samples], sampling_rate=RATE, return_tensors="pt")
    frames = -(-samples // HOP)
    assert encoded["input_ids"].shape == encoded["attention_mask"].shape == (1, frames + 2)
    assert (encoded["input_ids"][0, 0], encoded["input_ids"][0, -1]) == (BOA, EOA)
    assert encoded["input_ids"].dtype == torch.int64
    assert encoded["input_ids"][0, 1:-1].max() < CODES


def test_last_partial_frame_is_padded_with_silence(extractor):
    clip = sound()[:1000]
    np.testing.assert_array_equal(codes_of(extractor, clip), codes_of(extractor, np.pad(clip, (0, 280))))


@pytest.mark.parametrize("kind", ["pt", "np"])
def test_several_codebooks_are_the_last_axis(extractor, extractor_of_four, kind):
    clips = [sound(0.2), sound(0.3, seed=1)]
    encoded = extractor_of_four(clips, sampling_rate=RATE, return_tensors=kind)
    assert tuple(encoded["input_ids"].shape) == (2, 25, 4)
    assert tuple(encoded["attention_mask"].shape) == (2, 25)
    assert (encoded["input_ids"][0, 17:] == PAD).all()
    assert encoded["attention_mask"].sum(1).tolist() == [17, 25]
    first = extractor(clips, sampling_rate=RATE, return_tensors=kind)
    assert (encoded["input_ids"][..., 0] == first["input_ids"]).all()
    assert type(encoded["input_ids"]) is {"pt": torch.Tensor, "np": np.ndarray}[kind]


def test_without_tensors_clips_keep_their_lengths(extractor):
    encoded = extractor([sound(0.2), sound(0.3)], sampling_rate=RATE)
    assert [len(codes) for codes in encoded["input_ids"]] == [17, 25]


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_side(random_encodec_folder, side):
    extractor = make(random_encodec_folder, padding_side=side)
    encoded = extractor([sound(0.2), sound(0.3)], sampling_rate=RATE, return_tensors="np")
    row = encoded["input_ids"][0]
    assert (row[17:] if side == "right" else row[:8]).tolist() == [PAD] * 8
    assert encoded["attention_mask"][0].sum() == 17


def test_padding_to_a_length_and_to_multiples(extractor):
    shape = {"sampling_rate": RATE, "return_tensors": "np"}
    to_length = extractor(sound(0.2), padding="max_length", max_length_seconds=1, **shape)
    assert to_length["input_ids"].shape == (1, 77)
    assert extractor(sound(0.2), pad_to_multiple_of=8, **shape)["input_ids"].shape == (1, 24)
    assert "attention_mask" not in extractor(sound(0.2), return_attention_mask=False, **shape)


def test_longest_clip(extractor, random_encodec_folder):
    clip = sound(0.5)
    whole, cut = codes_of(extractor, clip), codes_of(extractor, clip, max_length_seconds=0.2)
    assert (len(whole), len(cut)) == (38, 15)
    np.testing.assert_array_equal(cut, whole[:15])
    limited = make(random_encodec_folder, max_length_seconds=0.2)
    assert len(codes_of(limited, clip)) == 15
    assert len(codes_of(limited, clip, truncation=False)) == 38


def test_boundary_tokens_are_a_setting(extractor, random_encodec_folder):
    bare = make(random_encodec_folder, add_boundary_tokens=False)
    np.testing.assert_array_equal(codes_of(bare, sound()), codes_of(extractor, sound()))


@pytest.mark.parametrize("num_codebooks", [1, 3])
def test_tokens_of_stored_codes_are_those_of_the_clip(num_codebooks, random_encodec_folder):
    stored = make(random_encodec_folder, num_codebooks=4, add_boundary_tokens=False)
    codes = stored(sound(), sampling_rate=RATE)["input_ids"][0].astype(np.uint16)
    extractor = make(random_encodec_folder, num_codebooks=num_codebooks)
    tokens = extractor.tokens(codes)
    np.testing.assert_array_equal(tokens, extractor(sound(), sampling_rate=RATE)["input_ids"][0])
    assert tokens.dtype == np.int64


# Kinds of audio


def read_only(clip):
    return np.broadcast_to(clip, clip.shape)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "kind", [list, torch.tensor, np.float64, np.float16, read_only, lambda clip: clip[::-1].copy()[::-1]]
)
def test_lists_tensors_and_arrays_are_equal(extractor, kind):
    clip = sound().astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(codes_of(extractor, kind(clip)), codes_of(extractor, clip))


def test_audio_is_not_changed(random_encodec_folder):
    clip = sound()
    before = clip.copy()
    make(random_encodec_folder, rms_level_dbfs=-20)(clip, sampling_rate=RATE)
    np.testing.assert_array_equal(clip, before)


@pytest.mark.parametrize("rate", [7_350, 8_000, 11_025, 16_000, 22_050, 37_800, 44_100, 48_000, 96_000, 192_000])
def test_other_rates_are_resampled(extractor, rate):
    clip = varied_sound(rate // 4).numpy()
    by_hand = resample(torch.from_numpy(clip), rate, RATE)
    assert abs(len(by_hand) - RATE / 4) <= 1 + RATE / rate
    np.testing.assert_array_equal(codes_of(extractor, clip, sampling_rate=rate), codes_of(extractor, by_hand))


@pytest.mark.parametrize("rate", [7_350, 8_000, 12_900, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("shape", [(1,), (399,), (2, 3, 8001)])
def test_resampling_is_torchaudios(rate, shape):
    waveform = torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    expected = torchaudio.transforms.Resample(rate, RATE)(waveform)
    torch.testing.assert_close(resample(waveform, rate, RATE), expected, rtol=0, atol=2e-6)


def test_resampling_keeps_a_tone():
    times = {rate: torch.arange(rate // 2) / rate for rate in (44_100, RATE)}
    tones = {rate: torch.sin(2 * np.pi * 440 * time) for rate, time in times.items()}
    difference = resample(tones[44_100], 44_100, RATE) - tones[RATE]
    assert difference[200:-200].abs().max() < 0.01


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_channels_are_averaged(extractor, axis):
    stereo = np.stack([sound(seed=1), sound(seed=2)], axis=axis)
    mono = codes_of(extractor, (sound(seed=1) + sound(seed=2)) / 2)
    np.testing.assert_array_equal(codes_of(extractor, stereo, channel_axis=axis), mono)


def test_level(random_encodec_folder):
    extractor = make(random_encodec_folder, rms_level_dbfs=-20)
    clip = sound()
    np.testing.assert_array_equal(codes_of(extractor, clip / 8), codes_of(extractor, clip))
    levelled = extractor._prepare(clip, 0, RATE, None, keep_level=False)
    assert 20 * levelled.square().mean().sqrt().log10() == pytest.approx(-20, abs=1e-3)
    as_it_is = codes_of(make(random_encodec_folder), clip / 8)
    np.testing.assert_array_equal(codes_of(extractor, clip / 8, keep_level=True), as_it_is)
    assert (as_it_is != codes_of(extractor, clip)).any()


def test_level_leaves_silence_silent(extractor, random_encodec_folder):
    silence = np.zeros(RATE, dtype=np.float32)
    levelled = make(random_encodec_folder, rms_level_dbfs=-20)
    np.testing.assert_array_equal(codes_of(levelled, silence), codes_of(extractor, silence))
    hiss = 1e-6 * sound()
    assert levelled._prepare(hiss, 0, RATE, None, keep_level=False).abs().max() < 0.01


# What is refused

TONE = np.linspace(-0.5, 0.5, 4000, dtype=np.float32)
WITH_NAN, WITH_INF = TONE.copy(), TONE.copy()
WITH_NAN[[7, 70]], WITH_INF[9] = np.nan, np.inf


@pytest.mark.fault
@pytest.mark.parametrize(
    ("clip", "kwargs", "message"),
    [
        (WITH_NAN, {}, r"clip 1 has 2 samples that are NaN or infinite, the first at 7; repair or leave out"),
        (WITH_INF, {}, r"clip 1 has 1 samples that are NaN or infinite, the first at 9"),
        (TONE[:0], {}, r"clip 1 is empty \(shape \(0,\)\); leave it out"),
        (TONE[:319], {}, "clip 1 has 319 samples at 24000 Hz, less than one frame of 320"),
        (TONE[:500], {"sampling_rate": 48_000}, "clip 1 has 250 samples at 24000 Hz, less than one frame"),
        ((TONE * 32768).astype(np.int16), {}, r"clip 1 is int16; samples must be floats.*Divide integer PCM"),
        (torch.zeros(4000, dtype=torch.int32), {}, "clip 1 is int32"),
        (np.zeros((2, 4000), np.float32), {}, r"shape \(2, 4000\): for one clip with channels say channel_axis=0"),
        (np.zeros((4000, 2), np.float32), {}, r"shape \(4000, 2\): for one clip with channels say channel_axis=1"),
        (np.zeros((4000, 2), np.float32), {"channel_axis": 0}, r"channel_axis is 0.*Is it the other axis\?"),
        (np.zeros((2, 4000), np.float32), {"channel_axis": 2}, "channel_axis is 2; it must be 0 or 1"),
        (np.zeros((1, 2, 4000), np.float32), {"channel_axis": 0}, r"shape \(1, 2, 4000\); a clip is \(samples,\)"),
        (TONE, {"sampling_rate": None}, r"sampling_rate is required: .* 24000 Hz; other rates are resampled"),
        (TONE, {"sampling_rate": 0}, "a positive whole number of Hz; found 0"),
        (TONE, {"sampling_rate": 22050.5}, "a positive whole number of Hz; found 22050.5"),
        (TONE, {"truncation": True}, "need max_length_seconds"),
        (TONE, {"padding": "max_length"}, "need max_length_seconds"),
        (TONE, {"max_length_seconds": 0.01}, "max_length_seconds is 0.01; it must be at least one frame"),
        (TONE, {"max_length_seconds": -1}, "max_length_seconds is -1; it must be at least one frame"),
    ],
)
def test_wrong_audio_is_refused(extractor, clip, kwargs, message):
    with pytest.raises(ValueError, match=message):
        extractor([varied_sound(48_000), clip], **({"sampling_rate": RATE} | kwargs))


@pytest.mark.fault
@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ([], "audio is an empty list"),
        ({"array": TONE, "sampling_rate": RATE}, "audio is dict; allowed: numpy array"),
        ("clip.wav", "audio is str; allowed"),
        (np.zeros((3, 4000), np.float32), "for a batch of mono clips give a list"),
    ],
)
def test_audio_that_is_no_clip_is_refused(extractor, audio, message):
    with pytest.raises(ValueError, match=message):
        extractor(audio, sampling_rate=RATE)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_codebooks": 0}, "num_codebooks is 0; it must be at least 1"),
        ({"hop_length": 0}, "hop_length is 0; it must be at least 1"),
        ({"max_length_seconds": 0.001}, "max_length_seconds is 0.001; it must be at least one frame"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        AudioFormerFeatureExtractor(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_codebooks": 9}, "num_codebooks is 9; the codec .* has 8"),
        ({"codebook_size": 1024}, "has codebook_size 64, this feature extractor 1024; make it with .*from_codec"),
        ({"sampling_rate": 16_000}, "has sampling_rate 24000, this feature extractor 16000"),
        ({"hop_length": 640}, "has hop_length 320, this feature extractor 640"),
    ],
)
def test_settings_must_be_those_of_the_codec(random_encodec_folder, wrong, message):
    extractor = AudioFormerFeatureExtractor(codec=random_encodec_folder, **({"codebook_size": CODES} | wrong))
    with pytest.raises(ValueError, match=message):
        extractor(varied_sound(48_000), sampling_rate=RATE)


# Decoding


@pytest.mark.parametrize("num_codebooks", [1, 4])
def test_decoding_drops_special_tokens(random_encodec_folder, num_codebooks):
    extractor = make(random_encodec_folder, num_codebooks=num_codebooks)
    tokens = extractor([sound(0.2), sound(0.3)], sampling_rate=RATE, return_tensors="pt")["input_ids"][0]
    waveform = extractor.decode(tokens)
    assert (waveform.shape, waveform.dtype) == ((15 * HOP,), torch.float32)
    codes = tokens[1:16].reshape(15, -1).T.unsqueeze(0)
    torch.testing.assert_close(waveform, extractor.load_codec().decode(codes)[0])
    for same in (tokens.numpy(), tokens.tolist(), tokens.int()):
        torch.testing.assert_close(extractor.decode(same), waveform)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([BOA, 3, MASK, EOA], "a MASK token has no sound"),
        ([BOA, EOA, PAD], "no code below 64 among the 3 tokens"),
        ([[[1], [2]]], r"decode takes one clip.*found shape \(1, 2, 1\)"),
    ],
)
def test_tokens_without_sound_are_refused(extractor, tokens, message):
    with pytest.raises(ValueError, match=message):
        extractor.decode(tokens)


# Copies and folders


def test_pickles_without_the_codec(extractor):
    expected = codes_of(extractor, sound())
    pickled = pickle.dumps(extractor)
    assert len(pickled) < 2000
    for other in (pickle.loads(pickled), copy.deepcopy(extractor)):
        assert other._codec is None
        np.testing.assert_array_equal(codes_of(other, sound()), expected)


def test_fingerprint_does_not_depend_on_use(random_encodec_folder):
    extractor = AudioFormerFeatureExtractor(codec=random_encodec_folder, codebook_size=CODES)
    before = Hasher.hash(extractor)
    codes_of(extractor, sound())
    assert Hasher.hash(extractor) == before == Hasher.hash(pickle.loads(pickle.dumps(extractor)))


def test_describes_itself(extractor):
    shown = json.loads(extractor.to_json_string())
    assert shown["feature_extractor_type"] == "AudioFormerFeatureExtractor"
    assert (shown["sampling_rate"], shown["num_codebooks"], shown["codebook_size"]) == (RATE, 1, CODES)
    assert "_codec" not in shown
    assert "AudioFormerFeatureExtractor" in repr(extractor)


@pytest.mark.parametrize("loader", [AudioFormerFeatureExtractor, AutoFeatureExtractor])
def test_saved_folder_holds_its_codec_and_can_be_moved(extractor_of_four, tmp_path: Path, loader):
    extractor_of_four.save_pretrained(tmp_path / "saved")
    written = (tmp_path / "saved" / "preprocessor_config.json").read_text()
    assert str(Path(extractor_of_four.codec).parent) not in written
    assert json.loads(written)["codec"] is None
    shutil.move(tmp_path / "saved", tmp_path / "moved")
    loaded = loader.from_pretrained(tmp_path / "moved")
    assert isinstance(loaded, AudioFormerFeatureExtractor)
    np.testing.assert_array_equal(codes_of(loaded, sound()), codes_of(extractor_of_four, sound()))

    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "preprocessor_config.json").read_text() == written
    loaded = loader.from_pretrained(tmp_path, subfolder="again")
    np.testing.assert_array_equal(codes_of(loaded, sound()), codes_of(extractor_of_four, sound()))


def test_hub_codec_stays_a_reference(tmp_path: Path):
    AudioFormerFeatureExtractor().save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["preprocessor_config.json"]
    loaded = AudioFormerFeatureExtractor.from_pretrained(tmp_path)
    assert (loaded.codec, loaded.codec_revision) == ("facebook/encodec_24khz", DEFAULT_CODEC_REVISION)


@pytest.mark.parametrize("loader", [AudioFormerFeatureExtractor, AutoFeatureExtractor])
def test_codec_is_looked_for_in_the_cache_that_was_named(extractor_of_four, tmp_path: Path, loader):
    cached = tmp_path / "cache" / "models--someone--codec"
    shutil.copytree(extractor_of_four.codec, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    settings = extractor_of_four.to_dict() | {"codec": "someone/codec", "codec_revision": "main"}
    AudioFormerFeatureExtractor(**settings).save_pretrained(tmp_path / "saved")
    where = {"cache_dir": str(tmp_path / "cache"), "local_files_only": True, "token": "secret"}
    loaded = loader.from_pretrained(tmp_path / "saved", **where)
    np.testing.assert_array_equal(codes_of(loaded, sound()), codes_of(extractor_of_four, sound()))
    assert "secret" not in loaded.to_json_string()
    with pytest.raises(OSError, match="in the cached files"):
        loader.from_pretrained(tmp_path / "saved", local_files_only=True).load_codec()


def test_extractor_without_a_codec_says_where_it_is():
    with pytest.raises(ValueError, match="load it with from_pretrained on that folder"):
        AudioFormerFeatureExtractor(codec=None)(sound(), sampling_rate=RATE)


@pytest.mark.slow
@pytest.mark.timeout(310)
def test_works_in_worker_processes(extractor_of_four, tmp_path: Path):
    """`datasets.map` in forked processes hangs if they use the thread pool that their parent has started."""
    extractor_of_four.save_pretrained(tmp_path)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "HF_DATASETS_CACHE": str(tmp_path)}
    command = [sys.executable, encode_in_workers.__file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["map", "equal", "loader", "equal"], done.stderr


# Real sound


@pytest.fixture(scope="module")
def real_clips(data_folder: Path) -> list[np.ndarray]:
    """Three ESC-10 clips at the codec's rate, of 5, 3 and 1.5 seconds."""
    audio = pq.read_table(data_folder / "esc10.parquet", columns=["audio"])["audio"]
    lengths = {0: 120_000, 90: 72_000, 260: 36_100}
    return [load_audio(audio[index]["bytes"].as_py(), RATE)["array"][:length] for index, length in lengths.items()]


@pytest.mark.invariant
@pytest.mark.slow
@pytest.mark.parametrize("codec", ["random", "shipped"])
def test_alone_batched_and_streamed_codes_agree(codec, random_encodec_folder, real_clips):
    folder = {"random": random_encodec_folder, "shipped": codec_folder()}[codec]
    extractor = make(folder, num_codebooks=4, add_boundary_tokens=False)
    alone = [codes_of(extractor, clip) for clip in real_clips]
    batch = extractor(real_clips, sampling_rate=RATE, return_tensors="np")
    for row, clip in enumerate(real_clips):
        batched = batch["input_ids"][row][batch["attention_mask"][row] == 1]
        stream = extractor.load_codec().stream(4)
        chunks = [stream.push(chunk) for chunk in torch.from_numpy(clip).split(1_777)]
        streamed = torch.cat([*chunks, stream.flush()], dim=1).T.numpy()
        assert alone[row].shape == batched.shape == streamed.shape
        assert (batched == alone[row]).mean() >= 0.999
        assert (streamed == alone[row]).mean() >= 0.999
        assert len(np.unique(alone[row][:, 0])) > 5


@pytest.mark.parametrize(
    ("device", "is_causal", "sizes"),
    [("cpu", True, [1] * 5), ("cuda", False, [1] * 5), ("cuda", True, [3, 2])],
)
def test_batches_suit_the_device(extractor, device, is_causal, sizes):
    clips = [torch.zeros(100 * RATE)] * 5  # an accelerator takes 320 s at a time
    batches = extractor._batches(clips, SimpleNamespace(device=torch.device(device), is_causal=is_causal))
    assert [len(batch) for batch in batches] == sizes


def test_padded_batches_change_no_codes(extractor_of_four, monkeypatch):
    clips = [sound(0.2), sound(0.5, seed=1), sound(0.3, seed=2)]
    alone = [codes_of(extractor_of_four, clip) for clip in clips]
    monkeypatch.setattr(extractor_of_four, "_batches", lambda clips, codec: [clips])  # as on an accelerator
    together = extractor_of_four(clips, sampling_rate=RATE)["input_ids"]
    for codes, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(codes[1:-1], expected)


# The pipeline


@pytest.fixture(params=[1, 4], ids=["c1", "c4"])
def classifier(request, random_encodec_folder) -> Any:
    settings_ = {"num_codebooks": request.param, "fusion": "first" if request.param == 1 else "sum"}
    model = tiny_model(AudioFormerForAudioClassification, codebook_size=CODES, **settings_)
    extractor = make(random_encodec_folder, num_codebooks=request.param)
    return pipeline("audio-classification", model=model, feature_extractor=extractor, device="cpu")


def scores(results: list[dict]) -> dict[str, float]:
    return {entry["label"]: pytest.approx(entry["score"], abs=1e-5) for entry in results}


def found(results: list[dict]) -> dict[str, float]:
    return {entry["label"]: entry["score"] for entry in results}


def test_pipeline_takes_arrays_and_dicts(classifier):
    clip = sound()
    expected = scores(classifier(clip))
    assert len(expected) == 3
    for same in ({"array": clip, "sampling_rate": RATE}, {"raw": clip, "sampling_rate": RATE, "path": "x.wav"}):
        assert found(classifier(same)) == expected
    logits = classifier.model(**classifier.feature_extractor(clip, sampling_rate=RATE, return_tensors="pt")).logits
    by_hand = logits.softmax(-1)[0].tolist()
    assert expected == {f"LABEL_{index}": score for index, score in enumerate(by_hand)}


def test_pipeline_resamples(classifier):
    clip = varied_sound(8_000).numpy()
    resampled = resample(torch.from_numpy(clip), 16_000, RATE).numpy()
    assert found(classifier({"array": clip, "sampling_rate": 16_000})) == scores(classifier(resampled))


def test_pipeline_in_batches_equals_one_by_one(classifier):
    clips = [sound(0.2), sound(0.5, seed=1), sound(0.3, seed=2)]
    batched = classifier(clips, batch_size=2)
    assert [found(result) for result in batched] == [scores(classifier(clip)) for clip in clips]


def test_pipeline_gives_independent_scores_for_several_labels(classifier):
    classifier.model.config.problem_type = "multi_label_classification"
    clip = sound()
    logits = classifier.model(**classifier.feature_extractor(clip, sampling_rate=RATE, return_tensors="pt")).logits
    by_hand = {f"LABEL_{index}": pytest.approx(score) for index, score in enumerate(logits.sigmoid()[0].tolist())}
    assert found(classifier(clip)) == by_hand
