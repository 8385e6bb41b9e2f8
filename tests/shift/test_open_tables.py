"""Any reader of plain Delta reads the tables of the shift engine: Spark, Trino, Databricks, or Parquet alone.

Their readers are not run here. What is held is what they ask for: protocol 1 and 2, no feature of tables that came
later (deletion vectors, column mapping, zoneless timestamps), common types, and files that a bare Parquet reader opens.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from platform_core import layout
from platform_core.shift.sketch.patient_days import Basis
from platform_core.shift.sketch.references import freeze_reference
from platform_core.shift.sketch.sketches import restate_days
from platform_core.shift.stage import measure_shift
from platform_core.shift.watch.vigil import keep_watch
from tests.conftest import new_workspace
from tests.shift.planted import AT, MODEL, MONDAY, RECIPE, Month, fill, prepare

ENGINE = (layout.REFERENCE, layout.SKETCH, layout.RANK, layout.SHIFT, layout.FINDING)
MANIFEST = (layout.SERIES, layout.FEATURE, layout.PREDICTION, layout.LABEL)
COMMON = {pa.string(), pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.date32()}
"""What every engine of SQL has; with lists of them, and moments in UTC."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables after one night of one site."""
    with new_workspace(tmp_path_factory.mktemp("open")) as empty:
        workspace = prepare(empty, "a")
    fill(workspace, Month(), Month(number=1))
    basis = Basis(reference=MODEL, recipe=RECIPE, target="lesion", model=MODEL)
    freeze_reference(workspace, "a", basis=basis, run="r")
    restate_days(workspace, "a", [MONDAY], basis=basis, run="r")
    keep_watch(workspace, "a", "lesion", run="r")
    measure_shift(workspace, "a", target="lesion", run="r", at=AT)
    workspace.lake.compact(layout.SKETCH)
    return Path(workspace.uri) / layout.LAKE


@pytest.mark.parametrize("table", [*ENGINE, *MANIFEST])
def test_a_table_asks_no_more_of_a_reader_than_the_first_delta_did(table: str, lake: Path) -> None:
    delta = DeltaTable(lake / table)
    protocol = delta.protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
    assert not protocol.reader_features
    assert not protocol.writer_features
    told = delta.metadata().configuration
    assert told.get("delta.columnMapping.mode", "none") == "none"
    assert told.get("delta.enableDeletionVectors", "false") == "false"


@pytest.mark.parametrize("table", [*ENGINE, *MANIFEST])
def test_columns_are_of_types_that_every_engine_has(table: str, lake: Path) -> None:
    for field in pa.schema(DeltaTable(lake / table).schema().to_arrow()):
        kind = field.type.value_type if pa.types.is_list(field.type) else field.type
        assert kind in COMMON or kind == pa.timestamp("us", tz="UTC"), f"{field.name}: {kind}"


@pytest.mark.parametrize("table", ENGINE)
def test_the_files_alone_hold_the_rows(table: str, lake: Path) -> None:
    delta = DeltaTable(lake / table)
    files = [pq.ParquetFile(uri) for uri in delta.file_uris()]
    assert sum(file.metadata.num_rows for file in files) == delta.to_pyarrow_table().num_rows > 0
    for name in delta.metadata().partition_columns:
        assert all(name not in file.schema_arrow.names for file in files), "it is in the path, as Hive has it"
