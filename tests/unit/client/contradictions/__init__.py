"""Every reader times every contradiction that its files can hold; see ``matrix``."""
