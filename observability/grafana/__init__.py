"""What Sightline brings to a Grafana by its HTTP API: dashboards and data sources in, edits back, annotations on.

It stands on grafana-client, whose HTTP library replaces urllib3: so it runs in an environment of its own
(requirements-grafana.txt), and only `client` imports it.
"""
