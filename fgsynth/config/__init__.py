"""params.yaml as types, and the stages that it names."""
