"""Slugs that the cloud knows. Checked against the public lists of regions, sizes and images.

Sources: docs.digitalocean.com/platform/regional-availability (regions, where Spaces are),
digitalocean.com/pricing/droplets and slugs.do-api.dev (sizes), the API's /v2/images (images). Only
what the tests need is listed; a missing slug is rejected like one that does not exist.
"""

from __future__ import annotations

# region: has Spaces
REGIONS = {
    "nyc1": False,
    "nyc3": True,
    "ams3": True,
    "fra1": True,
    "lon1": True,
    "sfo2": True,
    "sfo3": True,
    "sgp1": True,
    "blr1": True,
    "syd1": True,
    "tor1": True,
}
GPU_REGIONS = ("nyc2", "tor1", "ams3", "atl1")
# debian-12 and the Ubuntu LTS releases are offered; ubuntu-20-04-x64 was retired in 2025.
IMAGES = (
    "debian-12-x64",
    "debian-13-x64",
    "ubuntu-22-04-x64",
    "ubuntu-24-04-x64",
    "ubuntu-26-04-x64",
    "gpu-h100x1-base",
)
SIZES = {  # slug: memory MiB, vCPU, disk GiB, USD a month
    "s-1vcpu-1gb": (1024, 1, 25, 6.0),
    "s-1vcpu-2gb": (2048, 1, 50, 12.0),
    "s-2vcpu-2gb": (2048, 2, 60, 18.0),
    "s-2vcpu-4gb": (4096, 2, 80, 24.0),
    "s-4vcpu-8gb": (8192, 4, 160, 48.0),
    "s-8vcpu-16gb": (16384, 8, 320, 96.0),
    "c-4": (8192, 4, 50, 84.0),
    "g-2vcpu-8gb": (8192, 2, 25, 63.0),
    "gpu-h100x1-80gb": (245760, 20, 720, 2522.0),
    "gpu-l40sx1-48gb": (65536, 8, 500, 1168.0),
    "gpu-4000adax1-20gb": (32768, 8, 500, 565.0),
}
USER_DATA_LIMIT = 64 * 1024  # API reference, POST /v2/droplets: user_data
