"""One module per notebook on `Experiment` and `study`."""
