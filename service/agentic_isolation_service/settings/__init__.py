"""What the configuration file says, each kind of table by a module of its own."""
