"""Dashboards as code: builders here, and the JSON that they write beside them."""
