"""A whole federation on this machine to play with: real processes, TLS, enrolment, pages."""
