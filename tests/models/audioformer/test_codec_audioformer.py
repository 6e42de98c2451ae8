"""The codec interface: codes equal those of Transformers' models, whole, batched and streamed."""

import io
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    HubertConfig,
    MimiConfig,
    MimiModel,
    PreTrainedModel,
    XcodecConfig,
    XcodecModel,
)

from hf_audioformer.assets import codec_folder
from hf_audioformer.models.audioformer import codec_audioformer
from hf_audioformer.models.audioformer.codec_audioformer import SUPPORTED_CODECS, AudioCodec, fingerprint

from ...fixtures_codec import make_random_encodec, varied_sound

HOP = 320
BANDWIDTHS = {1: 0.45, 2: 0.9, 4: 1.8, 8: 3.6}


def equal(ours: Tensor, theirs: Tensor) -> float:
    """Fraction of equal codes."""
    assert ours.shape == theirs.shape
    return (ours == theirs).double().mean().item()


@torch.no_grad()
def peer_codes(model: EncodecModel, waveform: Tensor, num_codebooks: int) -> Tensor:
    """Codes of one clip (samples,) by Transformers, (num_codebooks, frames)."""
    return model.encode(waveform[None, None], bandwidth=BANDWIDTHS[num_codebooks]).audio_codes[0, 0]


def streamed(codec: AudioCodec, waveform: Tensor, num_codebooks: int, sizes: list[int]) -> Tensor:
    """Codes of a waveform pushed in chunks of the given sizes, over and over until it ends."""
    stream = codec.stream(num_codebooks)
    codes, position, turn = [], 0, 0
    while position < len(waveform):
        size = sizes[turn % len(sizes)]
        codes.append(stream.push(waveform[position : position + size]))
        position, turn = position + size, turn + 1
    return torch.cat([*codes, stream.flush()], dim=-1)


@pytest.fixture(scope="module")
def codec(random_encodec: EncodecModel) -> AudioCodec:
    return AudioCodec(random_encodec)


