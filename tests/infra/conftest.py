"""The SDK warns of its own deprecated names while it is imported: once, here, without an error."""

import tests.cloud.sdk  # noqa: F401
