"""What is installed on the droplet: a program, scripts and configuration files."""
