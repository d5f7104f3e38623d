"""TFLite variants of a trained model: converted, verified, described, compared.

The way through the room: `recipes` says which variants there are, `calibration`
picks the photos that set the integer ranges, `convert` makes the bytes (`ranges` sets
what needs no photos, `edges` the input), `verify`
reads them back (`layers` by layer) and asks `targets` who runs them, `metadata` writes
the card into them (`describe` for other programs), `export` does all that for a run
and scores each file (`scoring`). `compare` measures the files against each other
(`measured`), `decide` says which one to ship, `report`, `page` and `readme` show it.
`flatbuffer` is under all of them.

It does not know: how the model was trained, how a photo is decoded, or which
interpreter runs a file.
"""
