import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from platform_core import layout
from platform_core.errors import BadInput, NoSuchPlace, SchemaMismatch, UnknownName
from platform_core.manifest.labels import LabelCount, import_labels, labels_in_force
from platform_core.manifest.workspace import Workspace, add_site, open_workspace
from platform_core.settings import SiteSettings
from tests.conftest import configured

WriteCT = Callable[..., list[Path]]
Ingest = Callable[..., Any]
AT = datetime(2026, 3, 1, tzinfo=UTC)
TARGET = """
[target.lesion]
label = "lesion"
modality = "CT"
source_site = "north"
classes = ["benign", "malignant"]

[target.pneumonia]
label = "pneumonia"
modality = "DX"
source_site = "north"
"""


@pytest.fixture
def labelled(north: Workspace, folder: Path, write_ct: WriteCT, ingest: Ingest) -> Workspace:
    """A site with three series of two studies, and two targets."""
    for n in range(3):
        write_ct(folder / str(n), (0, 2), SeriesInstanceUID=f"1.2.{n}", StudyInstanceUID=f"1.{n // 2}")
    found = configured(north, TARGET)
    ingest(found)
    return found


@pytest.fixture
def give(labelled: Workspace, tmp_path: Path) -> Callable[..., LabelCount]:
    """Imports the text of a CSV as the labels of `north`."""

    def give(text: str, run: str = "r1", target: str = "lesion", **options: Any) -> LabelCount:
        file = tmp_path / "labels.csv"
        file.write_text(text)
        return import_labels(labelled, "north", target, file, run=run, at=AT, **options)

    return give


Give = Callable[..., LabelCount]


def in_force(workspace: Workspace) -> list[str]:
    return sorted(row["value"] for row in labels_in_force(workspace, "lesion").to_pylist())


def test_rows_find_their_series(give: Give, labelled: Workspace) -> None:
    count = give("series_uid,value\n1.2.0,benign\n1.2.1,malignant\n1.2.2,\n9.9,benign\n")
    assert (count.n_rows, count.n_matched, count.n_not_stated, count.n_unknown) == (4, 2, 1, 1)
    assert (count.n_labels, count.n_written, count.by_value) == (2, 2, {"benign": 1, "malignant": 1})
    assert in_force(labelled) == ["benign", "malignant"]


def test_a_study_labels_all_its_series(give: Give, labelled: Workspace) -> None:
    assert give("study_uid,value\n1.0,benign\n").n_labels == 2


def test_a_file_labels_the_series_it_went_into(give: Give, labelled: Workspace) -> None:
    assert give("file,value\nfar/away/scans/1/IM0000,malignant\n").n_labels == 1


def test_the_same_import_writes_nothing(give: Give, labelled: Workspace) -> None:
    text = "series_uid,value,reader,labelled_on,sampling_probability\n1.2.0,benign,Dr Who,2026-02-03,0.5\n"
    assert give(text).n_written == 1
    before = labelled.lake.version(layout.LABEL)
    assert give(text, run="r2").n_written == 0
    assert labelled.lake.version(layout.LABEL) == before


def test_a_new_reading_supersedes_the_old_one_and_both_stay(give: Give, labelled: Workspace) -> None:
    give("series_uid,value\n1.2.0,benign\n1.2.1,benign\n")
    assert give("series_uid,value\n1.2.0,malignant\n", run="r2").n_written == 1
    assert in_force(labelled) == ["benign", "malignant"]
    assert labelled.lake.read(layout.LABEL).num_rows == 3


def test_reader_and_day_are_pseudonyms(give: Give, labelled: Workspace) -> None:
    give("series_uid,value,reader,guideline,labelled_on\n1.2.0,benign,Dr Who,Lung-RADS,2026-02-03\n")
    (row,) = labelled.lake.read(layout.LABEL).to_pylist()
    assert row["reader"]
    assert "Who" not in row["reader"]
    assert row["guideline"] == "Lung-RADS"
    assert row["labelled_on"] < date(2026, 1, 1)
    assert row["labelled_on"].weekday() == date(2026, 2, 3).weekday()


def test_a_row_whose_value_is_no_class_is_refused_by_its_line_and_the_others_go_on(
    give: Give, labelled: Workspace
) -> None:
    count = give('series_uid,value,note\n1.2.0,benign,"two\nlines"\n1.2.1,maybe,\n1.2.2,Erika,\n')
    assert (count.n_matched, count.refused, count.n_written) == (1, (4, 5), 1)
    assert count.n_rows == count.n_matched + count.n_not_stated + count.n_unknown + len(count.refused)
    assert "refused: lines 4, 5" in count.summary
    assert "Erika" not in count.summary
    assert count.needs_a_person
    assert in_force(labelled) == ["benign"]


