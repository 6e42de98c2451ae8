"""Sound is decoded once, held as far as it fits, and bad files are told at once."""

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader

from hf_audioformer.data import ClipTable, read_clips
from hf_audioformer.data.waveform_cache import WaveformCache
from hf_audioformer.models.audioformer.waveform_audioformer import resample

from ..warm_processes import exit_codes, start_together


def counted(clips: ClipTable) -> tuple[ClipTable, Counter[str]]:
    """The clips, and how often each is decoded."""
    counts: Counter[str] = Counter()

    def load(row: Any) -> Any:
        counts[row["id"]] += 1
        return clips.load_row(row)

    return replace(clips, load_row=load), counts


@pytest.fixture
def bad_folder(tmp_path: Path) -> Path:
    """Seven clips of a class; the third is too short, the fifth is no sound."""
    (tmp_path / "a").mkdir()
    for number in range(11):
        soundfile.write(tmp_path / "a" / f"{number:02}.wav", np.full(200 if number == 2 else 900, 0.1), 16_000)
    (tmp_path / "a" / "04.wav").write_bytes(b"no sound")
    return tmp_path


@pytest.mark.unit
def test_clips_are_decoded_once_and_resampled(tone_folder: Path) -> None:
    clips, counts = counted(read_clips(str(tone_folder)))
    cache = WaveformCache(clips, [3, 1, 3], 8_000)
    for index in (1, 3, 3):
        audio = read_clips(str(tone_folder)).load(index)
        expected = resample(torch.from_numpy(audio["array"]), 16_000, 8_000).numpy()
        np.testing.assert_array_equal(cache[index], expected)
        assert cache[index].dtype == np.float32
        assert cache.num_samples(index) == len(expected)
    assert counts == {clips.ids[1]: 1, clips.ids[3]: 1}
    assert 1 in cache
    assert 0 not in cache
    with pytest.raises(KeyError, match="clip 0 is not in this cache: it was not asked for"):
        cache[0]


@pytest.mark.unit
def test_what_does_not_fit_is_decoded_when_asked_for(tone_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips, counts = counted(read_clips(str(tone_folder)))
    whole = WaveformCache(clips, range(6), 16_000)
    counts.clear()
    size = sum(whole[index].nbytes for index in range(3))
    cache = WaveformCache(clips, range(6), 16_000, max_gigabytes=size / 1e9)
    assert "3 of 6 clips" in caplog.text
    assert sum(counts.values()) == 4
    lengths = [cache.num_samples(index) for index in range(6)]
    assert sum(counts.values()) == 6
    for index in (0, 0, 1, 2, 3, 3, 4, 5, 5):
        np.testing.assert_array_equal(cache[index], whole[index])
    assert lengths == [cache.num_samples(index) for index in range(6)] == [len(whole[index]) for index in range(6)]
    assert sum(counts.values()) == 9


@pytest.mark.fault
@pytest.mark.parametrize("max_gigabytes", [4.0, 0.0])
def test_bad_clips_are_left_out_and_listed(bad_folder: Path, max_gigabytes: float) -> None:
    clips = read_clips(str(bad_folder))
    cache = WaveformCache(clips, range(11), 16_000, skip_bad=True, max_gigabytes=max_gigabytes)
    assert [index for index in range(11) if index in cache] == [0, 1, 3, 5, 6, 7, 8, 9, 10]
    assert list(cache.failures) == [2, 4]
    assert "02.wav: 200 samples at 16000 Hz are less than one frame" in cache.failures[2]
    assert "04.wav" in cache.failures[4]
    with pytest.raises(KeyError, match=r"clip 2 is not in this cache: .*200 samples"):
        cache[2]


def cache_of_two() -> None:
    """Fills a cache that holds nothing; each process says what it decoded and what it knows."""
    state = PartialState(cpu=True)
    clips, counts = counted(read_clips(sys.argv[1]))
    cache = WaveformCache(clips, range(11), 16_000, skip_bad=True, max_gigabytes=0.0)
    decoded = sum(counts.values())
    lengths = [cache.num_samples(index) for index in range(11) if index in cache]
    known = {"decoded": decoded, "failures": list(cache.failures.items()), "lengths": lengths}
    known["again"] = sum(counts.values())
    counts.clear()
    late = WaveformCache(clips, range(6, 11), 16_000, max_gigabytes=0.0)
    late.learn_lengths(range(6, 11))
    known["late_lengths"] = [late.num_samples(index) for index in range(6, 11)]
    known["late"] = sum(counts.values())
    Path(sys.argv[2], f"{state.process_index}.json").write_text(json.dumps(known))
    torch.distributed.destroy_process_group()


@pytest.mark.invariant
def test_two_processes_share_clips_that_are_not_held(bad_folder: Path, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("known")
    printed = folder / "printed.txt"
    processes = start_together(cache_of_two, bad_folder, folder, output=printed)
    assert exit_codes(processes) == [0, 0], printed.read_text()
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    alone = WaveformCache(read_clips(str(bad_folder)), range(11), 16_000, skip_bad=True)
    for known in found:
        assert known["decoded"] == known["again"] == 1 + 5  # the first tells that there is no room
        assert known["failures"] == [list(failure) for failure in alone.failures.items()]
        assert known["lengths"] == [alone.num_samples(index) for index in range(11) if index in alone]
        assert known["late"] == 1 + 2
        assert known["late_lengths"] == known["lengths"][4:]


@pytest.mark.fault
def test_bad_clips_are_errors_that_name_them(bad_folder: Path) -> None:
    clips = read_clips(str(bad_folder))
    with pytest.raises(ValueError, match=r"02\.wav: 200 samples .*skip_bad true leaves such clips out"):
        WaveformCache(clips, range(11), 16_000)
    with pytest.raises(ValueError, match=r"04\.wav.*not readable as audio"):
        WaveformCache(clips, [0, 4], 16_000)
    with pytest.raises(ValueError, match=r"2 of 4 clips cannot be used, more than 20%; the first: .*02\.wav"):
        WaveformCache(clips, [1, 2, 3, 4], 16_000, skip_bad=True)
    late = WaveformCache(clips, [1, 4], 16_000, max_gigabytes=0.0)
    with pytest.raises(ValueError, match=r"04\.wav.*not readable as audio"):
        late[4]
    with pytest.raises(ValueError, match=r"04\.wav.*not readable as audio.*skip_bad true leaves such clips out"):
        late.learn_lengths([1, 4])


@pytest.mark.fault
def test_codes_hold_no_sound(tone_folder: Path) -> None:
    clips = replace(read_clips(str(tone_folder)), codes=object())
    with pytest.raises(ValueError, match="the clips are a store of codes, which holds no sound"):
        WaveformCache(clips, [0], 16_000)


@pytest.mark.invariant
def test_workers_have_the_same_sound(tone_folder: Path) -> None:
    clips = read_clips(str(tone_folder))
    for max_gigabytes in (4.0, 0.0):
        cache = WaveformCache(clips, range(6), 16_000, max_gigabytes=max_gigabytes)
        loader = DataLoader(list(range(6)), batch_size=None, num_workers=1, collate_fn=cache.__getitem__)
        for index, waveform in enumerate(loader):
            np.testing.assert_array_equal(waveform, cache[index])
