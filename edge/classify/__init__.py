"""Photos to answers: sources, workers, output formats, the verb `classify`."""
