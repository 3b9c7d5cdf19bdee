"""The two Python SDKs. Importing them emits warnings about deprecated classes that are not used."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import pulumi_digitalocean as digitalocean
    from pulumi_command import local, remote

    local.Command, remote.Command  # noqa: B018  # both load at first use

__all__ = ["digitalocean", "local", "remote"]
