"""Import the SDK once, without errors for the warnings about its own deprecated names."""

import tests.cloud.sdk  # noqa: F401
