"""Device profiles: the catalogue, how one is made by measuring or imported, and how one is checked."""
