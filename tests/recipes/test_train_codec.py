import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import EncodecModel

from hf_audioformer.codes.small_encodec import decode_latents, encode_latents
from hf_audioformer.inference.listening import encode_clip
from hf_audioformer.models.audioformer.codec_audioformer import AudioCodec
from hf_audioformer.recipes import codec_report
from hf_audioformer.recipes.codec_clips import load_waveforms
from hf_audioformer.recipes.codec_report import codebook_perplexities
from hf_audioformer.recipes.train_codec import (
    STATE_FILE,
    CodecTrainer,
    TrainCodecArguments,
    build_codec,
    latent_targets,
    main,
    run,
)

SHIPPED = Path(__file__).parents[2] / "hf_audioformer" / "assets" / "checkpoint" / "codec"


@pytest.fixture(scope="module")
def clips_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(0)
    for index in range(6):
        time_seconds = np.arange(12_000) / 16_000
        tone = np.sin(2 * np.pi * 200 * (index + 1) * time_seconds) * np.linspace(1, 0, 12_000)
        soundfile.write(folder / f"{index}.wav", 0.1 * tone + 0.01 * random.standard_normal(12_000), 16_000)
    return folder


@pytest.fixture
def arguments(clips_folder: Path, tmp_path: Path) -> TrainCodecArguments:
    return TrainCodecArguments(
        output_dir=str(tmp_path / "codec"),
        sources=[str(clips_folder)],
        num_filters=2,
        hidden_size=8,
        codebook_size=16,
        encoder_steps=2,
        autoencoder_steps=2,
        quantized_steps=2,
        decoder_steps=2,
        batch_seconds=0.5,
        crop_seconds=[0.1, 0.25],
        fitting_seconds=2,
    )


def load_clips(arguments: TrainCodecArguments) -> list[torch.Tensor]:
    return load_waveforms(arguments.sources, arguments.hold_out, arguments.sampling_rate, arguments.rms_level_dbfs)


@pytest.mark.cli
def test_two_steps_of_each_stage_make_a_codec_that_loads_and_round_trips(
    arguments: TrainCodecArguments, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        [
            "train_codec",
            "--hold_out=[]",
            *(f"--{name}={value}" for name, value in vars(arguments).items() if name != "hold_out"),
        ]
    )
    folder = Path(arguments.output_dir)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "train_codec.yaml"}
    model, loading = EncodecModel.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    assert model.config.num_quantizers == 4
    for layer in model.quantizer.layers:
        assert layer.codebook.embed.abs().sum(1).min() > 0
    clip = load_clips(arguments)[0][: 320 * 30 - 7]
    codec = AudioCodec(model)
    codes = encode_clip(codec, clip)
    assert codes.shape == (4, 30)
    assert all(len(row.unique()) > 1 for row in codes)
    assert codec.decode(codes[None]).shape == (1, 30 * 320)
    with pytest.raises(ValueError, match="holds a finished codec"):
        run(arguments)
    codec_report.main(["--codec", str(folder), "--sources", str(arguments.sources)])
    assert capsys.readouterr().out.count("perplexity") == 4


@pytest.mark.invariant
def test_the_lstm_is_the_identity(arguments: TrainCodecArguments) -> None:
    model = build_codec(arguments).eval()
    waveforms = torch.randn(2, 3200)
    with torch.no_grad():
        latents = model.encoder(waveforms[:, None]).transpose(1, 2)
        torch.testing.assert_close(encode_latents(model, waveforms), latents, rtol=0, atol=0)
        torch.testing.assert_close(
            decode_latents(model, latents), model.decoder(latents.transpose(1, 2))[:, 0], rtol=0, atol=0
        )


@pytest.mark.unit
def test_the_signal_keeps_its_strength_at_the_start(arguments: TrainCodecArguments) -> None:
    waveforms = arguments.level * torch.randn(4, 24_000)
    with torch.no_grad():
        latents = encode_latents(build_codec(replace(arguments, num_filters=8, hidden_size=64)), waveforms)
    assert 0.1 < latents.std() < 10


