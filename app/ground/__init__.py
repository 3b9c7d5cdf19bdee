"""Settings, errors, logs and locks between processes; no database access."""
