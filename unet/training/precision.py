"""The training precision: expected from the processor's features, checked by timed steps.

bfloat16 takes a third of the time where a processor multiplies it in hardware, and several times
the time where it does not. Timings on a busy machine are unreliable, so the features decide
unless a measurement clearly contradicts them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from unet.network.timing import Timings
from unet.planning.budget import Device, Precision
from unet.planning.lr_schedule import Switch
from unet.planning.plan import Plan

PRECISIONS: tuple[Precision, Precision] = ("bfloat16", "float32")
BFLOAT16_FEATURES = ("amx_bf16", "avx512_bf16")  # with AVX-512 alone or less, it is emulated
X86_FEATURE = "sse2"  # every x86-64 has it: shows that the features are known
CUDA_BFLOAT16 = (8, 0)  # compute capability from which a GPU has bfloat16
CLEAR_SPEEDUP = 1.15  # ratio of best steps from which a difference is clear
MIN_ROUNDS = 3  # of interleaved steps; enough if they agree with the expectation
MAX_ROUNDS = 7  # this many, without exception, overrule the expectation
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Decision:
    """A precision and the measurement behind it.

    Attributes:
        precision: to train in.
        gain: best step of the other / best step of this one; below 1 the other was faster.
        is_clear: the measurement is clear enough to change a precision in use.
        reason: in words.
    """

    precision: Precision
    gain: float
    is_clear: bool
    reason: str

    @property
    def is_doubtful(self) -> bool:
        """True if the measurement contradicts it, but not clearly enough."""
        return self.gain < 1


def expected_precision(features: Iterable[str]) -> tuple[Precision | None, str]:
    """The faster precision on a processor with these features, and the reason.

    None if unknown: only x86 processors have been measured.
    """
    known = set(features)
    found = [feature for feature in BFLOAT16_FEATURES if feature in known]
    if found:
        return "bfloat16", f"the processor multiplies bfloat16 ({found[0]})"
    if X86_FEATURE in known:
        return "float32", f"the processor has none of {', '.join(BFLOAT16_FEATURES)}"
    return None, "the processor's features are not known"


def expected_for_device(device: Device) -> tuple[Precision | None, str]:
    """The expected precision for this machine's processor or GPU, and the reason."""
    if device == "cpu":
        return expected_precision(processor_features())
    major, minor = torch.cuda.get_device_capability()
    precision: Precision = "bfloat16" if (major, minor) >= CUDA_BFLOAT16 else "float32"
    return precision, f"the GPU is of compute capability {major}.{minor}"


def processor_features(path: Path = CPU_INFO) -> frozenset[str]:
    """Flags of the first processor; empty if the system does not report them."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    flags = (line.partition(":")[2] for line in lines if line.startswith("flags"))
    return frozenset(next(flags, "").split())


def decide_precision(
    timings: Timings[Precision], expected: Precision | None, *, explanation: str
) -> Decision:
    """Choose the precision from features and timed steps.

    Args:
        timings: seconds per step, in interleaved rounds of all precisions.
        expected: by the features; None if unknown.
        explanation: reason for the expectation.
    """
    chosen = max(timings, key=lambda name: (_wins(timings, name), -min(timings[name])))
    if expected is not None and expected in timings and not _overrules(timings, chosen):
        chosen = expected
    others = [min(seconds) for name, seconds in timings.items() if name != chosen]
    gain = min(others, default=min(timings[chosen])) / min(timings[chosen])
    rounds = len(timings[chosen])
    text = f"{explanation}; in its best step of {rounds}, taken in turn, {gain:.2f} times as fast"
    agrees = gain >= CLEAR_SPEEDUP and 2 * _wins(timings, chosen) > rounds >= MIN_ROUNDS
    is_clear = agrees if chosen == expected else _overrules(timings, chosen)
    return Decision(chosen, gain, is_clear, text)


def is_settled(timings: Timings[Precision], expected: Precision | None) -> bool:
    """True if further rounds cannot change the decision or are not worth their time."""
    rounds = min(map(len, timings.values()))
    if rounds < MIN_ROUNDS:
        return False
    decision = decide_precision(timings, expected, explanation="")
    if expected in timings:
        is_as_expected = decision.precision == expected and not decision.is_doubtful
        return is_as_expected or rounds >= MAX_ROUNDS
    is_agreed = not decision.is_doubtful and rounds >= MAX_ROUNDS
    return len(timings) == 1 or is_agreed or rounds >= 2 * MAX_ROUNDS


def _overrules(timings: Timings[Precision], name: Precision) -> bool:
    """True if it was clearly faster in each of many rounds."""
    others = [seconds for other, seconds in timings.items() if other != name]
    best = min((min(seconds) for seconds in others), default=0.0)
    rounds = len(timings[name])
    return (
        rounds >= MAX_ROUNDS
        and _wins(timings, name) == rounds
        and best >= CLEAR_SPEEDUP * min(timings[name])
    )  # fmt: skip


def _wins(timings: Timings[Precision], name: Precision) -> int:
    """Number of rounds in which it was faster than all others."""
    others = [seconds for other, seconds in timings.items() if other != name]
    return sum(
        all(mine < other for other in rest)
        for mine, *rest in zip(timings[name], *others, strict=True)
    )


def switch_precision(plan: Plan, step: int, precision: Precision, *, reason: str) -> Plan:
    """The plan with another precision from `step` on."""
    switches = (*plan.switches, Switch(step=step, precision=precision))
    reasons = plan.reasons | {"switches": f"{precision} from step {step}: {reason}"}
    return plan.model_copy(update={"switches": switches, "reasons": reasons})
