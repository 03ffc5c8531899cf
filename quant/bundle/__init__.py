"""The bundle that is deployed: its files, manifest, model card and `predict.py`."""
