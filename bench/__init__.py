"""What Sightline costs, measured on real servers, beside what the usual libraries cost."""
