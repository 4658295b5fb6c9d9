"""The agent: metrics, health and live state of one server, answered out of band, never through a worker."""
