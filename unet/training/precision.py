"""Which precision to train in: what the processor's features promise, and what steps then took.

bfloat16 takes a third of the time where a processor multiplies it in hardware, and several times
the time where it does not. Steps that are timed on a busy machine tell neither for sure, so the
features decide, and a measurement overrules them only if it is clear.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from unet.network.timing import Took
from unet.planning.budget import Device, Precision
from unet.planning.lr_schedule import Switch
from unet.planning.plan import Plan

PRECISIONS: tuple[Precision, Precision] = ("bfloat16", "float32")
BFLOAT16_FEATURES = ("amx_bf16", "avx512_bf16")  # with AVX-512 alone or less, it is emulated
X86_FEATURE = "sse2"  # every x86-64 has it: the processor told its features, and how
CUDA_BFLOAT16 = (8, 0)  # compute capability from which a GPU has bfloat16
CLEAR = 1.15  # times as fast in its best step: less is no clear difference
ROUNDS = 3  # of steps in turn; enough if they agree with what was expected
MOST_ROUNDS = 7  # so many without exception overrule what was expected
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Decision:
    """A precision and how the measurement speaks for it.

    Attributes:
        precision: to train in.
        gain: best step of the other / best step of this one; below 1 the other one was faster.
        is_clear: a measurement like this would overrule a precision that is in use.
        reason: in words.
    """

    precision: Precision
    gain: float
    is_clear: bool
    reason: str

    @property
    def is_doubtful(self) -> bool:
        """The measurement spoke against it, but not clearly enough."""
        return self.gain < 1


def expected_precision(features: Iterable[str]) -> tuple[Precision | None, str]:
    """The precision that a processor with these features trains faster in, and the reason.

    None where they tell nothing: of processors other than x86 we have measured none.
    """
    known = set(features)
    found = [feature for feature in BFLOAT16_FEATURES if feature in known]
    if found:
        return "bfloat16", f"the processor multiplies bfloat16 ({found[0]})"
    if X86_FEATURE in known:
        return "float32", f"the processor has none of {', '.join(BFLOAT16_FEATURES)}"
    return None, "the processor's features are not known"


def expected_on(device: Device) -> tuple[Precision | None, str]:
    """The precision to expect of this machine's processor or GPU, and the reason."""
    if device == "cpu":
        return expected_precision(processor_features())
    major, minor = torch.cuda.get_device_capability()
    precision: Precision = "bfloat16" if (major, minor) >= CUDA_BFLOAT16 else "float32"
    return precision, f"the GPU is of compute capability {major}.{minor}"


def processor_features(path: Path = CPU_INFO) -> frozenset[str]:
    """Flags of the first processor; none where the system does not tell them."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    flags = (line.partition(":")[2] for line in lines if line.startswith("flags"))
    return frozenset(next(flags, "").split())


def decided(took: Took[Precision], expected: Precision | None, *, because: str) -> Decision:
    """The precision that features and timed steps together speak for.

    Args:
        took: seconds of steps, in rounds of all precisions in turn.
        expected: by the features; None where they tell nothing.
        because: why that is expected.
    """
    chosen = max(took, key=lambda name: (_wins(took, name), -min(took[name])))
    if expected is not None and expected in took and not _overrules(took, chosen):
        chosen = expected
    others = [min(seconds) for name, seconds in took.items() if name != chosen]
    gain = min(others, default=min(took[chosen])) / min(took[chosen])
    rounds = len(took[chosen])
    text = f"{because}; in its best step of {rounds}, taken in turn, {gain:.2f} times as fast"
    agrees = gain >= CLEAR and 2 * _wins(took, chosen) > rounds >= ROUNDS
    is_clear = agrees if chosen == expected else _overrules(took, chosen)
    return Decision(chosen, gain, is_clear, text)


def is_settled(took: Took[Precision], expected: Precision | None) -> bool:
    """True if further rounds could not change the decision, or are not worth their time."""
    rounds = min(map(len, took.values()))
    if rounds < ROUNDS:
        return False
    decision = decided(took, expected, because="")
    if expected in took:
        is_as_expected = decision.precision == expected and not decision.is_doubtful
        return is_as_expected or rounds >= MOST_ROUNDS
    is_agreed = not decision.is_doubtful and rounds >= MOST_ROUNDS
    return len(took) == 1 or is_agreed or rounds >= 2 * MOST_ROUNDS


def _overrules(took: Took[Precision], name: Precision) -> bool:
    """It was clearly faster, in each of many rounds."""
    others = [seconds for other, seconds in took.items() if other != name]
    best = min((min(seconds) for seconds in others), default=0.0)
    rounds = len(took[name])
    return (
        rounds >= MOST_ROUNDS
        and _wins(took, name) == rounds
        and best >= CLEAR * min(took[name])
    )  # fmt: skip


def _wins(took: Took[Precision], name: Precision) -> int:
    """Rounds in which none of the others was as fast."""
    others = [seconds for other, seconds in took.items() if other != name]
    return sum(
        all(mine < other for other in rest) for mine, *rest in zip(took[name], *others, strict=True)
    )


def switched(plan: Plan, step: int, precision: Precision, *, reason: str) -> Plan:
    """The plan that goes on in another precision from `step` on, written into it."""
    switches = (*plan.switches, Switch(step=step, precision=precision))
    reasons = plan.reasons | {"switches": f"{precision} from step {step}: {reason}"}
    return plan.model_copy(update={"switches": switches, "reasons": reasons})
