"""Studies: grids of runs from one plan file, spread over workers, queried and checked as one."""
