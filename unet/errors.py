"""What a user of training and prediction can cause."""

from dataset_rules.ground.errors import UserError


class Stopped(Exception):  # noqa: N818 - no error: the training was asked to end and has saved
    """A training was asked to end before its end; the next call goes on from its checkpoint."""


class UnetError(UserError):
    """A dataset, plan, model or image that cannot be used as it is."""


class GroupError(UnetError):
    """One process of a group cannot go on while the others are in the midst of a step."""
