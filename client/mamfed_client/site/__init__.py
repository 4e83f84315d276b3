"""A site's home folder: settings, policy, identity, certificate, status."""
