"""The runtimes a model can be measured on: adapters, formats and converters."""
