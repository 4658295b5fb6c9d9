"""Small apps of each kind, with the same routes as tests/probe_app.py."""
