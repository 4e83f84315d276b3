"""``python -m mamfed_simulations.playground.child PROGRAM ARGUMENT...``: one command of mamfed.

It is what a person would type, except that it ends with the playground, even if that is killed.
"""

from __future__ import annotations

import importlib
import sys

from mamfed_common.runtime.lifeline import hold_lifeline

MODULES = {
    "mamfed-client": "mamfed_client.cli.main",
    "mamfed-server": "mamfed_server.cli.main",
}


def main() -> None:
    """Run the command on the command line."""
    hold_lifeline()
    program = sys.argv[1]
    sys.argv = [program, *sys.argv[2:]]
    importlib.import_module(MODULES[program]).main()


if __name__ == "__main__":
    main()
