"""A comparison as text, tables, plots, HTML and a model card."""
