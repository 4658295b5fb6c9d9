"""From an alert to a better setting, proven or undone: signals, decision, action, evaluation."""
