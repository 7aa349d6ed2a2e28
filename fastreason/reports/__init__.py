"""Pages of finished runs and studies."""
