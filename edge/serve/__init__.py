"""The model over HTTP: the verb `serve`."""
