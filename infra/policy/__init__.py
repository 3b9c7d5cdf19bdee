"""Policy pack: rules for every stack, regardless of its program."""
