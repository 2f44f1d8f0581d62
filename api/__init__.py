"""Presentation layer: routes, wire formats and the map from errors to HTTP."""