@pytest.fixture(scope="module")
def real_clips(data_folder: Path) -> list[Tensor]:
    """Four ESC-10 clips at 24 kHz, cut to whole frames."""
    import pyarrow.parquet as pq
    import soundfile
    from torchaudio.functional import resample

    audio = pq.read_table(data_folder / "esc10.parquet", columns=["audio"])["audio"]
    clips = []
    for index in (0, 90, 170, 260):
        array, rate = soundfile.read(io.BytesIO(audio[index]["bytes"].as_py()), dtype="float32")
        clip = resample(torch.from_numpy(array), rate, 24_000)
        clips.append(clip[: len(clip) // HOP * HOP])
    return clips


def test_describes_itself(codec: AudioCodec) -> None:
    assert (codec.sampling_rate, codec.hop_length, codec.frame_rate) == (24_000, HOP, 75.0)
    assert (codec.codebook_size, codec.num_codebooks) == (64, 8)
    assert codec.device == torch.device("cpu")
    assert codec.is_causal
    assert repr(codec) == (
        "AudioCodec(encodec, sampling_rate=24000, frame_rate=75, num_codebooks=8, codebook_size=64, device=cpu)"
    )


@pytest.mark.unit
def test_the_fingerprint_is_that_of_the_weights_and_not_of_the_folder(codec: AudioCodec, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path / "copy")
    assert AudioCodec.from_pretrained(tmp_path / "copy").fingerprint() == codec.fingerprint()
    model = EncodecModel.from_pretrained(tmp_path / "copy")
    model.quantizer.layers[7].codebook.embed[63, 0] += 1e-3
    changed = fingerprint(model)
    model.config.pad_mode = "constant"
    assert len({codec.fingerprint(), changed, fingerprint(model)}) == 3


@pytest.mark.invariant
def test_long_clips_in_blocks_of_an_accelerator_have_the_codes_of_the_whole(
    codec: AudioCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of the blocks is all that a device changes; a minute of sound per block there."""
    waveform = varied_sound(10 * 24_000 // HOP * HOP)[None]
    expected = codec.encode(waveform, 8)
    for block_samples in (waveform.shape[1], 24_000):
        monkeypatch.setattr(codec_audioformer, "_CPU_BLOCK_SAMPLES", block_samples)
        assert equal(codec.encode(waveform, 8), expected) >= 0.999


class TestCausalEncodec:
    @pytest.mark.reference
    @pytest.mark.parametrize("num_codebooks", BANDWIDTHS)
    @pytest.mark.parametrize("samples", [HOP, 2 * HOP, 10 * HOP, 3 * 24_000])
    def test_codes_equal_transformers(
        self, codec: AudioCodec, random_encodec: EncodecModel, samples: int, num_codebooks: int
    ) -> None:
        waveform = varied_sound(samples)
        codes = codec.encode(waveform[None], num_codebooks)
        assert codes.dtype == torch.int64
        assert codes.shape == (1, num_codebooks, samples // HOP)
        assert equal(codes[0], peer_codes(random_encodec, waveform, num_codebooks)) >= 0.999

    @pytest.mark.reference
    @pytest.mark.parametrize(
        "config",
        [
            {"num_residual_layers": 3},
            {"use_conv_shortcut": False, "pad_mode": "constant"},
            {"upsampling_ratios": (4, 3, 2), "target_bandwidths": (24.0,)},
            {"num_lstm_layers": 2, "last_kernel_size": 3},
        ],
        ids=str,
    )
    def test_variants_of_the_network(self, config: dict) -> None:
        model = make_random_encodec(**config)
        hop_length, bandwidth = model.config.hop_length, model.config.target_bandwidths[-1]
        for frames in (1, 3, 200):
            waveform = varied_sound(frames * hop_length)
            with torch.no_grad():
                theirs = model.encode(waveform[None, None], bandwidth=bandwidth).audio_codes[0, 0]
            ours = AudioCodec(model).encode(waveform[None], len(theirs))[0]
            assert equal(ours, theirs) >= 0.999
            assert equal(streamed(AudioCodec(model), waveform, len(theirs), [700, 41]), theirs) >= 0.999

    def test_the_test_codec_tells_sounds_apart(self, codec: AudioCodec) -> None:
        used = [len(row.unique()) for row in codec.encode(varied_sound(3 * 24_000)[None], 8)[0]]
        assert min(used) > 32

    def test_a_row_has_the_same_codes_alone_and_in_a_batch(self, codec: AudioCodec) -> None:
        batch = torch.stack([varied_sound(24_000 * 2, seed) for seed in range(3)])
        alone = torch.cat([codec.encode(row[None], 4) for row in batch])
        assert torch.equal(codec.encode(batch, 4), alone)

    @pytest.mark.property
    @settings(max_examples=15, deadline=None)
    @given(
        samples=st.integers(1, 40_000),
        sizes=st.lists(st.integers(1, 9_000), min_size=1, max_size=6),
        seed=st.integers(0, 5),
    )
    def test_streaming_in_any_chunks(self, codec: AudioCodec, samples: int, sizes: list[int], seed: int) -> None:
        sizes = [max(size, samples // 50) for size in sizes]
        waveform = varied_sound(samples, seed)
        whole = codec.encode(nn.functional.pad(waveform, (0, -samples % HOP))[None], 4)[0]
        different_frames = (streamed(codec, waveform, 4, sizes) != whole).any(dim=0)
        assert different_frames.sum() <= 1  # a near tie may fall either way

    def test_a_stream_gives_codes_as_early_as_it_can(self, codec: AudioCodec) -> None:
        stream = codec.stream(2)
        assert [stream.push(torch.zeros(HOP)).shape[-1] for _ in range(9)] == [0, 0, 0, 0, 0, 0, 7, 1, 1]
        stream = AudioCodec(make_random_encodec(pad_mode="constant")).stream(2)
        assert [stream.push(torch.zeros(HOP // 2)).shape[-1] for _ in range(4)] == [0, 1, 0, 1]

    def test_a_flushed_stream_starts_afresh(self, codec: AudioCodec) -> None:
        stream = codec.stream(2)
        waveform = varied_sound(10_000)
        first = torch.cat([stream.push(waveform), stream.flush()], dim=-1)
        second = torch.cat([stream.push(waveform), stream.flush()], dim=-1)
        assert first.shape == (2, 32)
        assert torch.equal(first, second)
        assert stream.flush().shape == (2, 0)

    @pytest.mark.reference
    @pytest.mark.parametrize("which", ["random", "shipped"])
    def test_real_sound_whole_batched_and_streamed(
        self, which: str, random_encodec_folder: Path, real_clips: list[Tensor]
    ) -> None:
        folder = {"random": random_encodec_folder, "shipped": codec_folder()}[which]
        model = EncodecModel.from_pretrained(folder)
        codec = AudioCodec.from_pretrained(folder)
        books, bandwidth = codec.num_codebooks, model.config.target_bandwidths[-1]
        whole = [codec.encode(clip[None], books)[0] for clip in real_clips]
        with torch.no_grad():
            peer = [model.encode(clip[None, None], bandwidth=bandwidth).audio_codes[0, 0] for clip in real_clips]
        stream = [streamed(codec, clip, books, [1, 5_000, 317, 24_000]) for clip in real_clips]
        assert equal(torch.cat(whole, dim=-1), torch.cat(peer, dim=-1)) >= 0.999
        assert equal(torch.cat(whole, dim=-1), torch.cat(stream, dim=-1)) >= 0.999
        shortest = min(len(clip) for clip in real_clips)
        batch = codec.encode(torch.stack([clip[:shortest] for clip in real_clips]), books)
        prefixes = torch.stack([codes[:, : shortest // HOP] for codes in whole])
        assert equal(batch, prefixes) >= 0.999

    @pytest.mark.reference
    def test_decode_equals_transformers(self, codec: AudioCodec, random_encodec: EncodecModel) -> None:
        codes = codec.encode(varied_sound(24_000)[None].repeat(2, 1), 4)
        waveforms = codec.decode(codes)
        with torch.no_grad():
            expected = random_encodec.decode(codes[None], [None]).audio_values[:, 0]
        assert waveforms.shape == (2, 24_000)
        assert torch.equal(waveforms, expected)

    def test_codebook_vectors(self, codec: AudioCodec, random_encodec: EncodecModel) -> None:
        vectors = codec.codebook_vectors()
        assert vectors.shape == (8, 64, 16)
        assert torch.equal(vectors[3], random_encodec.quantizer.layers[3].codebook.embed)

    def test_codes_can_be_trained_on(self, codec: AudioCodec) -> None:
        codes = codec.encode(varied_sound(HOP * 10)[None], 1)
        nn.Embedding(64, 4)(codes).sum().backward()

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_codes_on_a_gpu(self, random_encodec_folder: Path) -> None:
        on_cpu = AudioCodec.from_pretrained(random_encodec_folder)
        on_gpu = AudioCodec.from_pretrained(random_encodec_folder).to("cuda")
        batch = torch.stack([varied_sound(24_000 * 2, seed) for seed in range(3)])
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            codes = on_gpu.encode(batch, 4)
        assert codes.device == on_gpu.device
        assert equal(codes.cpu(), on_cpu.encode(batch, 4)) >= 0.999


def tiny_48khz_encodec() -> EncodecModel:
    """The architecture of encodec_48khz, small: stereo, not causal, normalised, in chunks of one second."""
    return make_random_encodec(
        audio_channels=2,
        sampling_rate=48_000,
        use_causal_conv=False,
        norm_type="time_group_norm",
        normalize=True,
        chunk_length_s=1.0,
        overlap=0.01,
        target_bandwidths=(1.8, 3.6),
    )


class TestOtherEncodecs:
    @pytest.mark.reference
    @pytest.mark.parametrize("num_codebooks", [1, 3, 4])
    def test_the_48khz_model_is_encoded_by_transformers(self, num_codebooks: int) -> None:
        model = tiny_48khz_encodec()
        waveform = varied_sound(225 * HOP)
        codes = AudioCodec(model).encode(waveform[None], num_codebooks)[0]
        with torch.no_grad():
            first, second = (
                model.encode(part.expand(1, 2, -1), bandwidth=3.6).audio_codes[0, 0]
                for part in (waveform[:48_000], waveform[48_000:])
            )
        assert torch.equal(codes, torch.cat([first, second], dim=-1)[:num_codebooks])

    def test_the_48khz_model_decodes_to_mono(self) -> None:
        codec = AudioCodec(tiny_48khz_encodec())
        codes = codec.encode(torch.stack([varied_sound(225 * HOP, seed) for seed in range(2)]), 4)
        waveforms = codec.decode(codes)
        assert codes.shape == (2, 4, 225)
        assert waveforms.shape == (2, 225 * HOP)
        assert torch.allclose(codec.decode(codes[:, :, :150]), waveforms[:, :48_000])

    @pytest.mark.parametrize(
        "config",
        [
            {"use_causal_conv": False},
            {"norm_type": "time_group_norm"},
            {"normalize": True},
            {"pad_mode": "replicate"},
        ],
        ids=str,
    )
    @pytest.mark.reference
    def test_what_the_fast_path_does_not_cover(self, config: dict) -> None:
        model = make_random_encodec(**config)
        waveform = varied_sound(50 * HOP)
        codec = AudioCodec(model)
        assert torch.equal(codec.encode(waveform[None], 4)[0], peer_codes(model, waveform, 4))
        assert not codec.is_causal
        with pytest.raises(ValueError, match="streaming needs a causal EnCodec"):
            codec.stream(4)


def tiny_dac() -> DacModel:
    return DacModel(
        DacConfig(
            encoder_hidden_size=4,
            downsampling_ratios=[2, 4, 8],
            decoder_hidden_size=32,
            n_codebooks=3,
            codebook_size=64,
            codebook_dim=4,
        )
    )


def tiny_mimi() -> MimiModel:
    model = MimiModel(
        MimiConfig(
            num_filters=2,
            hidden_size=16,
            codebook_size=64,
            codebook_dim=8,
            vector_quantization_hidden_dimension=8,
            num_quantizers=4,
            num_semantic_quantizers=2,
            num_hidden_layers=1,
            intermediate_size=16,
            num_attention_heads=2,
            num_key_value_heads=2,
            upsample_groups=16,
            upsampling_ratios=[4, 4, 2],
        )
    )
    quantizer = model.quantizer
    for part in (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer):
        for layer in part.layers:
            layer.codebook.embed_sum.normal_()
    return model


def tiny_xcodec() -> XcodecModel:
    model = XcodecModel(
        XcodecConfig(
            target_bandwidths=[0.6, 0.9],
            codebook_size=64,
            acoustic_model_config=DacConfig(
                encoder_hidden_size=4, downsampling_ratios=[8, 5, 4, 2], decoder_hidden_size=32
            ),
            semantic_model_config=HubertConfig(
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=16,
                conv_dim=(8,) * 7,
                num_conv_pos_embeddings=4,
                num_conv_pos_embedding_groups=2,
            ),
        )
    )
    for quantizer in model.quantizer.quantizers:
        quantizer.codebook.embed.normal_()
    return model


def their_codes(model: PreTrainedModel, waveform: Tensor) -> Tensor:
    with torch.no_grad():
        return model.encode(waveform[None, None]).audio_codes[0]


OTHER_FAMILIES = {"dac": tiny_dac, "mimi": tiny_mimi, "xcodec": tiny_xcodec}


def test_every_supported_family_is_tested() -> None:
    assert set(SUPPORTED_CODECS) == {"encodec", *OTHER_FAMILIES}


@pytest.mark.parametrize("family", OTHER_FAMILIES)
class TestOtherFamilies:
    @pytest.mark.reference
    def test_codes_equal_transformers(self, family: str) -> None:
        model = OTHER_FAMILIES[family]().eval()
        codec = AudioCodec(model)
        batch = torch.stack([varied_sound(20 * codec.hop_length, seed) for seed in range(2)])
        expected = torch.stack([their_codes(model, row) for row in batch])
        assert expected.shape == (2, codec.num_codebooks, 20)
        for num_codebooks in range(1, codec.num_codebooks + 1):
            assert torch.equal(codec.encode(batch, num_codebooks), expected[:, :num_codebooks])

    def test_decodes_saves_and_loads(self, family: str, tmp_path: Path) -> None:
        codec = AudioCodec(OTHER_FAMILIES[family]())
        codes = codec.encode(varied_sound(20 * codec.hop_length)[None], codec.num_codebooks)
        codec.save_pretrained(tmp_path)
        loaded = AudioCodec.from_pretrained(tmp_path)
        assert torch.equal(loaded.encode(varied_sound(20 * codec.hop_length)[None], codec.num_codebooks), codes)
        assert codec.decode(codes).shape == (1, 20 * codec.hop_length)
        assert torch.equal(loaded.decode(codes), codec.decode(codes))
        assert codec.codebook_vectors().shape[:2] == (codec.num_codebooks, codec.codebook_size)

    def test_does_not_stream(self, family: str) -> None:
        with pytest.raises(ValueError, match=rf"streaming needs a causal EnCodec.*AudioCodec\({family}"):
            AudioCodec(OTHER_FAMILIES[family]()).stream(1)


class TestLoading:
    def test_a_saved_codec_gives_the_same_codes(
        self, codec: AudioCodec, random_encodec_folder: Path, tmp_path: Path
    ) -> None:
        waveform = varied_sound(24_000)[None]
        AudioCodec.from_pretrained(random_encodec_folder).save_pretrained(tmp_path / "checkpoint" / "codec")
        again = AudioCodec.from_pretrained(tmp_path / "checkpoint", subfolder="codec")
        assert torch.equal(again.encode(waveform, 8), codec.encode(waveform, 8))

    def test_to_returns_the_codec(self, random_encodec_folder: Path) -> None:
        codec = AudioCodec.from_pretrained(random_encodec_folder)
        assert codec.to("cpu") is codec

    def test_half_precision_weights_become_float32(self, random_encodec: EncodecModel, tmp_path: Path) -> None:
        half = EncodecModel(random_encodec.config)
        half.load_state_dict(random_encodec.state_dict())
        half.half().save_pretrained(tmp_path)
        assert AudioCodec.from_pretrained(tmp_path).codebook_vectors().dtype == torch.float32

    def test_other_models_are_refused(self, tmp_path: Path) -> None:
        HubertConfig().save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"'hubert'.*allowed types: encodec, dac, mimi, xcodec"):
            AudioCodec.from_pretrained(tmp_path)

    def test_remote_code_is_refused(self, random_encodec_folder: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="never runs remote code"):
            AudioCodec.from_pretrained(random_encodec_folder, trust_remote_code=True)
        config = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "own.py").write_text("raise SystemExit('this code ran')")
        with pytest.raises(ValueError, match="trust_remote_code"):
            AudioCodec.from_pretrained(tmp_path)

    def test_empty_codebooks_are_refused(self, tmp_path: Path) -> None:
        EncodecModel(EncodecConfig(num_filters=2, hidden_size=8)).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="every code would be 0"):
            AudioCodec.from_pretrained(tmp_path)


class TestRefusals:
    @pytest.mark.parametrize("num_codebooks", [0, 9])
    def test_num_codebooks(self, codec: AudioCodec, num_codebooks: int) -> None:
        with pytest.raises(ValueError, match=f"from 1 to 8.*got {num_codebooks}"):
            codec.encode(torch.zeros(1, HOP), num_codebooks)
        with pytest.raises(ValueError, match=f"from 1 to 8.*got {num_codebooks}"):
            codec.stream(num_codebooks)

    @pytest.mark.parametrize(
        ("waveforms", "message"),
        [
            (torch.zeros(HOP), r"\(batch, samples\).*\(320,\)"),
            (torch.zeros(1, HOP, dtype=torch.int16), "int16"),
            (torch.zeros(1, HOP + 1), "multiple of 320"),
            (torch.zeros(1, 0), "multiple of 320"),
            (torch.zeros(0, HOP), "at least one row"),
        ],
    )
    def test_waveforms(self, codec: AudioCodec, waveforms: Tensor, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            codec.encode(waveforms, 4)

    @pytest.mark.parametrize(
        ("codes", "message"),
        [
            (torch.zeros(1, 4), r"\(batch, num_codebooks, frames\)"),
            (torch.zeros(1, 4, 5), "int64"),
            (torch.zeros(1, 4, 0, dtype=torch.int64), "not empty"),
            (torch.zeros(1, 9, 5, dtype=torch.int64), "from 1 to 8"),
            (torch.full((1, 4, 5), 64), r"\[0, 64\).*from 64 to 64"),
            (torch.full((1, 4, 5), -100), "from -100"),
        ],
    )
    def test_codes(self, codec: AudioCodec, codes: Tensor, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            codec.decode(codes)

    @pytest.mark.parametrize("chunk", [torch.zeros(1, 5), torch.zeros(5, dtype=torch.int16)])
    def test_chunks(self, codec: AudioCodec, chunk: Tensor) -> None:
        with pytest.raises(ValueError, match=r"chunk must be a float tensor \(samples,\)"):
            codec.stream(1).push(chunk)