@pytest.mark.parametrize("chance", ["0", "-3", "1.5", "inf", "nan", "half"])
def test_a_row_whose_sampling_probability_is_none_is_refused_by_its_line(
    give: Give, labelled: Workspace, chance: str
) -> None:
    count = give(f"series_uid,value,sampling_probability\n1.2.0,benign,1\n1.2.1,malignant,{chance}\n1.2.2,benign,\n")
    assert (count.n_matched, count.refused) == (2, (3,))
    told = labels_in_force(labelled, "lesion").column("sampling_probability").to_pylist()
    assert sorted(told, key=str) == [1.0, None]


@pytest.mark.parametrize("reader", ["Doe^Erika", "4711234", "1956-03-02", "Erika\x1b"])
def test_a_row_whose_reader_could_be_a_patient_is_refused_and_not_repeated(
    give: Give, labelled: Workspace, reader: str
) -> None:
    count = give(f"series_uid,value,reader\n1.2.0,benign,{reader}\n1.2.1,malignant,R1\n")
    assert (count.n_matched, count.refused) == (1, (2,))
    assert "reader could identify a patient" in count.summary
    assert reader not in count.summary
    assert in_force(labelled) == ["malignant"]


@pytest.mark.parametrize("reader", ["R1", "reader 12", "Dr. Who", "Müller-Lüdenscheid, A.", "rad_0042", "adjudicator"])
def test_names_and_codes_of_readers_go_through(give: Give, reader: str) -> None:
    count = give(f'series_uid,value,reader\n1.2.0,benign,"{reader}"\n')
    assert (count.n_matched, count.refused) == (1, ())


def test_a_row_whose_guideline_could_identify_a_patient_is_refused_and_not_repeated(
    give: Give, labelled: Workspace
) -> None:
    count = give("series_uid,value,guideline\n1.2.0,benign,Doe^Erika\n1.2.1,benign,as 4711234\n1.2.2,benign,v 1.2\n")
    assert (count.n_matched, count.refused) == (1, (2, 3))
    assert "Erika" not in count.summary
    assert [row["guideline"] for row in labelled.lake.read(layout.LABEL).to_pylist()] == ["v 1.2"]


def test_a_row_that_is_meant_for_another_target_is_refused(give: Give, labelled: Workspace) -> None:
    count = give("series_uid,value,target\n1.2.0,benign,lesion\n1.2.1,benign,pneumonia\n1.2.2,benign,\n")
    assert (count.n_matched, count.refused) == (2, (3,))


def test_a_column_without_any_class_is_refused_whole_and_what_it_holds_is_not_repeated(
    give: Give, labelled: Workspace
) -> None:
    with pytest.raises(BadInput, match=r"expected 'benign' or 'malignant' .* neither in lines 2, 3; nothing") as told:
        give("series_uid,name\n1.2.0,Erika\n1.2.1,Max\n", value_column="name")
    assert "Erika" not in str(told.value)
    assert in_force(labelled) == []


def test_the_first_column_that_is_filled_in_says_which_scan_a_row_is_about(give: Give, labelled: Workspace) -> None:
    give("series_uid,value\n1.2.0,benign\n")
    (key,) = labels_in_force(labelled, "lesion").column("series_key").to_pylist()
    count = give(
        "series_key,series_uid,file,value\n"
        f"{key},9.9,,malignant\n"
        ",1.2.1,,malignant\n"
        ",,scans/2/IM0001,malignant\n"
        ",,,malignant\n"
        "0123,,,malignant\n",
        run="r2",
    )
    assert (count.n_matched, count.n_unknown) == (3, 2)
    assert in_force(labelled) == ["malignant"] * 3


TWO_READERS = "series_uid,value,reader\n1.2.0,benign,Who\n1.2.0,malignant,No\n1.2.1,benign,Who\n1.2.1,benign,No\n"


def test_readers_who_contradict_one_another_are_both_kept_and_neither_counts(give: Give, labelled: Workspace) -> None:
    count = give(TWO_READERS)
    assert (count.n_written, count.n_contradicting, count.n_undecided) == (4, 1, 1)
    assert "contradict one another on 1 series; 1 of them have no label in force" in count.summary
    assert in_force(labelled) == ["benign"]
    assert give(TWO_READERS, run="r2").n_written == 0


@pytest.mark.parametrize("third", ["Third", "adjudicator"])
def test_a_third_reader_or_an_adjudicator_decides(give: Give, labelled: Workspace, third: str) -> None:
    give(TWO_READERS)
    count = give(f"series_uid,value,reader\n1.2.0,malignant,{third}\n", run="r2")
    assert (count.n_contradicting, count.n_undecided) == (1 if third == "Third" else 0, 0)
    assert in_force(labelled) == ["benign", "malignant"]


def test_an_adjudicator_overrules_a_majority(give: Give, labelled: Workspace) -> None:
    give("series_uid,value,reader\n1.2.0,benign,A\n1.2.0,benign,B\n1.2.0,benign,C\n")
    give("series_uid,value,reader\n1.2.0,malignant,adjudicator\n", run="r2")
    assert in_force(labelled) == ["malignant"]


