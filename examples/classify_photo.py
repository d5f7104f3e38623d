"""Classify photos: python examples/classify_photo.py MODEL PHOTO..."""

import sys

import edgegraft


def main(model_file: str, *photos: str) -> None:
    model = edgegraft.load(model_file)
    for photo in photos:
        prediction = model.classify(photo)
        print(f"{photo}: {prediction.label} {prediction.probability:.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
