"""User errors of training and prediction."""

from dataset_rules.ground.errors import UserError


class Stopped(Exception):  # noqa: N818 - not an error: the training was asked to stop and has saved
    """A training was asked to stop early; the next call resumes from its checkpoint."""


class UnetError(UserError):
    """A dataset, plan, model or image that cannot be used as is."""


class GroupError(UnetError):
    """One process of a group cannot continue while the others are in the middle of a step."""
