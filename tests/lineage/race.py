"""One of several processes that change the alias of a model at the same moment; says `won` or what it was told.

    race.py WORKSPACE promote MODEL@VERSION OVER
    race.py WORKSPACE rollback MODEL

It waits for a line on its standard input before it begins.
"""

import sys
from datetime import UTC, datetime

from platform_core.errors import BadRequest
from platform_core.learn import registry
from platform_core.manifest.workspace import open_workspace

AT = datetime(2026, 3, 1, tzinfo=UTC)


def main(uri: str, verb: str, name: str, over: str = "") -> None:
    workspace = open_workspace(uri)
    wanted, before = (registry.find(workspace, each) if "@" in each else None for each in (name, over))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    try:
        if verb == "promote":
            assert wanted is not None
            registry.promote(workspace, wanted, over=before, run=name, at=AT)
        else:
            registry.rollback(workspace, name, run="back", at=AT)
        sys.stdout.write("won")
    except BadRequest as error:
        sys.stdout.write(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
