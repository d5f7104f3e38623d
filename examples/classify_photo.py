"""Classify photos: python examples/classify_photo.py MODEL PHOTO..."""

import sys

import edgegraft


def main(model_file: str, *photos: str) -> None:
    model = edgegraft.load(model_file)
    for photo in photos:
        prediction = model.classify(photo)
        print(f"{photo}: {prediction.label} {prediction.probability:.1%}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except edgegraft.EdgegraftError as error:
        sys.exit(f"{error}")
