"""Who hears what, when, through which channel; and that each hears it once."""
