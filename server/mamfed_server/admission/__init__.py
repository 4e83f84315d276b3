"""Who may take part: the certificate authority and the registry of approved sites."""
