"""What crosses the wire between a site and the coordinator."""
