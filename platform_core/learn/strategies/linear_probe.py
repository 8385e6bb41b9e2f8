"""The head alone, on embeddings that are computed once: an epoch costs milliseconds."""

from platform_core.learn.contract import Phase, Strategy, head

LINEAR_PROBE = Strategy(
    name="linear_probe",
    phases=(Phase(name="head", trains=head),),
)
