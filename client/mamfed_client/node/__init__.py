"""The long-running processes of a site, and their connection to the coordinator."""
