"""Methods of imbalanced learning that the papers compare with, behind the trainer's `Objective`."""
