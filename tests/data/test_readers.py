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
from hf_audioformer.data.readers import _load_from_hub, read_rows, sound_files

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
def test_a_file_that_links_lead_to_is_told_of(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    """It could be learnt from by one name and tested by the other; but stores of data link equal files to one."""
    folder = write(**{"clips/train/dog/a.wav": None, "clips/test/cat/b.wav": None, "list.csv": ""})
    file = folder / "clips" / "train" / "dog" / "a.wav"
    (folder / "clips" / "test" / "cat" / "c.wav").symlink_to(file)
    (folder / "again").symlink_to(folder / "clips" / "train")
    (folder / "list.csv").write_text("path,label\nclips/train/dog/a.wav,x\nagain/dog/a.wav,y\n")
    assert len(read_clips(folder / "clips")) == 3
    assert len(read_clips(folder / "list.csv")) == 2
    assert "1 clips lead to the file of another one, so that it may be learnt from and tested" in caplog.messages[0]
    assert f"{file} and {folder / 'clips/test/cat/c.wav'} for one" in caplog.messages[0]
    assert f"{folder / 'again/dog/a.wav'} and {file} for one" in caplog.messages[1]


@pytest.mark.fault
@pytest.mark.parametrize("name", ["ape", "hund"])
def test_a_folder_that_a_link_leads_to_as_well(name: str, write: Write) -> None:
    folder = write(**{"dog/a.wav": None, "cat/b.wav": None, ".x/c.wav": None})
    (folder / name).symlink_to(folder / "dog")
    (folder / "cat" / "words").symlink_to(folder / ".x" / "none")
    assert sound_files(folder) == [folder / "cat" / "b.wav", folder / "dog" / "a.wav"]
    with pytest.raises(ValueError, match=rf"{name} and {folder}/dog are the same folder: a file is one clip"):
        read_clips(folder)


@pytest.mark.unit
def test_linked_files_are_clips(write: Write) -> None:
    folder = write(**{"stored/1": None, "stored/2": None, "clips/dog/c.wav": None})
    for name, target in (("dog/a.wav", "1"), ("dog/b.wav", "2")):
        (folder / "clips" / name).symlink_to(folder / "stored" / target)
    clips = read_clips(folder / "clips")
    assert clips.ids == ["dog/a.wav", "dog/b.wav", "dog/c.wav"]
    assert clips.load(0)["array"].shape == (800,)


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
def test_a_file_outside_the_class_folders_drops_labels_only_where_none_are_needed(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(**{"dog/a.wav": None, "cat/b.wav": None, "stray.wav": None})
    with pytest.raises(ValueError, match=r"stray.wav: cannot tell its class"):
        read_clips(folder)
    clips = read_clips(folder, needs_labels=False)
    assert (clips.ids, clips.label_names) == (["cat/b.wav", "dog/a.wav", "stray.wav"], ())
    (message,) = caplog.messages
    assert message.startswith(f"{folder}: the clips are read without labels, which are not needed here ({folder}/stray")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("names", "splits", "warnings"),
    [
        (("Train/a.wav", "test/b.wav"), ["Train", "test"], 0),
        (("test/b.wav", "train/2026/05/a.wav"), ["test", "train"], 0),
        (("test/b.wav", "train/dog/a.wav"), ["test", "train"], 1),
        (("a.wav", "train/b.wav"), None, 0),
        (("dog/a.wav", "night/2026/b.wav"), None, 1),
        (("dog/a.wav", "test/cat/b.wav"), None, 1),
    ],
)
def test_splits_and_depths_of_sound_without_labels(
    names: tuple[str, ...], splits: list[str] | None, warnings: int, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    clips = read_clips(write(**dict.fromkeys(names)), needs_labels=False)
    assert (clips.ids, clips.label_names) == (list(names), ())
    assert (clips.column("split") if "split" in clips.table.column_names else None) == splits
    assert len(caplog.messages) == warnings


@pytest.mark.fault
def test_a_folder_without_sound_is_refused_where_no_labels_are_needed(write: Write) -> None:
    with pytest.raises(ValueError, match="no clips found; expected"):
        read_clips(write(**{"a.txt": ""}), needs_labels=False)


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


@pytest.mark.fault
def test_other_columns_that_would_be_decoded_are_left_out(write_parquet: Callable[..., Path], wav: bytes) -> None:
    """A second sound and images, which `datasets` decodes by packages that are not needed here."""
    features = {
        **{"audio": datasets.Audio(), "noise": datasets.Audio(), "picture": datasets.Image()},
        "stems": datasets.List(datasets.Audio()),
    }
    columns = {name: entries(wav, "a", "b") for name in ("audio", "noise", "picture")}
    path = write_parquet(features, **columns, stems=[entries(wav, "c")] * 2, label=["x", "y"], fold=[1, 2])
    clips = read_clips(path)
    assert sorted(clips.table.column_names) == ["audio", "fold", "id", "label"]
    assert clips.load(1)["array"].shape == (800,)


@pytest.mark.fault
def test_a_path_is_no_pattern(write_parquet: Callable[..., Path], wav: bytes) -> None:
    path = write_parquet(audio=entries(wav, "a"), label=["x"])
    others = path.parent / "runs1"
    others.mkdir()
    write_parquet(audio=entries(wav, "b"), label=["x"]).rename(others / "clips.parquet")
    for name in ("runs[1]", "runs[2]", "runs*", "run?1"):
        folder = path.parent / name
        folder.mkdir()
        write_parquet(audio=entries(wav, name), label=["x"]).rename(folder / "clips.parquet")
        assert read_clips(folder / "clips.parquet").ids == [name]


@pytest.mark.unit
def test_the_case_of_an_ending_does_not_matter(write: Write, write_parquet: Callable[..., Path], wav: bytes) -> None:
    table = "path\tlabel\na.wav\tx\n"
    folder = write(**{"a.wav": None, "a.CSV": table.replace("\t", ","), "a.tsv": table, "b.TSV": table})
    for name in ("a.CSV", "a.tsv", "b.TSV"):
        assert read_clips(folder / name).ids == ["a.wav"]
        assert read_rows(folder / name) == [{"path": "a.wav", "label": "x"}]
    parquet = write_parquet(audio=entries(wav, "a"), label=["x"]).rename(folder / "clips.PARQUET")
    assert read_clips(parquet).ids == ["a"]
    assert read_rows(parquet)[0]["label"] == "x"


@pytest.mark.unit
def test_quotation_marks_of_a_tsv_join_no_cells(write: Write) -> None:
    """As in the sentences of Common Voice."""
    lines = ["path\tsentence\tlabel", 'a.wav\t"Come\tx', 'b.wav\the said."\ty', 'c.wav\t"a ""b"" c"\tz', 'd.wav\t"\tx']
    folder = write(**{"list.tsv": "\n".join(lines)})
    rows = read_rows(folder / "list.tsv")
    assert [row["sentence"] for row in rows] == ['"Come', 'he said."', 'a "b" c', '"']
    assert [row["label"] for row in rows] == ["x", "y", "z", "x"]


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
def test_files_of_another_kind(write: Write) -> None:
    folder = write(**{"a.wav": None, "clips.xlsx": "words"})
    for name in ("a.wav", "clips.xlsx"):
        with pytest.raises(
            ValueError, match=rf"{name}: files of this kind are not read; give a folder, a \.csv, \.tsv"
        ):
            read_clips(folder / name)


CONFIGURATIONS = """---
configs:
- {config_name: long, data_files: long.csv}
- {config_name: short, data_files: short.csv}
---
"""


@pytest.mark.fault
@pytest.mark.parametrize(
    ("files", "config", "message"),
    [
        (
            {"README.md": CONFIGURATIONS},
            None,
            r"Config name is missing.* \['long', 'short'\]\)\. .* data\.hub_config\.$",
        ),
        ({"README.md": CONFIGURATIONS}, "shrt", r"'shrt' not found.* \['long', 'short'\]\)\. .* data\.hub_config\.$"),
        ({"sounds.py": "raise ValueError"}, None, r"scripts are no longer .* --data\.revision refs/convert/parquet"),
        (
            {"README.md": "", "a.csv": "path,label\na,1\n", "b.csv": "path,fold\na,1\n"},
            None,
            r"cannot be read \(Schema at index 1 was different.*\)\. Choose another data\.hub_config or data\.revision",
        ),
    ],
)
def test_mistakes_about_data_sets_of_the_hub(
    files: dict[str, str], config: str | None, message: str, tmp_path: Path
) -> None:
    """A local folder goes through the same `datasets.load_dataset` as an id on the Hub."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for name, text in {"long.csv": "path,label\na,x\n", "short.csv": "path,label\na,x\n", **files}.items():
        (folder / name).write_text(text)
    with pytest.raises(ValueError, match=f"(?s)^'{folder}': the data set on the Hub .*{message}"):
        _load_from_hub(str(folder), None, config, None)


@pytest.mark.fault
def test_splits_of_the_hub_whose_columns_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {name: datasets.Dataset.from_dict({"path": ["a"], "label": [label]}) for name, label in SPLIT_LABELS}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict(tables))
    with pytest.raises(ValueError, match=r"'owner/sounds': its splits 'train', 'test' have columns of different types"):
        _load_from_hub("owner/sounds", None, None, None)


SPLIT_LABELS = (("train", "x"), ("test", 1))


@pytest.mark.fault
def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"'owner/sounds' is not a local folder or file, .* give a local path"):
        read_clips("owner/sounds")
