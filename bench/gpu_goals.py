"""The goals of the CUDA engine beside what `gpu.py` measured, and the tables it prints."""

EPOCH_MS = {"fourier": 70, "shift": 35}  # 256 frames of 256^3, forward and adjoint
MOST_GIB = 6
EPOCHS, MINUTE = 600, 60


def cases(results, size=None):
    """Every timed case of all parts."""
    found = [r for part in results["parts"].values() for r in part.get("results", []) if "epoch_ms" in r]
    return [r for r in found if size is None or r["size"] == size]


def least(results, transport, wanted, size=256, key="epoch_ms"):
    values = [
        r[key] for r in cases(results, size) if r["transport"] == transport and wanted(r) and r.get(key) is not None
    ]
    return min(values, default=None)


def pendel(r):
    return r["peer"] == "pendel" and r["variant"] in ("kernels", "cupy")


def kernels(r):
    return r["variant"] == "kernels"


def reconstruct(r):
    return r["variant"] == "reconstruct"


# What pendel's epoch is compared with: name, the factor that is a goal, which cases.
PEERS = (
    ("the best PyTorch", 3, lambda r: r["peer"] in ("best", "eager")),
    ("eager PyTorch", 12, lambda r: r["peer"] == "eager"),
    ("JAX", None, lambda r: r["peer"] == "jax"),
    ("pendel with cuFFT, unfused", None, lambda r: r["variant"] == "unfused"),
)


def issue_bound_ms(results, transport):
    """ms in which the multiprocessors could issue all instructions of the epoch's two marches, or None."""
    ncu = results["parts"].get("ncu", {})
    counted = {k["kernel"]: k["smsp__inst_executed.sum"] for k in ncu.get("kernels", [])}
    instructions = [counted.get(f"{transport}_{way}") for way in ("forward", "adjoint")]
    clock = (results["gpu"] or {}).get("clocks.max.sm", "").split(" ")[0]
    if None in instructions or not ncu.get("multiprocessors") or not clock.isdigit():
        return None
    scale = 256**4 / ncu["point_steps"]  # 256 frames of 256^3, ncu's case is a part of it
    return sum(instructions) * scale / (4 * ncu["multiprocessors"] * float(clock) * 1e3)


def epoch_goals(results):
    for transport, most in EPOCH_MS.items():
        ours = least(results, transport, pendel)
        name = f"epoch, 256 frames of 256^3, {transport} (ms)"
        yield name, f"<= {most}", ours, ours is not None and ours <= most


def peer_goals(results):
    for transport in EPOCH_MS:
        ours = least(results, transport, pendel)
        for name, factor, wanted in PEERS:
            theirs = least(results, transport, wanted)
            ratio = theirs / ours if ours and theirs else None
            met = None if factor is None else ratio is not None and ratio >= factor
            yield f"times faster than {name}, {transport}", f">= {factor}" if factor else "", ratio, met


def issue_goals(results):
    for kernel in results["parts"].get("ncu", {}).get("kernels", []):
        fraction = kernel.get("issue_fraction")
        yield f"{kernel['kernel']}, share of the issue-slot bound", ">= 0.6", fraction, (fraction or 0) >= 0.6
    for transport in EPOCH_MS:
        bound, ours = issue_bound_ms(results, transport), least(results, transport, pendel)
        share = bound / ours if bound and ours else None
        name = f"the whole epoch's share of it at the highest clock, {transport}"
        yield name, ">= 0.6", share, (share or 0) >= 0.6


def whole_goals(results):
    """A reconstruction of EPOCHS epochs."""
    for transport in EPOCH_MS:
        for name, wanted in (("reconstruct", reconstruct), ("the operator alone", pendel)):
            epoch = least(results, transport, wanted)
            whole = epoch and epoch * EPOCHS / 1e3
            yield f"{EPOCHS} epochs of {name}, {transport} (s)", f"< {MINUTE}", whole, (whole or MINUTE) < MINUTE


def memory_goals(results):
    measured = results["parts"].get("memory", {}).get("results", [])
    for transport in EPOCH_MS:
        taken = least(results, transport, kernels, key="device_MiB")
        gib = taken and taken / 1024
        name = f"device memory of that gradient, {transport} (GiB)"
        yield name, f"<= {MOST_GIB}", gib, (gib or 0) <= MOST_GIB

        rows = sorted((r for r in measured if r.get("memory") == transport), key=lambda r: r["nz"])
        growth = rows[-1]["bytes_per_voxel"] / rows[0]["bytes_per_voxel"] if len(rows) > 1 else None
        span = f"{rows[-1]['nz']} over {rows[0]['nz']} layers" if growth else "many over few layers"
        name = f"bytes per voxel beyond exit fields, {span}, {transport}"
        yield name, "<= 1.02", growth, (growth or 0) <= 1.02


GOALS = (epoch_goals, peer_goals, issue_goals, whole_goals, memory_goals)


def goals(results):
    """[{goal, wanted, measured, met}]; measured and met are None where nothing was measured, or not on a GPU."""
    found = []
    for group in GOALS:
        for goal, wanted, measured, met in group(results):
            valid = measured is not None and not results["dry_run"]
            row = {"goal": goal, "wanted": wanted, "measured": measured, "met": met}
            found.append(row if valid else row | {"measured": None, "met": None})
    return found


def table(results):
    """Lines to print: every case, then the goals."""
    yield f"commit {results['commit']}, {(results['gpu'] or {}).get('name', 'no GPU')}" + (
        "  (DRY RUN: these are no figures of a GPU)" if results["dry_run"] else ""
    )
    yield "size transport peer   variant       forward ms   epoch ms  rows"
    for r in sorted(cases(results), key=lambda r: (-r["size"], r["transport"], r["epoch_ms"])):
        forward = f"{r['forward_ms']:10.2f}" if r.get("forward_ms") is not None else 10 * " "
        yield (
            f"{r['size']:4d} {r['transport']:9s} {r['peer']:6s} {r['variant']:12s} {forward}"
            f" {r['epoch_ms']:10.2f} {r.get('rows_per_chunk', ''):>5}"
        )
    for name, part in results["parts"].items():
        for r in part.get("results", []):
            if "failed" in r:
                case = " ".join(str(r[k]) for k in ("variant", "transport", "size") if k in r)
                yield f"{name}: {case}: {r['failed']}"
    for goal in results["goals"]:
        measured = "not measured" if goal["measured"] is None else f"{goal['measured']:.3g}"
        met = {True: "met", False: "NOT MET", None: ""}[goal["met"]]
        yield f"{goal['goal']:62s} {goal['wanted']:>8s}  {measured:>12s}  {met}"
