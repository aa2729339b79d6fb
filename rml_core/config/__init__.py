"""The bottom layer: what every section's model is made of, and how a problem is said."""
