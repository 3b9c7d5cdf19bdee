"""What one trainer trains: a whole run, a fold, or a trial of a search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset_rules.artifacts.dataset import Sample
from unet.planning.budget import Budget
from unet.planning.fingerprint import Fingerprint
from unet.planning.plan import Plan, make_plan
from unet.planning.search_space import Changes, apply_changes
from unet.training.transfer import PretrainedModel

LocatedSample = tuple[Path, Sample]  # a sample and its dataset's folder


@dataclass(frozen=True)
class Assignment:
    """Samples, initial model and options of one training; the defaults are a single training's.

    Attributes:
        samples: to train on and held out; from the datasets' splits by default.
        start: the model whose weights initialise the network.
        event_fields: added to every event, for example the number of the fold.
        changes: what the search changes in the plan.
        selects_best: choose the best weights and the thresholds on the held-out samples. Otherwise
            the last weights are kept, and scores of the held-out samples are unbiased.
    """

    samples: tuple[Sequence[LocatedSample], Sequence[LocatedSample]] | None = None
    start: PretrainedModel | None = None
    event_fields: Mapping[str, int] = field(default_factory=dict)
    changes: Changes = field(default_factory=dict)
    selects_best: bool = True

    def make_plan(
        self,
        facts: Fingerprint,
        budget: Budget | None = None,
        *,
        patches: int | None = None,
        seed: int = 0,
    ) -> Plan:
        """The plan for a budget; the initial model's plan determines scale and network."""
        plan = make_plan(facts, budget, patches=patches, seed=seed)
        return apply_changes(self.start.adapt_plan(plan) if self.start else plan, self.changes)
