"""What lies on the droplet: a program, scripts and configuration files."""
