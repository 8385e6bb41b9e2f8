"""How far a training is, shown where somebody looks; showing it never stops it."""

from io import StringIO
from uuid import UUID, uuid4

import pytest

from tasks import progress


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def artifacts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """What Prefect's server was told."""
    told: list[tuple[float, str]] = []

    def create(progress: float, key: str, description: str) -> UUID:
        told.append((progress, description))
        return uuid4()

    def update(artifact_id: UUID, progress: float, description: str) -> UUID:
        told.append((progress, description))
        return artifact_id

    monkeypatch.setattr("tasks.progress.create_progress_artifact", create)
    monkeypatch.setattr("tasks.progress.update_progress_artifact", update)
    return told


def test_an_artifact_follows_the_training_to_its_end(
    artifacts: list[tuple[float, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.progress.EVERY_S", 0.0)
    with progress.shown("lesion for south", StringIO()) as tell:
        tell("full, fold 1, epoch 1 of 2", 0.25)
    assert artifacts == [
        (0.0, "lesion for south"),
        (25.0, "lesion for south: full, fold 1, epoch 1 of 2"),
        (100.0, "lesion for south"),
    ]


def test_the_server_is_not_asked_at_every_epoch(artifacts: list[tuple[float, str]]) -> None:
    with progress.shown("lesion", StringIO()) as tell:
        for epoch in range(100):
            tell(f"epoch {epoch}", epoch / 100)
    assert len(artifacts) == 2


def test_a_server_that_cannot_be_told_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(**facts: object) -> UUID:
        raise ConnectionError

    monkeypatch.setattr("tasks.progress.create_progress_artifact", gone)
    monkeypatch.setattr("tasks.progress.update_progress_artifact", gone)
    with progress.shown("lesion", StringIO()) as tell:
        tell("epoch 1 of 2", 0.5)


def test_a_terminal_gets_a_bar_and_a_file_gets_none(artifacts: list[tuple[float, str]]) -> None:
    terminal, file = Terminal(), StringIO()
    for place in (terminal, file):
        with progress.shown("lesion for south", place) as tell:
            tell("epoch 1 of 2", 0.5)
    assert "lesion for south" in terminal.getvalue()
    assert file.getvalue() == ""
