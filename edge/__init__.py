"""Photos to labels with one self-describing `.tflite` file, on small devices.

Needs numpy, Pillow and a TFLite interpreter; nothing of TensorFlow. The folder
can be copied to a device alone and run there as ``python -m edge``.
"""
