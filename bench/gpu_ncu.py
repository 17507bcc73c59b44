"""Nsight Compute on the four fused kernels: the command, and its CSV read.

issue fraction    warp instructions executed / (multiprocessors x 4 x cycles elapsed): how much of the issue-slot bound
                  a kernel reaches, its launch and tail included
bank conflicts    extra shared-memory wavefronts over all shared-memory wavefronts
"""

import csv
import io
import re

KERNELS = "regex:^(shift|fourier)_(forward|adjoint)$"
METRICS = (
    "gpu__time_duration.sum",
    "smsp__inst_executed.sum",
    "smsp__cycles_elapsed.avg",
    "smsp__cycles_elapsed.avg.per_second",
    "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "launch__registers_per_thread",
)
# What ncu says where it may not or cannot read counters; these are reasons to skip, not failures.
UNABLE = (
    "ERR_NVGPUCTRPERM",
    "Failed to initialize the profiler",
    "LibraryNotLoaded",
    "not supported",
    "Failed to access the following",
    "No kernels were profiled",
)


def command(ncu, metrics=METRICS):
    """ncu and its arguments; the clocks are left as they are, because a bench is not the only user of a card."""
    options = "--csv --page raw --print-units base --clock-control none --target-processes all"
    return [ncu, *options.split(), "--kernel-name", KERNELS, "--metrics", ",".join(metrics)]


def unknown_metrics(text):
    """Metrics that this ncu or this chip does not know, as far as it said so."""
    return [m for m in METRICS if re.search(rf"(?i)(failed to find|not found|unknown|invalid).*{re.escape(m)}", text)]


def unable(text):
    """Why ncu could not measure, or None."""
    lines = [line.strip() for line in text.splitlines() if any(reason in line for reason in UNABLE)]
    return lines[0][:300] if lines else None


def parse(text, multiprocessors):
    """[{kernel, metrics, issue_fraction, ...}], one per launch; [] where there is no table."""
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if first is None:
        return []

    rows = csv.DictReader(io.StringIO("\n".join(line for line in lines[first:] if line.startswith('"'))))
    launches = [row for row in rows if (row.get("ID") or "").strip()]  # the row of units has none
    return [_launch(row, multiprocessors) for row in launches]


def _launch(row, multiprocessors):
    name = re.split(r"[<(]", row["Kernel Name"])[0].split("::")[-1]
    kernel = {"kernel": name} | {metric: _number(row.get(metric)) for metric in METRICS}

    instructions, cycles = kernel["smsp__inst_executed.sum"], kernel["smsp__cycles_elapsed.avg"]
    if instructions and cycles and multiprocessors:
        kernel["issue_fraction"] = instructions / (4 * multiprocessors * cycles)

    wavefronts = kernel["l1tex__data_pipe_lsu_wavefronts_mem_shared.sum"]
    conflicts = [kernel[f"l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_{op}.sum"] for op in ("ld", "st")]
    if wavefronts and None not in conflicts:
        kernel["bank_conflicts"] = sum(conflicts) / wavefronts
    return kernel


def _number(text):
    """The number in a cell, or None where there is none."""
    try:
        return float(text.replace(",", ""))
    except (ValueError, AttributeError):
        return None
