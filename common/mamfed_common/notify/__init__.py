"""Tell a person who is not looking: by webhook, by e-mail, by a command."""
