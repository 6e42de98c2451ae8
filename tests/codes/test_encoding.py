"""Every clip is encoded once; a bad one is named, or left out and listed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_audioformer import AudioFormerFeatureExtractor, read_clips
from hf_audioformer.codes import encode_clips

GOOD = np.random.default_rng(0).uniform(-0.5, 0.5, 4_000).astype(np.float32)
BAD = np.full(4_000, np.nan, dtype=np.float32)
NAMES = [f"clip_{index}.wav" for index in range(6)]


def loader(*bad: int) -> Any:
    def load(index: int) -> Mapping[str, Any]:
        if index in bad and index % 2:
            raise OSError(f"{NAMES[index]} cannot be opened")
        return {"array": BAD if index in bad else GOOD * (index + 1) / 6, "sampling_rate": 16_000}

    return load


@pytest.mark.unit
def test_codes_are_those_of_the_feature_extractor(
    tone_folder: Path, tiny_extractor: AudioFormerFeatureExtractor
) -> None:
    clips = read_clips(tone_folder)
    encoded = encode_clips(clips.load, clips.ids[:4], tiny_extractor)
    assert encoded.failures == {}
    assert list(encoded.input_ids) == [0, 1, 2, 3]
    for index, ids in encoded.input_ids.items():
        expected = tiny_extractor(clips.load(index)["array"], sampling_rate=16_000)["input_ids"][0]
        np.testing.assert_array_equal(ids, expected)
        assert ids.dtype == np.int64


@pytest.mark.fault
@pytest.mark.parametrize(("index", "message"), [(2, "clip_2.wav: .* NaN"), (3, "^clip_3.wav cannot be opened")])
def test_a_bad_clip_is_named_and_the_way_out_told(
    index: int, message: str, tiny_extractor: AudioFormerFeatureExtractor
) -> None:
    with pytest.raises(ValueError, match=rf"{message}.*\(--data.skip_bad true leaves such clips out\)"):
        encode_clips(loader(index), NAMES, tiny_extractor)


@pytest.mark.fault
def test_bad_clips_are_left_out_and_listed(
    tiny_extractor: AudioFormerFeatureExtractor, caplog: pytest.LogCaptureFixture
) -> None:
    encoded = encode_clips(loader(3), NAMES, tiny_extractor, skip_bad=True)
    assert list(encoded.input_ids) == [0, 1, 2, 4, 5]
    assert encoded.failures == {3: "clip_3.wav cannot be opened"}
    assert caplog.messages == ["left out 1 of 6 clips:", "  clip_3.wav cannot be opened"]


@pytest.mark.invariant
def test_batches_give_the_same_codes_and_name_the_same_bad_clip(tiny_extractor: AudioFormerFeatureExtractor) -> None:
    def load(index: int) -> Mapping[str, Any]:
        return loader(3)(index) | {"sampling_rate": (8_000, 16_000)[index // 2 % 2]}

    one_by_one, batched = (encode_clips(load, NAMES, tiny_extractor, skip_bad=True, batch_size=size) for size in (1, 4))
    assert batched.failures == one_by_one.failures == {3: "clip_3.wav cannot be opened"}
    assert list(batched.input_ids) == list(one_by_one.input_ids)
    for index, ids in batched.input_ids.items():
        np.testing.assert_array_equal(ids, one_by_one.input_ids[index])


@pytest.mark.fault
def test_many_bad_clips_are_no_accident(tiny_extractor: AudioFormerFeatureExtractor) -> None:
    with pytest.raises(ValueError, match=r"2 of 6 clips cannot be used, more than 20%; the first: clip_2.wav: "):
        encode_clips(loader(2, 3), NAMES, tiny_extractor, skip_bad=True)
