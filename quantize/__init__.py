"""TFLite variants of a trained model: converted, verified, described, compared.

The way through the room: `recipes` says which variants there are, `calibration`
picks the photos that set int8's ranges, `convert` makes the bytes, `verify` reads
them back, `metadata` writes the card into them, `export` does all that for a run
and scores each file, `compare` measures the files against each other, `report`
shows it.

It does not know: how the model was trained, how a photo is decoded, or which
interpreter runs a file.
"""
