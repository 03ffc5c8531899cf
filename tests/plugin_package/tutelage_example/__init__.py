"""An example of a package that adds to Tutelage from outside: one module for each thing that it adds."""
