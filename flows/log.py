"""What a run says while it works; Prefect's UI shows the same lines."""

import logging

log = logging.getLogger("sitedrift")
