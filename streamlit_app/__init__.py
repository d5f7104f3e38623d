"""The page: drop photos, see what a model file answers. Sees `edge` and artifacts/."""
