"""`hf-audioformer embed`: its files hold the embedder's vectors, and neighbours are those of a plain loop."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from hf_audioformer import AudioFormerFeatureExtractor, cli
from hf_audioformer.inference import Embedder
from hf_audioformer.inference.embedding_store import read_embeddings

from ..fixtures_recipes import PITCHES_HZ, SAMPLING_RATE, tone
from ..inference.tiny_classifiers import audioformer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tiny_extractor: AudioFormerFeatureExtractor, tmp_path_factory: pytest.TempPathFactory) -> str:
    return audioformer(tmp_path_factory.mktemp("model"), tiny_extractor)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for seed, label in enumerate([*PITCHES_HZ, *PITCHES_HZ]):
        soundfile.write(folder / f"{label}_{seed}.wav", tone([label], seed), SAMPLING_RATE)
    return folder


@pytest.mark.cli
def test_neighbours_now_and_from_the_file(
    model: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, query = str(tmp_path / "e.parquet"), str(clips / "high_2.wav")
    asked = ["--neighbours", query, "--top", "3", "--device", "cpu"]
    assert cli.main(["embed", model, str(clips), "--output", output, *asked]) == 0
    shown = capsys.readouterr().out
    embedder = Embedder.from_pretrained(model, device="cpu")
    vectors = {str(path): embedder(path).vector for path in sorted(clips.iterdir())}
    stored = read_embeddings(Path(output))
    assert stored.files == list(vectors)
    np.testing.assert_allclose(stored.vectors, np.stack(list(vectors.values())), atol=1e-5)

    target = vectors.pop(query)
    cosines = {
        name: vector @ target / np.linalg.norm(vector) / np.linalg.norm(target) for name, vector in vectors.items()
    }
    best = sorted(vectors, key=lambda name: -cosines[name])[:3]
    assert f"most like {query} of 5 clips, by cosine" in shown
    table = [line.split() for line in shown.splitlines()[-3:]]
    assert [name for _, name in table] == best
    assert [float(cosine) for cosine, _ in table] == pytest.approx([cosines[name] for name in best], abs=1e-4)

    assert cli.main(["embed", model, output, *asked]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == shown.splitlines()[-3:]

    def error_of(*words: str) -> str:
        assert cli.main(["embed", model, *words]) == 1
        return capsys.readouterr().err

    assert "was made with pooling mean, and statistics is asked for" in error_of(
        output, *asked, "--pooling", "statistics"
    )
    assert "name it alone, with --neighbours and without --output" in error_of(output, str(clips), *asked)
    assert "e.parquet exists. Replace it with --overwrite true" in error_of(str(clips), "--output", output)
    assert "nothing to do: name a file with --output, or a clip with --neighbours" in error_of(str(clips))


@pytest.mark.fault
def test_bad_files_are_named_and_left_out(
    model: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, output = tmp_path / "bad.wav", tmp_path / "e.safetensors"
    bad.write_bytes(b"no sound")
    assert cli.main(["embed", model, str(bad), str(clips / "low_0.wav"), "--output", str(output)]) == 1
    shown = capsys.readouterr()
    assert f"left out: {bad}: not readable as audio" in shown.err
    assert "1 of 2 clips could not be embedded; they are named above" in shown.err
    assert read_embeddings(output).files == [str(clips / "low_0.wav")]
