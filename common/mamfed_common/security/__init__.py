"""Keys, certificates, signatures and enrolment."""
