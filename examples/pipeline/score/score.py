"""Predicts the price of every house in a CSV file."""

import argparse
import csv
import json
import os


def predict(model, house):
    """The price of one house, in thousands of euros."""
    price = model["weights"]["bias"]
    for name, (mean, deviation) in model["scale"].items():
        price += model["weights"][name] * (float(house[name]) - mean) / deviation
    return price


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="folder with the model")
    parser.add_argument("--houses", required=True, help="CSV file")
    parser.add_argument("--scores", required=True, help="folder for the predicted prices")
    args = parser.parse_args()

    with open(os.path.join(args.model, "model.json"), encoding="utf-8") as file:
        model = json.load(file)
    with open(args.houses, newline="", encoding="utf-8") as file:
        houses = list(csv.DictReader(file))

    scores = [
        {"actual": float(house[model["target"]]), "predicted": round(predict(model, house), 1)} for house in houses
    ]
    for place in (args.scores, "outputs"):
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, "scores.csv"), "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=["actual", "predicted"])
            writer.writeheader()
            writer.writerows(scores)
    print(f"scored {len(scores)} houses")


if __name__ == "__main__":
    main()
