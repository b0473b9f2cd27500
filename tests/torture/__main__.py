"""``python -m torture``: every attack, the counts of what held, how to repeat each fault; exit code 1 where one did not."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from torture import Options, Record, cluster, commands, counts, disk, faults, fuzz, names, processes, table, try_all

ATTACKS = ("kills", "fuzz", "disk", "together", "names", "cluster")
CASES = {"kills": processes.kills, "disk": disk.cases, "together": processes.together, "names": names.cases,
         "cluster": cluster.cases}
LANES = (("kills", "together", "cluster"), ("fuzz", "disk", "names"))
"""Attacks of one lane follow one another; lanes run side by side, one per core."""


def options_of(arguments: list[str] | None = None) -> tuple[argparse.Namespace, Options]:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"some of {', '.join(ATTACKS)} [default: all]")
    parser.add_argument("--rounds", type=int, help="rounds of kills of `run`; the other commands have their share [60]")
    parser.add_argument("--inputs", type=int, help="damaged and hostile inputs over all readers [10000]")
    parser.add_argument("--short", action="store_true", help="6 rounds and 600 inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="begin no case after that; run it again to go on")
    parser.add_argument("--work", type=Path, default=Path("runs/torture"),
                        help="where it works; what was tried there is not tried again")
    parser.add_argument("--only", metavar="PART[/NUMBER]", help="one part, or one case of it, tried again")
    parser.add_argument("--markdown", type=Path, help="write the counts there")
    chosen = parser.parse_args(arguments)
    if unknown := [a for a in chosen.attacks if a not in ATTACKS]:
        parser.error(f"unknown attack {unknown[0]}; known: {', '.join(ATTACKS)}")
    until = float("inf") if chosen.minutes is None else time.monotonic() + 60 * chosen.minutes
    few = chosen.short
    return chosen, Options(chosen.work.resolve(), chosen.seed, chosen.rounds or (6 if few else 60), chosen.inputs
                           or (600 if few else 10_000),
                           until, chosen.only)


def main() -> int:
    chosen, options = options_of()
    began = time.monotonic()
    options.work.mkdir(parents=True, exist_ok=True)
    wanted = chosen.attacks or ATTACKS
    lanes = [[a for a in lane if a in wanted] for lane in LANES]
    commands.load_libraries()
    again = Path(f"{options.work}/again") if options.only else options.work / f"seed-{options.seed}"
    if options.only:
        for file in again.glob("*.jsonl"):
            file.unlink()
    pids = []
    for lane in filter(None, lanes):
        sys.stdout.flush()
        if not (pid := os.fork()):
            code = 1
            try:
                commands.end_with_parent()
                for attack in lane:
                    record = Record(again / f"{attack}.jsonl")
                    if attack == "fuzz":
                        fuzz.attack(options, record)
                    else:
                        try_all(CASES[attack](options), record, options)
                code = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        pids.append(pid)
    broken = [pid for pid in pids if os.waitpid(pid, 0)[1]]
    outcomes = [o for a in ATTACKS if a in wanted for o in Record(again / f"{a}.jsonl").outcomes.values()]
    what = processes.WHAT | disk.WHAT | names.WHAT | cluster.WHAT | (fuzz.words(options.work) if "fuzz" in wanted else {})
    print("\n" + table(outcomes, what))
    for group in faults(outcomes).values():
        first = group[0]
        print(f"\nFAULT x{len(group)} {first['id']} {first['title']}\n  {first['fault'][:600]}\n"
              f"  again: python -m torture --seed {options.seed} --only {first['id']}")
    if chosen.markdown:
        chosen.markdown.write_text(markdown(outcomes, what, time.monotonic() - began), encoding="utf-8")
    held, minutes = sum(h for h, _ in counts(outcomes).values()), (time.monotonic() - began) / 60
    print(f"\n{held:,} of {len(outcomes):,} hold, {minutes:.1f} minutes")
    return int(bool(broken or faults(outcomes)))


def markdown(outcomes: list[dict], what: dict[str, str], seconds: float) -> str:
    """The counts with date, commit, hardware and command, for results/."""
    from distillscope.provenance import hardware

    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    left = "\n".join(f"- {g[0]['id']}, x{len(g)}: {g[0]['title']}: {' '.join(g[0]['fault'].split())[:300]}"
                     for g in faults(outcomes).values())
    command = " ".join(sys.argv[1:])
    return (f"# Under attack, {date.today()}\n\n`python -m torture {command}` (`make torture`), commit {commit}, "
            f"{seconds / 60:.0f} minutes, "
            f"on {hardware()}, shared with other work.\n\n{table(outcomes, what)}\n\n"
            f"## What did not hold\n\n{left or 'Nothing.'}\n")


if __name__ == "__main__":
    sys.exit(main())
