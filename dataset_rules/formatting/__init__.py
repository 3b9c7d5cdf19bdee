"""The step that writes a formatted dataset; independent of other tools' layouts."""
