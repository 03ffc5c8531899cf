"""Device profiles that come with the package."""
