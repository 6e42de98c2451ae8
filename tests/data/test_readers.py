"""Folders, csv, parquet and Hub tables become the same kind of `ClipTable`; ambiguity and damage are refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet
import pytest

from hf_audioformer.data import read_clips
from hf_audioformer.data.readers import _load_from_hub

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, wav: bytes) -> Write:
    """Writes files below a fresh folder (None: a sound) and returns the folder."""

    def _write(**files: str | None) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(wav if text is None else text.encode())
        return tmp_path

    return _write


@pytest.fixture
def write_parquet(tmp_path: Path) -> Callable[..., Path]:
    def _write(features: dict[str, Any] | None = None, **columns: list[Any]) -> Path:
        path = tmp_path / "clips.parquet"
        table = datasets.Dataset.from_dict(columns)
        for name, feature in (features or {}).items():
            table = table.cast_column(name, feature)
        table.to_parquet(path)
        return path

    return _write


def entries(wav: bytes, *names: str | None) -> list[dict[str, Any]]:
    return [{"bytes": wav, "path": name} for name in names]


@pytest.mark.unit
def test_folder_with_a_subfolder_per_class(write: Write) -> None:
    folder = write(**{"dog/a.wav": None, "cat/b.wav": None, "cat/a.wav": None, "README.md": "words", ".x/c.wav": None})
    clips = read_clips(str(folder))
    assert clips.ids == ["cat/a.wav", "cat/b.wav", "dog/a.wav"]
    assert clips.label_names == ("cat", "dog")
    assert not clips.multi_label
    np.testing.assert_array_equal(clips.targets(), [0, 0, 1])
    assert clips.load(2)["array"].shape == (800,)


@pytest.mark.unit
def test_folder_with_splits_above_the_classes(write: Write) -> None:
    clips = read_clips(write(**{"train/dog/a.wav": None, "test/cat/a.wav": None}))
    assert clips.ids == ["test/cat/a.wav", "train/dog/a.wav"]
    assert clips.column("split") == ["test", "train"]


@pytest.mark.unit
def test_a_list_in_each_folder_of_a_split(write: Write) -> None:
    """As `datasets` has it: train/metadata.csv, test/metadata.csv."""
    heads = {name: f"file_name,label\n{name}.wav,{label}\n" for name, label in (("a", "dog"), ("b", "cat"))}
    folder = write(
        **{"train/metadata.csv": heads["a"], "train/a.wav": None, "test/metadata.csv": heads["b"], "test/b.wav": None}
    )
    clips = read_clips(folder)
    assert clips.ids == ["test/b.wav", "train/a.wav"]
    assert (clips.column("split"), clips.label_names) == (["test", "train"], ("cat", "dog"))
    assert clips.load(1)["array"].shape == (800,)


@pytest.mark.unit
def test_linked_folders_are_classes_and_empty_ones_are_told_of(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    folder = write(**{"clips/cat/a.CAF": None, "dogs/b.wav": None})
    (folder / "clips" / "dog").symlink_to(folder / "dogs")
    (folder / "clips" / "cat" / "loop").symlink_to(folder / "clips")
    (folder / "clips" / "bird").mkdir()
    clips = read_clips(folder / "clips")
    assert (clips.ids, clips.label_names) == (["cat/a.CAF", "dog/b.wav"], ("cat", "dog"))
    assert caplog.messages == [f"{folder / 'clips'}: no sound file in bird; it is no class"]


@pytest.mark.fault
def test_a_name_that_is_not_utf8(write: Write) -> None:
    folder = write(**{"cat/a.wav": None, "dog/b.wav": None})
    (folder / "dog" / "b.wav").rename(folder / "dog" / os.fsdecode(b"caf\xe9.wav"))
    with pytest.raises(ValueError, match=r"dog/caf\\xe9\.wav': the name is not UTF-8; rename the file"):
        read_clips(folder)


@pytest.mark.unit
def test_paths_of_a_list_may_be_absolute(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(**{"a.wav": None})
    write(**{"clips.csv": f"path,label\n{folder / 'a.wav'},x\n"})
    monkeypatch.chdir(folder.parent)
    assert len(read_clips(f"{folder.name}/clips.csv")) == 1


@pytest.mark.fault
def test_a_table_that_names_a_file_twice(write: Write, write_parquet: Callable[..., Path]) -> None:
    write(**{"a.wav": None})
    with pytest.raises(ValueError, match=r"'a\.wav' appears in rows 0 and 1; ids must be unique"):
        read_clips(write_parquet(path=["a.wav", "a.wav"], label=["x", "y"]))


@pytest.mark.unit
def test_sound_without_labels(write: Write) -> None:
    folder = write(**{"a.wav": None, "night/2026/b.wav": None, "list.csv": "path\na.wav\n"})
    for source, ids in ((folder, ["a.wav", "night/2026/b.wav"]), (folder / "list.csv", ["a.wav"])):
        clips = read_clips(source, needs_labels=False)
        assert clips.ids == ids
        assert clips.label_names == ()
        assert clips.load(0)["array"].shape == (800,)
        with pytest.raises(ValueError, match="the clips have no labels"):
            clips.targets()
        with pytest.raises(ValueError, match=r"cannot tell its class|label_column is not clear"):
            read_clips(source)


@pytest.mark.fault
def test_one_file_outside_the_class_folders_does_not_drop_all_labels(write: Write) -> None:
    folder = write(**{"dog/a.wav": None, "cat/b.wav": None, "stray.wav": None})
    with pytest.raises(ValueError, match=r"stray.wav: cannot tell its class"):
        read_clips(folder, needs_labels=False)


@pytest.mark.unit
def test_labels_that_are_not_needed_are_read_where_they_are(write: Write) -> None:
    clips = read_clips(write(**{"dog/a.wav": None, "cat/b.wav": None}), needs_labels=False)
    assert clips.label_names == ("cat", "dog")
    np.testing.assert_array_equal(clips.targets(), [0, 1])


@pytest.mark.unit
def test_folder_with_metadata(write: Write) -> None:
    folder = write(
        **{"metadata.csv": "file_name,label,speaker\nx/a.wav,7,ann\nb.wav,10,bob\n", "x/a.wav": None, "b.wav": None}
    )
    clips = read_clips(folder)
    assert clips.ids == ["x/a.wav", "b.wav"]
    assert clips.label_names == ("7", "10")
    assert clips.column("speaker") == ["ann", "bob"]
    assert clips.load(0)["sampling_rate"] == 8_000


@pytest.mark.unit
def test_esc50_as_it_is_published(write: Write) -> None:
    header = "filename,fold,target,category,esc10,src_file,take\n"
    rows = "1-100032-A-0.wav,1,0,dog,True,100032,A\n5-9032-A-0.wav,5,36,vacuum_cleaner,False,9032,A\n"
    files = {"meta/esc50.csv": header + rows, "audio/1-100032-A-0.wav": None, "audio/5-9032-A-0.wav": None}
    clips = read_clips(write(**files, **{"README.md": "words", "tests/test.wav": None}))
    assert clips.ids == ["1-100032-A-0.wav", "5-9032-A-0.wav"]
    assert clips.label_names == ("dog", "vacuum_cleaner")
    assert not clips.multi_label
    assert (clips.column("fold"), clips.column("take")) == (["1", "5"], ["A", "A"])
    assert clips.load(1)["array"].shape == (800,)


FSD50K = {
    "FSD50K.ground_truth/dev.csv": "fname,labels,mids,split\n"
    '64760,"Electric_guitar,Guitar,Music","/m/02sgy,/m/0342h,/m/04rlf",train\n16399,Speech,/m/09x0r,val\n',
    "FSD50K.ground_truth/eval.csv": 'fname,labels,mids\n37199,"Speech,Music","/m/09x0r,/m/04rlf"\n',
    "FSD50K.ground_truth/vocabulary.csv": "0,Electric_guitar,/m/02sgy\n",
    "FSD50K.dev_audio/64760.wav": None,
    "FSD50K.dev_audio/16399.wav": None,
    "FSD50K.eval_audio/37199.wav": None,
}


@pytest.mark.unit
def test_fsd50k_as_it_is_published(write: Write) -> None:
    clips = read_clips(write(**FSD50K))
    assert clips.ids == ["64760", "16399", "37199"]
    assert clips.column("split") == ["train", "val", "test"]
    assert clips.label_names == ("Electric_guitar", "Guitar", "Music", "Speech")
    np.testing.assert_array_equal(clips.targets(), [[1, 1, 1, 0], [0, 0, 0, 1], [0, 0, 1, 1]])
    assert clips.column("mids")[0] == "/m/02sgy,/m/0342h,/m/04rlf"
    assert clips.load(2)["array"].shape == (800,)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"FSD50K.ground_truth/eval.csv": None}, ValueError, "eval.csv: not a csv"),
        ({"FSD50K.ground_truth/eval.csv": "fname,labels\n"}, ValueError, r"eval.csv: expected rows .* found no rows"),
        (
            {"FSD50K.ground_truth/eval.csv": "id,labels\n1,a\n"},
            ValueError,
            "'fname' and 'labels', .*; found 'id', 'labe",
        ),
        ({"FSD50K.ground_truth/eval.csv": "fname,labels\n1,a\n"}, FileNotFoundError, r"1 do not exist, .*1\.wav"),
    ],
)
def test_published_sets_that_are_damaged(
    write: Write, changed: dict[str, str | None], error: type[Exception], message: str
) -> None:
    folder = write(**(FSD50K | changed))
    with pytest.raises(error, match=message):
        read_clips(folder)


@pytest.mark.unit
def test_csv_with_audio_elsewhere(write: Write) -> None:
    folder = write(**{"lists/a.csv": "path,class\na.wav,x\n", "sounds/a.wav": None})
    clips = read_clips(folder / "lists" / "a.csv", audio_root=folder / "sounds", label_column="class")
    assert clips.load(0)["array"].shape == (800,)
    assert clips.label_names == ("x",)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("header", "arguments"),
    [("labels", {}), ("label", {}), ("tags", {"label_column": "tags", "multi_label": True})],
)
def test_csv_with_several_labels(write: Write, header: str, arguments: dict[str, Any]) -> None:
    folder = write(**{"a.csv": f"path,{header}\na.wav,dog; cat\nb.wav,cat\n", "a.wav": None, "b.wav": None})
    clips = read_clips(folder / "a.csv", **arguments)
    assert clips.multi_label
    assert clips.label_names == ("cat", "dog")
    np.testing.assert_array_equal(clips.targets(), np.array([[1, 1], [1, 0]], dtype=np.float32))
    assert clips.targets().dtype == np.float32


@pytest.mark.unit
def test_separator_in_a_single_label_is_kept_on_request(write: Write) -> None:
    folder = write(**{"a.csv": "path,label\na.wav,dog;cat\n", "a.wav": None})
    assert read_clips(folder / "a.csv", multi_label=False).label_names == ("dog;cat",)


@pytest.mark.unit
def test_parquet_with_bytes(write_parquet: Callable[..., Path], wav: bytes) -> None:
    label = datasets.ClassLabel(names=["zebra", "ant"])
    path = write_parquet({"label": label}, audio=entries(wav, "a", "b"), label=[1, 0], fold=[1, 2])
    clips = read_clips(path)
    assert clips.ids == ["a", "b"]
    assert clips.label_names == ("zebra", "ant")
    np.testing.assert_array_equal(clips.targets(), [1, 0])
    assert clips.column("fold") == [1, 2]
    assert clips.load(1)["array"].shape == (800,)


@pytest.mark.unit
def test_parquet_written_by_datasets_with_decoding_on(write_parquet: Callable[..., Path], wav: bytes) -> None:
    path = write_parquet({"audio": datasets.Audio()}, audio=entries(wav, None), label=["x"])
    clips = read_clips(path)
    assert clips.ids == ["00000000"]
    assert clips.load(0)["array"].shape == (800,)


@pytest.mark.unit
def test_parquet_with_paths(write: Write, write_parquet: Callable[..., Path]) -> None:
    write(**{"sounds/a.wav": None})
    clips = read_clips(write_parquet(path=["sounds/a.wav"], label=["x"]))
    assert clips.ids == ["sounds/a.wav"]
    assert clips.load(0)["array"].shape == (800,)


@pytest.mark.unit
def test_parquet_with_lists_of_labels(write_parquet: Callable[..., Path], wav: bytes) -> None:
    clips = read_clips(write_parquet(audio=entries(wav, "a", "b", "c"), labels=[["b", "a", "b"], [], ["a"]]))
    assert clips.multi_label
    np.testing.assert_array_equal(clips.targets([0, 1]), [[1, 1], [0, 0]])


@pytest.mark.unit
def test_chosen_label_column_takes_the_place_of_another(write_parquet: Callable[..., Path], wav: bytes) -> None:
    path = write_parquet(audio=entries(wav, "a"), label=[3], category=["dog"])
    assert read_clips(path, label_column="category").label_names == ("dog",)


@pytest.mark.unit
def test_hub_table_joins_its_splits(tmp_path: Path, wav: bytes) -> None:
    """A local folder of parquet files goes through the same `datasets.load_dataset` as an id on the Hub."""
    (tmp_path / "data").mkdir()
    for split, label in (("train", "x"), ("test", "y")):
        table = datasets.Dataset.from_dict({"audio": entries(wav, "a"), "label": [label]})
        table.to_parquet(tmp_path / "data" / f"{split}-00000.parquet")
    joined = _load_from_hub(str(tmp_path), None, None, None)
    assert joined["split"][:] == ["train", "test"]
    assert joined["id"][:] == ["00000000", "00000001"]


@pytest.mark.unit
def test_label_names_fix_the_order_and_may_be_more(write: Write) -> None:
    folder = write(**{"dog/a.wav": None, "cat/b.wav": None})
    clips = read_clips(folder, label_names=["dog", "owl", "cat"])
    assert clips.label_names == ("dog", "owl", "cat")
    np.testing.assert_array_equal(clips.targets(), [2, 0])


@pytest.mark.unit
def test_class_indices_are_matched_by_name_not_by_number(write_parquet: Callable[..., Path], wav: bytes) -> None:
    label = datasets.ClassLabel(names=["b", "a"])
    path = write_parquet({"label": label}, audio=entries(wav, "x", "y"), label=[0, 1])
    np.testing.assert_array_equal(read_clips(path, label_names=["a", "b"]).targets(), [1, 0])


@pytest.mark.fault
def test_label_names_that_lack_a_class(write: Write) -> None:
    folder = write(**{"dog/a.wav": None, "cat/b.wav": None})
    with pytest.raises(ValueError, match=r"1 labels are not in label_names, first \['cat'\]; 1 .* first \['Cat'\]"):
        read_clips(folder, label_names=["dog", "Cat"])
    with pytest.raises(ValueError, match="label_names repeats 'dog'"):
        read_clips(folder, label_names=["dog", "cat", "dog"])


@pytest.mark.fault
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": ""}, "no clips found; expected metadata.csv"),
        ({"a.wav": None}, "cannot tell its class"),
        ({"x/y/z/a.wav": None}, "cannot tell its class"),
        ({"x/a.m4a": ""}, r"a\.m4a: \.m4a cannot be read; convert it"),
        ({"train/x/a.wav": None, "y/b.wav": None}, "lies in a split folder and others do not"),
        ({"metadata.csv": ""}, "no clips found, the file has no rows"),
        ({"metadata.csv": "file_name,label\n"}, "no clips found, the file has no rows"),
        ({"metadata.csv": "file_name,label,label\na.wav,x,x\n"}, "header repeats 'label'"),
        ({"metadata.csv": "file_name,label\na.wav\n"}, r"metadata\.csv, line 2: 1 cells, the header has 2"),
        (
            {"metadata.csv": "name,label\na.wav,x\n"},
            r"audio_column is not clear, none has a usual name .* 'name', 'label'",
        ),
        ({"metadata.csv": "file_name,path,label\na.wav,a.wav,x\n"}, "'file_name' and 'path' both look like it"),
        ({"metadata.csv": "file_name,speaker\na.wav,x\n", "a.wav": None}, "label_column is not clear"),
        ({"metadata.csv": "file_name,label,labels\na.wav,x,x\n", "a.wav": None}, "'label' and 'labels' both"),
        ({"metadata.csv": "file_name,label\n../a.wav,x\n"}, r"the path '../a\.wav' leads out of"),
        ({"metadata.csv": "file_name,label\nx/../../a.wav,x\n"}, "leads out of"),
        ({"metadata.csv": "file_name,label\n/etc/a.wav,x\n"}, "leads out of"),
        ({"metadata.csv": "file_name,label\na.wav,x\na.wav,y\n", "a.wav": None}, r"'a\.wav' appears in rows 0 and 1"),
        (
            {"metadata.csv": "file_name,label\na.wav,x\n./a.wav,y\n", "a.wav": None},
            "a file is one clip, or it could be",
        ),
        (
            {
                **{"test/metadata.csv": "path,label\na.wav,x\n", "test/a.wav": None},
                **{"train/metadata.csv": "path,label,fold\na.wav,x,1\n", "train/a.wav": None},
            },
            r"train/metadata\.csv: its columns are not those of .*test/metadata\.csv",
        ),
        ({"train/a.wav": None, "test/b.wav": None}, "files lie in test, train, which name splits and not classes"),
        ({"metadata.csv": "file_name,label\na.wav,\n", "a.wav": None}, r"clip 'a\.wav', column 'label': no label"),
        ({"metadata.csv": "file_name,label\na.wav,x\n,y\n", "a.wav": None}, r"metadata\.csv: row 2 names no file"),
    ],
)
def test_faulty_folders(write: Write, files: dict[str, str | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_clips(write(**files))


@pytest.mark.fault
def test_files_that_do_not_exist(write: Write) -> None:
    folder = write(**{"metadata.csv": "file_name,label\na.wav,x\n"})
    with pytest.raises(FileNotFoundError, match=r"names 1 files, of which 1 do not exist, first .*a\.wav; paths are"):
        read_clips(folder)
    with pytest.raises(FileNotFoundError, match=r"a\.wav"):
        read_clips(folder, missing_share=1.0).load(0)
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(FileNotFoundError, match=rf"{name} does not exist"):
            read_clips(folder / name)


@pytest.mark.fault
def test_named_column_that_does_not_exist(write: Write) -> None:
    folder = write(**{"metadata.csv": "file_name,category\na.wav,x\n", "a.wav": None})
    with pytest.raises(ValueError, match="label_column='categories' is not a column; did you mean 'category'"):
        read_clips(folder, label_column="categories")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        ({"label": [0.5, 1.0]}, {}, "the label 0.5 is a float; expected text or an integer"),
        ({"label": ["x", None]}, {}, "clip 'b', column 'label': no label"),
        ({"labels": [["x", "y"], ["x"]]}, {"multi_label": False}, r"clip 'a'.* 2 labels \['x', 'y'\], expected one"),
        ({"label": ["x", "y"], "id": ["q", "q"]}, {}, "the clip 'q' appears in rows 0 and 1"),
    ],
)
def test_faulty_labels(
    write_parquet: Callable[..., Path], wav: bytes, columns: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_clips(write_parquet(audio=entries(wav, "a", "b"), **columns), **arguments)


@pytest.mark.fault
def test_class_index_out_of_range(write_parquet: Callable[..., Path], wav: bytes) -> None:
    path = write_parquet(audio=entries(wav, "a", "b"), label=[0, 2])
    table = pyarrow.parquet.read_table(path)
    features = datasets.Dataset(table).features | {"label": datasets.ClassLabel(names=["x", "y"])}
    metadata = datasets.Features(features).arrow_schema.metadata
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(ValueError, match="clip 'b', column 'label': class 2 is out of range; there are 2 classes"):
        read_clips(path)


@pytest.mark.fault
def test_csv_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("path,label\na.wav,Gänse\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.csv: not a csv in UTF-8"):
        read_clips(tmp_path / "a.csv")


@pytest.mark.unit
def test_ids_of_a_table_are_kept_as_text(write_parquet: Callable[..., Path], wav: bytes) -> None:
    assert read_clips(write_parquet(audio=entries(wav, "a", "b"), label=["x", "y"], id=[7, 5])).ids == ["7", "5"]


@pytest.mark.fault
def test_faulty_parquet_files(tmp_path: Path, write_parquet: Callable[..., Path], wav: bytes) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_text("text")
    with pytest.raises(ValueError, match=r"broken\.parquet: not a readable parquet file"):
        read_clips(broken)
    with pytest.raises(ValueError, match=r"audio column holds int64; expected paths, or structs"):
        read_clips(write_parquet(audio=[1], label=["x"]))
    half = [*entries(wav, "a"), {"bytes": None, "path": "b"}]
    with pytest.raises(ValueError, match="1 of 2 clips have no audio bytes"):
        read_clips(write_parquet(audio=half, label=["x", "y"]))


@pytest.mark.fault
def test_damaged_clip_is_named_when_it_is_loaded(write_parquet: Callable[..., Path], wav: bytes) -> None:
    clips = read_clips(
        write_parquet(audio=[*entries(wav, "good"), {"bytes": wav[:-4], "path": "bad"}], label=["x", "y"])
    )
    clips.load(0)
    with pytest.raises(ValueError, match="clip 'bad': truncated"):
        clips.load(1)


@pytest.mark.fault
def test_sources_of_no_known_kind() -> None:
    with pytest.raises(FileNotFoundError, match=r"'esc_10': did you mean 'esc10'\? expected .* commands, esc10"):
        read_clips("esc_10")
    with pytest.raises(FileNotFoundError, match="expected an existing folder"):
        read_clips("./not/here")


@pytest.mark.fault
def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"'owner/sounds' is not a local folder or file, .* give a local path"):
        read_clips("owner/sounds")
