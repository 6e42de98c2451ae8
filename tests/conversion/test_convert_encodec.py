"""Original EnCodec weights give the codes and the audio of the `encodec` package, which is the oracle here."""

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from encodec import EncodecModel as OriginalModel
from encodec.modules import SEANetDecoder, SEANetEncoder
from encodec.quantization import ResidualVectorQuantizer
from torch import Tensor
from transformers import AutoFeatureExtractor, EncodecModel

from conversion.common import read_tensors
from conversion.convert_encodec import encodec_config, encodec_from_original, main, verify
from hf_audioformer.models.audioformer.codec_audioformer import AudioCodec

from ..fixtures_codec import varied_sound

pytestmark = pytest.mark.reference

CODEBOOK_SIZE = 1024
KINDS: dict[int, dict[str, Any]] = {
    24_000: {"channels": 1, "norm": "weight_norm", "causal": True},
    48_000: {"channels": 2, "norm": "time_group_norm", "causal": False},
}
BANDWIDTHS_KBPS = {24_000: [1.5, 3.0, 6.0, 12.0, 24.0], 48_000: [3.0, 6.0, 12.0, 24.0]}


@torch.no_grad()
def original_model(sampling_rate: int = 24_000) -> OriginalModel:
    """An original network of few channels with random weights, and with codebooks filled by residuals of its sound."""
    kind = KINDS[sampling_rate]
    sizes = {"dimension": 8, "n_filters": 2, "lstm": 2, **kind}
    bandwidths = BANDWIDTHS_KBPS[sampling_rate]
    num_codebooks = int(bandwidths[-1] * 1000 / (sampling_rate / 320 * 10))
    encoder, decoder = SEANetEncoder(**sizes), SEANetDecoder(**sizes)
    quantizer = ResidualVectorQuantizer(8, n_q=num_codebooks, bins=CODEBOOK_SIZE)
    stereo: dict[str, Any] = {} if kind["causal"] else {"normalize": True, "segment": 1.0}
    model = OriginalModel(encoder, decoder, quantizer, bandwidths, sampling_rate, kind["channels"], **stereo).eval()
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif name.endswith("weight_g"):
            parameter.mul_(1.6)
    sound = varied_sound(CODEBOOK_SIZE * 320, seed=1).expand(1, kind["channels"], -1)
    residual = encoder(sound)[0].t()
    for layer in quantizer.vq.layers:
        codebook = layer._codebook
        codebook.embed.copy_(residual + 0.3 * residual.std() * torch.randn_like(residual))
        residual = residual - codebook.decode(codebook.encode(residual))
    return model


@pytest.fixture(scope="module")
def original() -> OriginalModel:
    return original_model()


def converted(original: OriginalModel, folder: Path) -> EncodecModel:
    torch.save(original.state_dict(), folder / "original.th")
    weights = read_tensors(folder / "original.th")
    return encodec_from_original(weights, encodec_config(weights))


def clips(num_channels: int, samples: int) -> Tensor:
    channels = [varied_sound(samples, seed) for seed in range(2, 2 + 2 * num_channels)]
    return torch.stack(channels).view(2, num_channels, samples)


@torch.no_grad()
def test_codes_are_equal_at_every_bandwidth_and_audio_too(original: OriginalModel, tmp_path: Path) -> None:
    model = converted(original, tmp_path)
    sound = clips(1, 24_000 + 123)
    for kbps, num_codebooks in zip(BANDWIDTHS_KBPS[24_000], (2, 4, 8, 16, 32), strict=True):
        original.set_target_bandwidth(kbps)
        ((codes, _),) = original.encode(sound)
        encoded = model.encode(sound, bandwidth=kbps)
        assert codes.shape == (2, num_codebooks, 76)
        assert codes.unique().numel() > CODEBOOK_SIZE // 20, "the codes say nothing"
        assert torch.equal(encoded.audio_codes[0], codes)
        decoded = model.decode(encoded.audio_codes, encoded.audio_scales).audio_values
        torch.testing.assert_close(decoded, original.decode([(codes, None)]), atol=1e-5, rtol=0)
    assert verify(model, original.state_dict()) <= 1e-5


