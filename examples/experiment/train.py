"""Learns to tell points of two rings apart with a small network: no dependency, quick to install.

Metrics go to Azure Machine Learning's run where azureml-core is installed (add it to
env/training/requirements.txt); without it they are only printed.
"""

import argparse
import json
import math
import os
import random

try:
    from azureml.core import Run

    run = Run.get_context()
except ImportError:
    run = None


def log(name, value):
    """Log a metric, where there is a run to log to."""
    if run is not None:
        run.log(name, value)


def rings(count, noise, seed):
    """Points of an inner ring (0) and of an outer one (1)."""
    rng = random.Random(seed)
    points = []
    for number in range(count):
        label = number % 2
        radius = 1.0 + label + rng.gauss(0, noise)
        angle = rng.uniform(0, 2 * math.pi)
        points.append((radius * math.cos(angle), radius * math.sin(angle), label))
    return points


def new_model(hidden, seed):
    """Weights of each hidden unit (x, y, bias), and those of the output with its bias last."""
    rng = random.Random(seed)
    return {
        "hidden": [[rng.uniform(-1, 1) for _ in range(3)] for _ in range(hidden)],
        "output": [rng.uniform(-1, 1) for _ in range(hidden + 1)],
    }


def predict(model, x, y):
    """The probability of the outer ring, and what the hidden units say."""
    units = [math.tanh(wx * x + wy * y + bias) for wx, wy, bias in model["hidden"]]
    total = model["output"][-1] + sum(model["output"][index] * unit for index, unit in enumerate(units))
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, total)))), units


def train_epoch(model, points, learning_rate):
    """One pass of stochastic gradient descent; the mean loss."""
    loss = 0.0
    for x, y, label in points:
        probability, units = predict(model, x, y)
        error = probability - label
        loss -= math.log(max(1e-12, probability if label else 1 - probability))
        for index, unit in enumerate(units):
            slope = error * model["output"][index] * (1 - unit**2)
            model["output"][index] -= learning_rate * error * unit
            for place, value in enumerate((x, y, 1.0)):
                model["hidden"][index][place] -= learning_rate * slope * value
        model["output"][-1] -= learning_rate * error
    return loss / len(points)


def accuracy(model, points):
    """The part of the points that is told right."""
    return sum((predict(model, x, y)[0] > 0.5) == bool(label) for x, y, label in points) / len(points)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--hidden", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    seen = rings(args.points, args.noise, args.seed)
    unseen = rings(args.points, args.noise, args.seed + 1)
    model = new_model(args.hidden, args.seed)
    if run is not None:
        run.tag("hidden", args.hidden)
    for epoch in range(args.epochs):
        loss = train_epoch(model, seen, args.learning_rate)
        right = accuracy(model, unseen)
        log("loss", loss)
        log("accuracy", right)
        print(f"epoch {epoch + 1}: loss {loss:.4f}, accuracy {right:.3f}")

    # What lies in ./outputs belongs to the run.
    os.makedirs("outputs", exist_ok=True)
    with open(os.path.join("outputs", "model.json"), "w", encoding="utf-8") as file:
        json.dump({"model": model, "accuracy": right}, file, indent=2)


if __name__ == "__main__":
    main()
