"""Entry of the command line: through the fork server when one runs, else in this process."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run ``cpt`` with the process's arguments and exit with its code."""
    address = os.environ.get("CPT_FORK_SERVER")
    if address and os.path.exists(address):
        from cpt.cli.fork_client import call

        code = call(address, sys.argv)
        if code is not None:
            sys.exit(code)
    from cpt.cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()
