"""Who calls: what is shown with a call, and what it proves."""
