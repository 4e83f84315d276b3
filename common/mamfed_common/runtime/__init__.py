"""Files, locks, processes, terminals and documents; nothing about mammography."""