@torch.no_grad()
def test_stereo_model_of_48_khz_converts_as_well(tmp_path: Path) -> None:
    original = original_model(48_000)
    model = converted(original, tmp_path)
    config = model.config
    assert (config.sampling_rate, config.audio_channels, config.chunk_length_s) == (48_000, 2, 1.0)
    assert verify(model, original.state_dict()) <= 1e-5
    sound = clips(2, 48_000)
    original.set_target_bandwidth(6.0)
    encoded = model.encode(sound, bandwidth=6.0)
    frame = original.encode(sound)[0]
    assert torch.equal(encoded.audio_codes[0], frame[0])
    torch.testing.assert_close(encoded.audio_scales[0], frame[1])


def test_a_wrong_weight_is_noticed(original: OriginalModel, tmp_path: Path) -> None:
    model = converted(original, tmp_path)
    with torch.no_grad():
        model.decoder.layers[0].conv.bias.add_(0.1)
    with pytest.raises(ValueError, match=r"audio differs from the encodec package's by .*, more than 1e-05"):
        verify(model, original.state_dict())
    with torch.no_grad():
        model.quantizer.layers[1].codebook.embed.neg_()
    with pytest.raises(ValueError, match=r"of 150 codes differ at 1.5 kbps: nothing is written"):
        verify(model, original.state_dict())


@pytest.mark.cli
def test_command_converts_a_file(
    original: OriginalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    torch.save(original.state_dict(), tmp_path / "original.th")
    monkeypatch.setattr(sys, "argv", ["convert_encodec", str(tmp_path / "original.th"), str(tmp_path / "target")])
    main()
    printed = capsys.readouterr().out
    assert "codes are equal at 1.5, 3.0, 6.0, 12.0, 24.0 kbps\nlargest difference of audio: " in printed
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "target").sampling_rate == 24_000
    sound = varied_sound(16_000)[None]
    original.set_target_bandwidth(3.0)
    codes = AudioCodec.from_pretrained(tmp_path / "target").encode(sound, 4)
    with torch.no_grad():
        expected = original.encode(sound[:, None])[0][0]
    assert (codes == expected).double().mean() > 0.999


@pytest.mark.cli
def test_help_says_where_the_weights_come_from(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["convert_encodec", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    printed = capsys.readouterr().out
    for wanted in ("github.com/facebookresearch/encodec", "CC BY-NC 4.0", "--no-verify"):
        assert wanted in printed


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.fault
@pytest.mark.parametrize("save", [torch.save, lambda data, path: path.write_bytes(pickle.dumps(data, protocol=2))])
def test_malicious_file_is_refused_and_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Any) -> None:
    trace = tmp_path / "trace"
    save({"encoder.model.0.conv.conv.bias": Malicious(trace)}, tmp_path / "malicious.th")
    monkeypatch.setattr(sys, "argv", ["convert_encodec", str(tmp_path / "malicious.th"), str(tmp_path / "target")])
    with pytest.raises(ValueError, match="not a whole file of plain tensors; it is refused"):
        main()
    assert not trace.exists()
    assert not (tmp_path / "target").exists()


@pytest.mark.fault
def test_other_networks_are_refused(original: OriginalModel) -> None:
    with pytest.raises(ValueError, match="no original EnCodec"):
        encodec_config({"conv.weight": torch.zeros(1)})
    weights = original.state_dict()
    config = encodec_config(weights)
    del weights["decoder.model.15.conv.conv.weight_g"]
    with pytest.raises(ValueError, match=r"(?s)weights of another network.*Missing.*decoder\.layers\.15"):
        encodec_from_original(weights, config)
