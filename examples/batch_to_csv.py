"""Classify a folder into a CSV: python examples/batch_to_csv.py MODEL FOLDER OUT.csv

Results come in the order of the photos. A photo that cannot be read gets a row with the
reason, and the others go on.
"""

import csv
import sys
from pathlib import Path

import edgegraft


def main(model_file: str, folder: str, out: str) -> None:
    model = edgegraft.load(model_file)
    photos = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    with open(out, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["photo", "label", "probability", "error"])
        for photo in photos:
            try:
                prediction = model.classify(photo)
            except edgegraft.EdgegraftError as error:
                writer.writerow([photo, "", "", error])
            else:
                probability = f"{prediction.probability:.4f}"
                writer.writerow([photo, prediction.label, probability, ""])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
