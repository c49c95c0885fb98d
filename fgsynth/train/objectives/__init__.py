"""Methods of imbalanced learning that change how a network is trained, behind one contract."""
