"""What may enter and leave a site: plan admission, the policy gate, and the audit log."""
