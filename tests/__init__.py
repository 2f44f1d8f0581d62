"""The tests: specs, contracts, compatibility, units and the page."""
