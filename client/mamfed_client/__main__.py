"""``python -m mamfed_client`` is ``mamfed-client``."""

from mamfed_client.cli.main import main

main()
