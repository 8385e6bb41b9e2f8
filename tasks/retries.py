"""When a task is worth a second attempt: the error knows."""

from typing import Any

from prefect import State, Task
from prefect.client.schemas.objects import TaskRun


def when_transient(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001
    """Retry only what a second attempt could fix.

    A plain function on purpose: Prefect's `can_retry` takes any other callable for "never".
    """
    return getattr(state.result(raise_on_failure=False), "retryable", False)


TRANSIENT: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": [2, 10, 60],
    "retry_condition_fn": when_transient,
}
"""Arguments of `@task` for work that is safe to repeat."""