@pytest.mark.unit
def test_latent_targets_are_causal_and_one_per_frame(arguments: TrainCodecArguments) -> None:
    waveforms = torch.randn(1, 3200)
    changed = waveforms.clone()
    changed[:, 5 * 320 :] = 0
    targets, targets_of_changed = latent_targets(waveforms, arguments), latent_targets(changed, arguments)
    assert targets.shape == (1, 10, arguments.hidden_size)
    torch.testing.assert_close(targets[:, :5], targets_of_changed[:, :5], rtol=0, atol=0)
    assert not torch.allclose(targets[:, 5:], targets_of_changed[:, 5:])


@pytest.mark.fault
def test_an_interrupted_training_ends_like_an_unbroken_one(arguments: TrainCodecArguments) -> None:
    arguments = replace(
        arguments, encoder_steps=5, autoencoder_steps=5, quantized_steps=20, decoder_steps=20, checkpoint_steps=3
    )
    unbroken = replace(arguments, output_dir=arguments.output_dir + "_unbroken")
    run(unbroken)
    state = Path(arguments.output_dir) / STATE_FILE
    interrupter = threading.Thread(target=_interrupt_when_there_is, args=(state,), daemon=True)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt, match="the same command continues"):
        run(arguments)
    interrupter.join()
    assert torch.load(state, weights_only=True)["step"] < 50
    run(arguments)
    assert not state.exists()
    resumed, expected = (EncodecModel.from_pretrained(each.output_dir).state_dict() for each in (arguments, unbroken))
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def _interrupt_when_there_is(path: Path) -> None:
    while not path.exists():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.fault
def test_a_loss_that_is_not_finite_ends_the_training(arguments: TrainCodecArguments) -> None:
    trainer = CodecTrainer(arguments, load_clips(arguments))
    with torch.no_grad():
        next(trainer.model.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"the loss is nan at step 1; .* lower learning_rate"):
        trainer.train_step()


@pytest.mark.fault
def test_a_state_of_other_arguments_is_refused(arguments: TrainCodecArguments, tmp_path: Path) -> None:
    clips = load_clips(arguments)
    CodecTrainer(arguments, clips).save_state(tmp_path / STATE_FILE)
    with pytest.raises(ValueError, match="was made with codebook_size=16, now it is 8"):
        CodecTrainer(replace(arguments, codebook_size=8), clips).load_state(tmp_path / STATE_FILE)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": []}, "sources is empty"),
        ({"codebook_size": 200}, "must be a power of two"),
        ({"warmup_steps": 0}, "warmup_steps is 0"),
        ({"checkpoint_steps": 0}, "checkpoint_steps is 0"),
        ({"codebook_size": 256}, "fitting_seconds is 2, which has 150 frames, too few to fit 256 entries"),
        ({"fitting_seconds": 0.4}, "fitting_seconds is 0.4, which has 0 frames"),
        ({"crop_seconds": [1.0]}, "crop_seconds 1.0 exceeds batch_seconds 0.5"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: TrainCodecArguments, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(arguments, **changes)


@pytest.mark.reference
def test_the_shipped_codec_uses_its_codebooks(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_AUDIOFORMER_DATA", str(data_folder))
    codec = AudioCodec.from_pretrained(SHIPPED)
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 4e6
    unseen = load_waveforms(["esc10"], ["esc10:fold=5"], codec.sampling_rate, -23.0, only_held_out=True)
    perplexities = codebook_perplexities([encode_clip(codec, clip) for clip in unseen[::4]], codec.codebook_size)
    assert min(perplexities) > 0.2 * codec.codebook_size, perplexities


@pytest.mark.reference
def test_no_two_entries_of_the_shipped_codebooks_are_close() -> None:
    for layer in EncodecModel.from_pretrained(SHIPPED).quantizer.layers:
        distances = torch.pdist(layer.codebook.embed)
        assert distances.min() > 0.02 * distances.mean()
