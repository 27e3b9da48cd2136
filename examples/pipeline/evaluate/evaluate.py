"""Says how good the predicted prices are."""

import argparse
import csv
import json
import math
import os


def evaluate(scores, tolerance):
    """Mean absolute error, root of the mean squared error, and the part of houses within the tolerance."""
    errors = [row["predicted"] - row["actual"] for row in scores]
    close = [row for row in scores if abs(row["predicted"] - row["actual"]) <= tolerance * row["actual"]]
    return {
        "houses": len(scores),
        "mean_absolute_error": sum(map(abs, errors)) / len(errors),
        "root_mean_squared_error": math.sqrt(sum(error**2 for error in errors) / len(errors)),
        "within_tolerance": len(close) / len(scores),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scores", required=True, help="folder with the predicted prices")
    parser.add_argument("--tolerance", type=float, default=0.1, help="part of the price that a prediction may be off")
    parser.add_argument("--report", required=True, help="folder for the report")
    args = parser.parse_args()

    with open(os.path.join(args.scores, "scores.csv"), newline="", encoding="utf-8") as file:
        scores = [{name: float(text) for name, text in row.items()} for row in csv.DictReader(file)]
    report = evaluate(scores, args.tolerance)
    for place in (args.report, "outputs"):
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, "report.json"), "w", encoding="utf-8") as file:
            json.dump(report, file, indent=2)
    print(f"{report['within_tolerance']:.0%} of {report['houses']} prices are within {args.tolerance:.0%}")


if __name__ == "__main__":
    main()
