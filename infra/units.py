"""The systemd units of the machine as text, with the permissions of each service.

All units of the service run as one user that owns only the data folder on the volume.
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
DRAIN_S = 180  # time for a step to save a checkpoint and exit; a killed step resumes from the last

Section = Sequence[tuple[str, str]]

UNIT: Section = (
    ("After", "network.target nftables.service"),
    # Without the volume the data would go to the root disk and be lost with the droplet.
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
    # Only the main process is signalled; it stops its children in order, and systemd kills
    # whatever is left after the timeout.
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
    # A denied call is an error, not a kill: libraries try sched_setaffinity and continue without.
    ("SystemCallErrorNumber", "EPERM"),
)
# These need BPF on control groups, which a container may lack; nftables also denies the metadata
# address by user. The address is listed explicitly although `any` covers it.
ONLY_THIS_MACHINE: Section = (
    ("IPAddressDeny", f"any {METADATA}"),
    ("IPAddressAllow", "localhost"),
)
ONLY_THE_INTERNET: Section = (
    ("IPAddressDeny", f"{METADATA} link-local multicast {' '.join(PRIVATE)}"),
    ("IPAddressAllow", "localhost"),  # where the resolver listens
)


def web_unit() -> str:
    """The unit of the web process: 127.0.0.1:8000 and unix sockets, no writable code pages."""
    own: Section = (
        ("ExecStart", f"{RUN} web"),
        ("TimeoutStopSec", "30"),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET"),
        ("PrivateDevices", "yes"),
        # This process never loads torch, so nothing in it generates code at run time.
        ("MemoryDenyWriteExecute", "yes"),
        ("MemoryMax", "40%"),
        ("TasksMax", "256"),
        *ONLY_THIS_MACHINE,
    )
    return _service("unetops: web", own)


def fetcher_unit() -> str:
    """The unit that fetches sources by URL, the only one with internet access.

    The cloud's private networks and the metadata address stay closed to it, whatever a name
    resolves to.
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
    """The unit of worker and predictor: no network, and devices only on a GPU machine."""
    own: Section = (
        ("ExecStart", f"{RUN} worker --only jobs"),
        ("TimeoutStopSec", str(DRAIN_S)),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET"),
        # It communicates through files and unix sockets; it sees only its own loopback interface.
        ("PrivateNetwork", "yes"),
        # No MemoryDenyWriteExecute: torch's convolutions on a CPU (oneDNN) and the GPU driver
        # generate machine code at run time.
        ("MemoryMax", "85%"),
        ("TasksMax", "4096"),
        # A training that runs out of memory is one failed job and does not stop the worker.
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
    """The unit that, after a power cut, completes or rolls back an interrupted release."""
    sections = {
        "Unit": (
            ("Description", "unetops: complete or roll back an interrupted release"),
            ("RequiresMountsFor", MOUNT),
            ("ConditionPathExists", "/var/lib/unetops/pending.json"),
            ("After", " ".join(UNITS)),
        ),
        "Service": (("Type", "oneshot"), ("ExecStart", f"{HOST} recover")),
        "Install": (("WantedBy", "multi-user.target"),),
    }
    return _text(sections)


def idle_units(minutes: int) -> dict[str, str]:
    """Timer and service that power the machine off after so many minutes without jobs.

    A droplet that is powered off is still billed: its memory, cores and GPU stay reserved. It is
    the engineer's cue to destroy it (`pulumi destroy --exclude-protected` keeps the data).
    """
    service = {
        "Unit": (("Description", "unetops: power off when no job runs"),),
        "Service": (("Type", "oneshot"), ("ExecStart", f"{HOST} idle --minutes {minutes}")),
    }
    timer = {
        "Unit": (("Description", "unetops: check every minute whether a job runs"),),
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