def test_a_reader_who_reads_again_supersedes_himself_alone(give: Give, labelled: Workspace) -> None:
    give(TWO_READERS)
    count = give("series_uid,value,reader\n1.2.0,malignant,Who\n", run="r2")
    assert (count.n_written, count.n_contradicting) == (1, 0)
    assert in_force(labelled) == ["benign", "malignant"]


def test_the_later_of_two_readings_of_one_reader_in_one_file_counts(give: Give, labelled: Workspace) -> None:
    dated = "series_uid,value,reader,labelled_on\n1.2.0,malignant,Who,2026-02-03\n1.2.0,benign,Who,2026-02-01\n"
    assert give(dated).n_contradicting == 0
    assert in_force(labelled) == ["malignant"]


def test_two_rows_of_one_file_that_nothing_ranks_contradict_one_another(give: Give, labelled: Workspace) -> None:
    count = give("series_uid,value\n1.2.0,benign\n1.2.0,malignant\n1.2.1,benign\n1.2.1,benign\n")
    assert (count.n_contradicting, count.n_undecided) == (1, 1)
    assert in_force(labelled) == ["benign"]


def test_what_was_read_by_a_later_guideline_counts_alone(give: Give, labelled: Workspace) -> None:
    header = "series_uid,value,reader,guideline,labelled_on\n"
    old = "1.2.0,benign,A,old,2025-01-03\n1.2.0,benign,B,old,2025-01-03\n"
    give(header + old + "1.2.0,malignant,C,new,2026-01-03\n")
    assert in_force(labelled) == ["malignant"]
    give(header + "1.2.0,benign,D,old,2025-01-05\n", run="r2")
    assert in_force(labelled) == ["malignant"]


def test_a_number_is_a_class_however_it_is_written(give: Give) -> None:
    count = give("series_uid,score\n1.2.0,1.0\n1.2.1,0\n1.2.2, 1 \n", target="pneumonia", value_column="score")
    assert count.by_value == {"0": 1, "1": 2}


def test_missing_columns_are_named(give: Give) -> None:
    with pytest.raises(SchemaMismatch, match="missing value"):
        give("series_uid,label\n1.2.0,benign\n")
    with pytest.raises(SchemaMismatch, match="series_key or series_uid or study_uid or file"):
        give("patient,value\n4711,benign\n")


def test_a_target_or_file_that_does_not_exist_is_named(give: Give, labelled: Workspace) -> None:
    with pytest.raises(UnknownName, match="known: lesion, pneumonia"):
        give("series_uid,value\n", target="tumour")
    with pytest.raises(NoSuchPlace):
        import_labels(labelled, "north", "lesion", Path("/no/such.csv"), run="r", at=AT)


def test_an_empty_file_of_labels_does_nothing(give: Give) -> None:
    assert give("series_uid,value\n").n_rows == 0


def test_real_chest_images_get_their_patients_views_and_labels(
    labelled: Workspace, test_data: Path, ingest: Ingest
) -> None:
    """`labels.csv` is both index and labels; its paths start above the folders of the sites."""
    index = test_data / "cxr" / "labels.csv"
    for site, path in (("tiny", "src_nih_tiny"), ("gz", "src_guangzhou_mnist/data/pneumoniamnist.npz#val")):
        place = SiteSettings(
            quiet_s=0,
            source="image_folder",
            path=str(test_data / "cxr" / path),
            modality="DX",
            body_part="CHEST",
            index=str(index),
        )
        add_site(labelled, site, place)
    found = open_workspace(labelled.uri)
    for site, is_known in (("tiny", True), ("gz", False)):
        assert ingest(found, site).n_accepted > 15
        rows = [row for row in found.lake.read(layout.SERIES).to_pylist() if row["site"] == site]
        assert {row["patient_known"] for row in rows} == {is_known}
        assert {row["view"] for row in rows} <= {"AP", "PA"}
        assert {(row["geometry"], row["spacing_x_mm"], row["stratum"]) for row in rows} == {
            ("plain", None, "dx/chest/plain/unknown")
        }
        count = import_labels(found, site, "pneumonia", index, run="r1", at=AT, value_column="label_pneumonia_or_covid")
        assert count.n_labels == count.n_matched > 0
        assert set(count.by_value) <= {"0", "1"}


def test_equal_images_are_one_scan(workspace: Workspace, tmp_path: Path, ingest: Ingest) -> None:
    images = tmp_path / "images"
    images.mkdir()
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for name in ("a", "b"):
        Image.fromarray(pixels).save(images / f"{name}.png")
    (images / "note.txt").write_text("not a scan")
    (images / "broken.png").write_bytes(b"not a picture")
    (images / "cut.png").write_bytes((images / "a.png").read_bytes()[:50])
    add_site(workspace, "x", SiteSettings(quiet_s=0, source="image_folder", path=str(images), modality="DX"))
    found = open_workspace(workspace.uri)
    count = ingest(found, "x")
    assert (count.n_accepted, count.n_duplicate, count.n_quarantined) == (1, 1, 1)
    os.utime(images / "a.png", (1, 1))
    assert ingest(found, "x").n_in == 0
