"""What needs NNI runs where it is installed: `make test-nni` makes it an environment of its own."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("nni") else ["test_nni_prune.py", "test_nni_tuner.py"]
