"""What the suites share: networks, trainings, both sides of a step, timing, peaks, memory, tables, plots."""
