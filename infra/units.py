"""The systemd units of the machine, as text: what the service may do, and everything it may not.

All units of the service run as one user that owns nothing but the data folder on the volume.
"""

from collections.abc import Mapping, Sequence

MOUNT = "/srv/unetops"
HOME = f"{MOUNT}/home"
USER = "unetops"
HOST = "/opt/unetops/bin/unetops-host"
RUN = "/opt/unetops/bin/unetops"
METADATA = "169.254.169.254"
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
UNITS = ("unetops-web.service", "unetops-worker.service", "unetops-fetcher.service")
DRAIN_S = 180  # a step saves a checkpoint and ends; then it is killed and goes on from the last one

Section = Sequence[tuple[str, str]]

UNIT: Section = (
    ("After", "network.target nftables.service"),
    # Without the volume the data would go to the root disk, and be lost with the droplet.
    ("RequiresMountsFor", MOUNT),
    ("ConditionPathIsMountPoint", MOUNT),
    ("ConditionPathExists", "/opt/unetops/current"),
    ("StartLimitIntervalSec", "0"),
)
SERVICE: Section = (
    ("User", USER),
    ("Group", USER),
    ("EnvironmentFile", "/etc/unetops/environment"),
    ("WorkingDirectory", HOME),
    ("Restart", "always"),
    ("RestartSec", "2"),
    # Only the main process is asked to end; it ends its own children in order, and what is left
    # after the time for it is killed.
    ("KillMode", "mixed"),
)
HARDENING: Section = (
    ("NoNewPrivileges", "yes"),
    ("CapabilityBoundingSet", ""),
    ("AmbientCapabilities", ""),
    ("UMask", "0077"),
    ("ProtectSystem", "strict"),
    ("ReadWritePaths", HOME),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("ProtectProc", "invisible"),
    ("ProtectClock", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("KeyringMode", "private"),
    ("LockPersonality", "yes"),
    ("RemoveIPC", "yes"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallFilter", "@system-service"),
    ("SystemCallFilter", "~@privileged @resources"),
    # A refused call is an error, not a kill: libraries try sched_setaffinity and go on without.
    ("SystemCallErrorNumber", "EPERM"),
)
# These need BPF on control groups, which a container may lack; nftables refuses the metadata by
# user as well. Its address stands here by name although the first word refuses it too.
ONLY_THIS_MACHINE: Section = (
    ("IPAddressDeny", f"any {METADATA}"),
    ("IPAddressAllow", "localhost"),
)
ONLY_THE_INTERNET: Section = (
    ("IPAddressDeny", f"{METADATA} link-local multicast {' '.join(PRIVATE)}"),
    ("IPAddressAllow", "localhost"),  # where the resolver listens
)


def web_unit() -> str:
    """The unit of the web process: 127.0.0.1:8000 and unix sockets, no memory to write and run."""
    own: Section = (
        ("ExecStart", f"{RUN} web"),
        ("TimeoutStopSec", "30"),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET"),
        ("PrivateDevices", "yes"),
        # This process never loads torch, so nothing in it makes code while it runs.
        ("MemoryDenyWriteExecute", "yes"),
        ("MemoryMax", "40%"),
        ("TasksMax", "256"),
        *ONLY_THIS_MACHINE,
    )
    return _service("unetops: web", own)


def fetcher_unit() -> str:
    """The unit that fetches sources by URL: the only one that the internet is open to.

    The cloud's private networks and the metadata stay closed to it, whatever a name resolves to.
    """
    own: Section = (
        ("ExecStart", f"{RUN} worker --only fetching"),
        ("TimeoutStopSec", "30"),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
        ("PrivateDevices", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("MemoryMax", "40%"),
        ("TasksMax", "256"),
        *ONLY_THE_INTERNET,
    )
    return _service("unetops: fetcher", own)


def worker_unit(*, gpu: bool = False) -> str:
    """The unit of worker and predictor: no network at all, devices only where there is a GPU."""
    own: Section = (
        ("ExecStart", f"{RUN} worker --only jobs"),
        ("TimeoutStopSec", str(DRAIN_S)),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET"),
        # It speaks through files and unix sockets; its own loopback is all it sees.
        ("PrivateNetwork", "yes"),
        # No MemoryDenyWriteExecute: torch's convolutions on a CPU (oneDNN) and the GPU driver
        # make machine code while they run.
        ("MemoryMax", "85%"),
        ("TasksMax", "4096"),
        # A training that takes too much memory is one failed job, not the end of the worker.
        ("OOMPolicy", "continue"),
        ("OOMScoreAdjust", "500"),
        *_devices(gpu=gpu),
        *ONLY_THIS_MACHINE,
    )
    return _service("unetops: worker and predictor", own)


def _devices(*, gpu: bool) -> Section:
    if not gpu:
        return (("PrivateDevices", "yes"),)
    names = ("char-nvidia", "char-nvidia-uvm", "char-nvidia-frontend", "char-nvidia-caps")
    return (("DevicePolicy", "closed"), *((("DeviceAllow", f"{name} rw")) for name in names))


def recover_unit() -> str:
    """The unit that finishes or takes back, after a power cut, a release that was under way."""
    sections = {
        "Unit": (
            ("Description", "unetops: finish or take back a release that was cut off"),
            ("RequiresMountsFor", MOUNT),
            ("ConditionPathExists", "/var/lib/unetops/pending.json"),
            ("After", " ".join(UNITS)),
        ),
        "Service": (("Type", "oneshot"), ("ExecStart", f"{HOST} recover")),
        "Install": (("WantedBy", "multi-user.target"),),
    }
    return _text(sections)


def idle_units(minutes: int) -> dict[str, str]:
    """Timer and service that power the machine off when no job ran for so long.

    A droplet that is powered off still bills: its memory, cores and GPU stay reserved. It is the
    engineer's sign to destroy it (`pulumi destroy --exclude-protected` keeps the data).
    """
    service = {
        "Unit": (("Description", "unetops: power off when no job runs"),),
        "Service": (("Type", "oneshot"), ("ExecStart", f"{HOST} idle --minutes {minutes}")),
    }
    timer = {
        "Unit": (("Description", "unetops: look every minute whether a job runs"),),
        "Timer": (("OnBootSec", "5min"), ("OnUnitActiveSec", "1min"), ("AccuracySec", "10s")),
        "Install": (("WantedBy", "timers.target"),),
    }
    return {"unetops-idle.service": _text(service), "unetops-idle.timer": _text(timer)}


def _service(description: str, own: Section) -> str:
    sections = {
        "Unit": (("Description", description), *UNIT),
        "Service": (*SERVICE, *own, *HARDENING),
        "Install": (("WantedBy", "multi-user.target"),),
    }
    return _text(sections)


def _text(sections: Mapping[str, Section]) -> str:
    blocks = (
        "\n".join([f"[{name}]", *(f"{key}={value}" for key, value in lines)])
        for name, lines in sections.items()
    )
    return "\n\n".join(blocks) + "\n"
