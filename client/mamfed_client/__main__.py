"""``python -m mamfed_client`` is ``mamfed-client``."""

from mamfed_client.cli import main

main()
