"""Views for reviewing data before training: the page of ``data check`` and single images."""
