"""Fits house prices with a linear regression by gradient descent: no dependency, quick to install."""

import argparse
import csv
import json
import os
import random
import statistics

TARGET = "price_keur"


def read_houses(path):
    """The rows of the CSV file, numbers as numbers."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: float(text) for name, text in row.items()} for row in csv.DictReader(file)]


def scale_of(houses, names):
    """Mean and deviation of each feature: gradient descent wants features of one size."""
    return {
        name: (statistics.fmean(house[name] for house in houses), statistics.pstdev(house[name] for house in houses))
        for name in names
    }


def fit(houses, scale, epochs, learning_rate):
    """Weights by feature, the constant under ``bias``, and the mean squared error after each epoch."""
    rows = [
        ({name: (house[name] - mean) / deviation for name, (mean, deviation) in scale.items()}, house[TARGET])
        for house in houses
    ]
    weights = dict.fromkeys(["bias", *scale], 0.0)
    losses = []
    for _epoch in range(epochs):
        gradient = dict.fromkeys(weights, 0.0)
        loss = 0.0
        for features, price in rows:
            predicted = weights["bias"] + sum(weights[name] * value for name, value in features.items())
            error = predicted - price
            loss += error**2
            gradient["bias"] += error
            for name, value in features.items():
                gradient[name] += error * value
        for name in weights:
            weights[name] -= learning_rate * 2 * gradient[name] / len(rows)
        losses.append(loss / len(rows))
    return weights, losses


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--houses", required=True, help="CSV file to learn from")
    parser.add_argument("--holdout", type=float, default=0.25, help="part of the houses that is kept back")
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", required=True, help="folder for the model")
    parser.add_argument("--unseen", required=True, help="CSV file for the houses kept back")
    args = parser.parse_args()

    houses = read_houses(args.houses)
    random.Random(args.seed).shuffle(houses)
    kept_back = round(len(houses) * args.holdout)
    unseen, seen = houses[:kept_back], houses[kept_back:]

    scale = scale_of(seen, [name for name in seen[0] if name != TARGET])
    weights, losses = fit(seen, scale, args.epochs, args.learning_rate)
    print(f"trained on {len(seen)} houses, {args.epochs} epochs: mean squared error {losses[-1]:.1f}")

    os.makedirs(args.model, exist_ok=True)
    with open(os.path.join(args.model, "model.json"), "w", encoding="utf-8") as file:
        json.dump({"target": TARGET, "scale": scale, "weights": weights}, file, indent=2)
    os.makedirs(os.path.dirname(args.unseen) or ".", exist_ok=True)
    with open(args.unseen, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(houses[0]))
        writer.writeheader()
        writer.writerows(unseen)
    # What lies in ./outputs belongs to the run itself.
    os.makedirs("outputs", exist_ok=True)
    with open(os.path.join("outputs", "losses.json"), "w", encoding="utf-8") as file:
        json.dump(losses, file)


if __name__ == "__main__":
    main()
