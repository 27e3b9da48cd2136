"""Scores iris flowers with a nearest-centroid model: no dependency, quick to install."""

import json
import math
import os

CENTROIDS = {
    "setosa": (5.006, 3.428, 1.462, 0.246),
    "versicolor": (5.936, 2.770, 4.260, 1.326),
    "virginica": (6.588, 2.974, 5.552, 2.026),
}
model = None


def init():
    """Called once, when the service starts."""
    global model
    path = os.path.join(os.environ.get("AZUREML_MODEL_DIR") or ".", "centroids.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            model = json.load(file)
    else:
        model = CENTROIDS


def run(raw_data):
    """Called for each request with its body."""
    flowers = json.loads(raw_data)["data"]
    predictions = []
    for flower in flowers:
        distances = {name: math.dist(flower, centre) for name, centre in model.items()}
        nearest = min(distances, key=distances.get)
        predictions.append(nearest)
    return {"predictions": predictions}
