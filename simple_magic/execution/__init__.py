"""Sessions, units and the live execution manager."""
