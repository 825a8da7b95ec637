"""What everything else shares: records and their store, files, processes, seeds, workloads. Imports no torch."""
