"""What DigitalOcean offers, as dated facts with their source; the live API takes precedence.

Sizes and images are plain strings, as these lists age: an unknown size or image is accepted if
its name is plausible, a known one is checked.
"""

from dataclasses import dataclass

DATED = "2026-05-29"
SOURCES = {
    "regions": "https://docs.digitalocean.com/platform/regional-availability/",
    "sizes": "https://www.digitalocean.com/pricing/droplets",
    "gpu sizes": "https://docs.digitalocean.com/products/droplets/details/pricing/",
    "images": "https://docs.digitalocean.com/products/droplets/details/images/",
    "user data": "https://docs.digitalocean.com/products/droplets/how-to/provide-user-data/",
}

WORKING_COPY = "working-copy"
USER_DATA_MAX_BYTES = 64 * 1024
VOLUME_MIN_GIB = 1
VOLUME_MAX_GIB = 16 * 1024
# The CPU build of torch and its dependencies unpack to 1.5 GB, a release that changes the lock
# keeps two environments, Debian takes 2 GB and the logs 1 GB: 20 GB is rejected, 25 GB fits.
DISK_MIN_GB = 25
# The CUDA build of torch is 4.7 GB, the driver and its libraries about 15 GB more.
GPU_DISK_MIN_GB = 60
# Web, worker and predictor: torch loads twice (0.5 GiB each); 2 GiB trains small patches with swap.
MEMORY_MIN_MIB = 2048


@dataclass(frozen=True, kw_only=True)
class Region:
    """One data centre and the products that it offers."""

    slug: str
    spaces: bool = True
    volumes: bool = True
    gpu: bool = False


@dataclass(frozen=True, kw_only=True)
class Size:
    """One droplet plan."""

    slug: str
    vcpus: int
    memory_mib: int
    disk_gb: int
    usd_month: float

    @property
    def gpu(self) -> bool:
        """Whether the plan has a GPU."""
        return is_gpu_size(self.slug)


REGIONS = {
    region.slug: region
    for region in (
        Region(slug="nyc1", spaces=False),
        Region(slug="nyc2", spaces=False, gpu=True),
        Region(slug="nyc3"),
        Region(slug="ams3", gpu=True),
        Region(slug="sfo2"),
        Region(slug="sfo3"),
        Region(slug="sgp1"),
        Region(slug="lon1"),
        Region(slug="fra1"),
        Region(slug="tor1", gpu=True),
        Region(slug="blr1"),
        Region(slug="syd1"),
        Region(slug="atl1", gpu=True),
    )
}

# slug, vCPUs, memory in GiB, disk in GB, US dollars per month (GPU plans: per hour)
_CPU_PLANS = (
    ("s-1vcpu-1gb", 1, 1, 25, 6.0),
    ("s-1vcpu-2gb", 1, 2, 50, 12.0),
    ("s-2vcpu-2gb", 2, 2, 60, 18.0),
    ("s-2vcpu-4gb", 2, 4, 80, 24.0),
    ("s-4vcpu-8gb", 4, 8, 160, 48.0),
    ("s-8vcpu-16gb", 8, 16, 320, 96.0),
    ("c-2", 2, 4, 25, 42.0),
    ("c-4", 4, 8, 50, 84.0),
    ("c-8", 8, 16, 100, 168.0),
    ("g-2vcpu-8gb", 2, 8, 25, 63.0),
    ("g-4vcpu-16gb", 4, 16, 50, 126.0),
    ("g-8vcpu-32gb", 8, 32, 100, 252.0),
    ("m-2vcpu-16gb", 2, 16, 50, 84.0),
    ("m-4vcpu-32gb", 4, 32, 100, 168.0),
)
HOURS_A_MONTH = 730
_GPU_PLANS = (
    ("gpu-4000adax1-20gb", 8, 32, 500, 0.76),
    ("gpu-6000adax1-48gb", 8, 64, 500, 1.89),
    ("gpu-l40sx1-48gb", 8, 64, 500, 1.57),
    ("gpu-h100x1-80gb", 20, 240, 720, 3.39),
)
SIZES = {
    slug: Size(slug=slug, vcpus=cpus, memory_mib=gib * 1024, disk_gb=disk, usd_month=round(usd, 2))
    for slug, cpus, gib, disk, usd in (
        *_CPU_PLANS,
        *((*plan[:4], plan[4] * HOURS_A_MONTH) for plan in _GPU_PLANS),
    )
}

DEFAULT_IMAGE = "debian-12-x64"
GPU_IMAGE = "gpu-h100x1-base"
# True: booted in this project's tests. False: accepted, but its boot is not tested.
IMAGES = {
    DEFAULT_IMAGE: True,
    "debian-13-x64": False,
    "ubuntu-24-04-x64": False,
    "ubuntu-26-04-x64": False,
    GPU_IMAGE: False,
}
RETIRED_IMAGES = {
    "ubuntu-16-04-x64": "ubuntu-24-04-x64",
    "ubuntu-18-04-x64": "ubuntu-24-04-x64",
    "ubuntu-20-04-x64": "ubuntu-24-04-x64",
    "debian-9-x64": DEFAULT_IMAGE,
    "debian-10-x64": DEFAULT_IMAGE,
}


def is_gpu_size(slug: str) -> bool:
    """Whether the plan has a GPU; all such plans share a prefix."""
    return slug.startswith("gpu-")


def is_gpu_image(slug: str) -> bool:
    """Whether the image has GPU drivers; all such images share a prefix."""
    return slug.startswith("gpu-")
