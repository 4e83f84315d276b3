"""Training on the site's own devices."""
