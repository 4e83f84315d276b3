"""The ``mamfed-server`` command and its subcommands."""
