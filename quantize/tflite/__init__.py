"""The `.tflite` format: read, described, checked against its targets."""
