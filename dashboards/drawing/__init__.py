"""Pictures of the dashboards: what their queries are answered, recorded, and drawn with Grafana's own components."""
