"""Nothing in a folder is lost without the user saying so, and a run goes on only as it began."""

from pathlib import Path

import pytest

from hf_audioformer.training.output import RECIPE_FILE, check_same_clips, prepare_output

RECIPE = "seed: 0\nsplit: {kind: folds, run_folds: [1]}\ntraining: {learning_rate: 0.1}\noutput_dir: a\n"


def prepare(folder: Path, recipe: str = RECIPE, resume: bool = False, overwrite: bool = False) -> None:
    prepare_output(str(folder), recipe, resume=resume, overwrite=overwrite)


@pytest.mark.unit
@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_new_folder_is_made_and_keeps_its_settings(tmp_path: Path, flags: dict[str, bool]) -> None:
    prepare(tmp_path / "runs" / "one", **flags)
    assert (tmp_path / "runs" / "one" / RECIPE_FILE).read_text() == RECIPE


@pytest.mark.fault
def test_an_occupied_folder_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(FileExistsError, match=r"is not empty. Go on .* --resume true, replace it with --overwrite tru"):
        prepare(tmp_path)


@pytest.mark.unit
def test_overwriting_empties_a_folder_that_was_made_here(tmp_path: Path) -> None:
    prepare(tmp_path / "run")
    (tmp_path / "run" / "checkpoint-1").mkdir()
    prepare(tmp_path / "run", overwrite=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [RECIPE_FILE]


@pytest.mark.unit
def test_overwriting_a_linked_folder_leaves_the_link_and_what_links_in_it_lead_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept.wav").touch()
    prepare(tmp_path / "disk")
    (tmp_path / "disk" / "clips").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    prepare(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == [RECIPE_FILE]
    assert (tmp_path / "elsewhere" / "kept.wav").exists()


@pytest.mark.fault
@pytest.mark.parametrize("named", ["run", "run/model", "run/../run/model"])
def test_what_is_to_be_read_is_not_deleted(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(Path("run"))
    (tmp_path / "run" / "model").mkdir()
    with pytest.raises(ValueError, match=r"model.checkpoint is .* lies in output_dir run and would be deleted"):
        prepare(Path("run"), f"model: {{checkpoint: {named}}}\noutput_dir: run\n", overwrite=True)
    assert (tmp_path / "run" / "model").is_dir()
    prepare(Path("run"), "model: {checkpoint: .}\noutput_dir: run\n", overwrite=True)


@pytest.mark.fault
def test_a_run_does_not_go_on_with_other_clips(tmp_path: Path) -> None:
    check_same_clips(tmp_path, "one", resume=False)
    check_same_clips(tmp_path, "one", resume=True)
    with pytest.raises(ValueError, match="the clips, or their labels, are not those it began with"):
        check_same_clips(tmp_path, "other", resume=True)
    check_same_clips(tmp_path, "other", resume=False)
    check_same_clips(tmp_path, "other", resume=True)


@pytest.mark.fault
@pytest.mark.parametrize("flags", [{"resume": True}, {"overwrite": True}])
def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path, flags: dict[str, bool]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"was not made by this command \(recipe.yaml is missing\)"):
        prepare(tmp_path, **flags)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.fault
def test_other_settings_cannot_resume(tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(ValueError, match=r"training.learning_rate was 0.1 and is 0.2 now"):
        prepare(tmp_path, RECIPE.replace("0.1", "0.2"), resume=True)
    with pytest.raises(ValueError, match=r"training.bf16 was None and is True now"):
        prepare(tmp_path, RECIPE.replace("{learning", "{bf16: true, learning"), resume=True)
    assert (tmp_path / RECIPE_FILE).read_text() == RECIPE


@pytest.mark.unit
def test_further_folds_in_a_moved_folder_can_resume(tmp_path: Path) -> None:
    prepare(tmp_path)
    prepare(tmp_path, RECIPE.replace("[1]", "[1, 2]").replace("output_dir: a", "output_dir: b"), resume=True)


@pytest.mark.unit
def test_another_number_of_workers_can_resume(tmp_path: Path) -> None:
    prepare(tmp_path)
    prepare(tmp_path, RECIPE.replace("0.1}", "0.1, dataloader_num_workers: 4}"), resume=True)


@pytest.mark.fault
def test_resume_and_overwrite_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resume and overwrite are both set"):
        prepare(tmp_path, resume=True, overwrite=True)
