import numpy as np
import pytest

from platform_core import layout
from platform_core.errors import UnknownName
from platform_core.manifest.schemas import LABEL, PREDICTION
from platform_core.manifest.splits import part_of
from platform_core.manifest.workspace import Workspace
from platform_core.shift.scores import label_and_score_rows, score_rows
from platform_core.storage.tables import rows_of
from tests.shift.planted import MODEL, RECIPE, Month, fill, keys_of, prepare

MONTH = Month(site="b", n=40)
SCOPE = ("b", "lesion", MODEL, RECIPE)


@pytest.fixture
def ready(workspace: Workspace) -> Workspace:
    ready = prepare(workspace, "b")
    fill(ready, MONTH)
    return ready


def test_scores_come_with_patient_label_and_embedding_in_key_order(ready: Workspace) -> None:
    found = label_and_score_rows(ready, *SCOPE)
    assert found.series_key.tolist() == sorted(keys_of(MONTH))
    assert found.embedding.shape == (40, 4)
    assert set(found.y) == {0.0, 1.0}
    assert found.patient_known.all()
    assert found.score[found.y == 1].mean() > found.score[found.y == 0].mean()


def test_keys_and_parts_narrow_the_rows(ready: Workspace) -> None:
    some = keys_of(MONTH)[5:9]
    assert score_rows(ready, *SCOPE, keys=some).series_key.tolist() == some
    assert len(score_rows(ready, *SCOPE, keys=[])) == 0
    parts = [score_rows(ready, *SCOPE, part=part) for part in ("train", "validation", "evaluation")]
    assert sum(len(part) for part in parts) == 40
    assert {part_of(str(key), ready.settings.split) for key in parts[2].patient_key} == {"evaluation"}


def test_a_label_of_neither_class_is_no_label(ready: Workspace) -> None:
    key = keys_of(MONTH)[0]
    row = {"site": "b", "target": "lesion", "series_key": key, "value": "uncertain", "run": "s"}
    ready.lake.append(layout.LABEL, rows_of(LABEL, [row]), transaction="uncertain")
    assert len(label_and_score_rows(ready, *SCOPE, keys=[key])) == 0
    assert np.isnan(score_rows(ready, *SCOPE, keys=[key]).y).all()


def test_scores_that_are_no_numbers_and_missing_embeddings_are_left_out(ready: Workspace) -> None:
    about = {"site": "b", "revision": 1, "recipe": "other", "model": MODEL, "target": "lesion", "run": "r"}
    scores = {keys_of(MONTH)[0]: float("nan"), keys_of(MONTH)[1]: 0.5, keys_of(MONTH)[2]: None}
    rows = [about | {"series_key": key, "score": score} for key, score in scores.items()]
    ready.lake.append(layout.PREDICTION, rows_of(PREDICTION, rows), transaction="other")
    found = score_rows(ready, "b", "lesion", MODEL, "other")
    assert found.score.tolist() == [0.5]
    assert found.embedding.shape == (1, 0)


def test_a_model_without_scores_has_no_rows(ready: Workspace) -> None:
    assert len(score_rows(ready, "b", "lesion", "lesion@9", RECIPE)) == 0


def test_an_unknown_target_is_named(ready: Workspace) -> None:
    with pytest.raises(UnknownName, match="lesion"):
        score_rows(ready, "b", "fracture", MODEL, RECIPE)
