"""Settings, errors, logs and locks between processes; knows no database."""
