"""What `dashboards/generate.py` makes the dashboards of: one file each, and what they share."""
