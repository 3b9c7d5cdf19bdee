"""The two Python SDKs. Importing DigitalOcean's warns of classes of its own that nobody uses."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import pulumi_command as command
    import pulumi_digitalocean as digitalocean

__all__ = ["command", "digitalocean"]
