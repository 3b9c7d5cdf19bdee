"""What a user of training and prediction can cause."""

from dataset_rules.errors import UserError


class UnetError(UserError):
    """A dataset, plan, model or image that cannot be used as it is."""
