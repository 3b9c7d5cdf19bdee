"""From a messy folder to a formatted dataset, by a rules document."""
