"""What one session trains of a run: the whole of it, a fold, or a trial of the search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset_rules.artifacts.dataset import Sample
from unet.planning.budget import Budget
from unet.planning.fingerprint import Fingerprint
from unet.planning.plan import Plan, make_plan
from unet.planning.search_space import Changes, apply_changes
from unet.training.transfer import Start

Located = tuple[Path, Sample]  # a sample and the dataset it lies in


@dataclass(frozen=True)
class Part:
    """Samples, start and marks of one session; the defaults are a plain training's.

    Attributes:
        samples: to train on and held out; by the splits of the datasets where absent.
        start: the model whose weights the network begins with.
        marks: what each event says beside its own, such as the number of the fold.
        changes: what the search changed in the plan.
        chooses: keep the best weights by the held-out samples, and choose thresholds on them.
            Else the last weights are kept, and no score of the held-out samples is flattered.
    """

    samples: tuple[Sequence[Located], Sequence[Located]] | None = None
    start: Start | None = None
    marks: Mapping[str, int] = field(default_factory=dict)
    changes: Changes = field(default_factory=dict)
    chooses: bool = True

    def make_plan(
        self,
        facts: Fingerprint,
        budget: Budget | None = None,
        *,
        patches: int | None = None,
        seed: int = 0,
    ) -> Plan:
        """The plan for a budget; that of the start decides scale and network."""
        plan = make_plan(facts, budget, patches=patches, seed=seed)
        return apply_changes(self.start.adapted(plan) if self.start else plan, self.changes)
