"""`textgym recipe`: several runs that go on with each other, as one command."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from textgym.cli.command import Command
from textgym_agents.cli.arguments import add_engine, engine_of


def _configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("recipe", nargs="?", help="a recipe by name, or a YAML file; without one all are listed")
    add("--model", help="tiny, a folder, a run, or a hub id")
    add_engine(parser)
    add("--out", type=Path, metavar="FOLDER",
        help="where all of it goes (default: runs/RECIPE); a second call goes on")  # fmt: skip
    add("--seed", type=int, default=0, help="seed of every stage (default: 0)")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides",
        help="set any field of the recipe, e.g. measure.limit=50")  # fmt: skip


def _run(args: argparse.Namespace) -> int:
    from textgym_agents.recipes.config import load_recipe, recipe_names
    from textgym_agents.recipes.report import table_rows, write_report
    from textgym_agents.recipes.run import RecipeError, RecipeRun, Settings

    console = Console()
    if args.recipe is None:
        for name in recipe_names():
            console.print(f"{name}: {load_recipe(name).title}", highlight=False)
        return 0
    recipe = load_recipe(args.recipe, model=args.model, overrides=args.overrides)
    engine_of(args)  # refused here rather than by the first stage
    engine = [] if args.engine is None else ["--engine", args.engine]
    engine += [part for url in args.urls or () for part in ("--url", url)]
    path = args.out or Path("runs") / Path(args.recipe).stem
    console.print(f"recipe in {path}", highlight=False)
    work = RecipeRun(recipe, path, Settings(args.seed, engine), tell=console.print)
    failure = None
    try:
        work.run()
    except RecipeError as error:
        failure = error
    measured = work.progress["measured"]
    if measured:
        write_report(recipe, measured, work.path)
        head, *rows = table_rows(recipe, measured)
        table = Table(*head, title=recipe.title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if failure is not None:
        raise failure
    return 0


recipe = Command("run a published recipe, stage after stage", _configure, _run)
