"""From a trained Keras model to the bytes of a `.tflite` file."""
