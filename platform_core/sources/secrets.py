"""What a site's place asks for: it lies in the environment, and the settings name the variable."""

import logging
import os

from platform_core.errors import BadSetting
from platform_core.settings import SiteSettings

WHERE = "the site's settings"
_TALKERS = ("httpx", "httpcore", "boto3", "botocore", "s3transfer", "urllib3")


def secret_of(settings: SiteSettings) -> str:
    """What the named variable holds; empty if the settings name none.

    Raises:
        BadSetting: If the variable is not set.
    """
    if settings.secret_env is None:
        return ""
    found = os.environ.get(settings.secret_env, "")
    if not found:
        problem = f"the variable {settings.secret_env} is not set"
        raise BadSetting(WHERE, "secret_env", problem, "set it for the worker that is this site's door")
    return found


def not_let_in(settings: SiteSettings, what: str, form: str) -> BadSetting:
    """The place refused what the settings name, or asks for something (of this form) and they name nothing."""
    if settings.secret_env is None:
        remedy = f"put {form} into an environment variable and name that variable here"
        return BadSetting(WHERE, "secret_env", f"{what} asks for a password", remedy)
    problem = f"{what} refuses what the variable {settings.secret_env} holds"
    return BadSetting(WHERE, "secret_env", problem, f"correct it ({form}), or ask for the right to read")


def silence() -> None:
    """Keep the libraries' own messages below a warning out of every log: they hold whole addresses, so UIDs."""
    for name in _TALKERS:
        logging.getLogger(name).setLevel(logging.WARNING)
