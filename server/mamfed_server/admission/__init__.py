"""Site admission: the certificate authority, approvals, and the registry of approved sites."""
