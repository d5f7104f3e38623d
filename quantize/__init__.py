"""TFLite files of a trained network: converted, verified, described, compared."""
