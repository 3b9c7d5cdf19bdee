"""Import and export datasets in other tools' layouts; independent of networks and the service."""
