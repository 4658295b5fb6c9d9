"""The dashboards, held against what they ask: a live stack, Grafana's types, and the grammars of its languages."""
