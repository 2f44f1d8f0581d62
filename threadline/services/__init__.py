"""Service layer: models, sessions, runs. Asks for ports; knows no database and no web framework."""
