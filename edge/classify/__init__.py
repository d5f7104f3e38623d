"""Photos to answers: sources, workers, output, the verb `classify`."""
