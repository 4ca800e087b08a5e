"""``sciffusion recipes``: the families of models that can be trained, what each is for and what it costs."""

import argparse
import json

HELP = "list the families of models: what each is for, and what it costs"
EXAMPLE = "sciffusion recipes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``recipes``."""
    parser.add_argument("name", nargs="?", help="print the settings of one recipe")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the list, or one recipe."""
    import yaml

    from sciffusion import recipes

    if args.name:
        print(yaml.safe_dump(recipes.about(args.name) | recipes.load(args.name), sort_keys=False), end="")
        return 0
    found = {name: recipes.about(name) for name in recipes.names()}
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    for name, about in found.items():
        cost = about["cost"]
        print(f"{name:<14} {about['description']}")
        print(f"{'':<14} for:  {about['suits']}")
        print(f"{'':<14} cost: {cost['calls']} network calls a member, training {cost['training']:g} x that of edm")
    print("\ntrain one with `sciffusion train experiment.yaml --recipe NAME`")
    return 0
