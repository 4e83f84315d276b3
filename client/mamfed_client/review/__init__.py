"""What people look at before they trust prepared data: the page of ``data check``, one row."""
