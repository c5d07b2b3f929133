"""Who does the tasks: this process, or the processes of a Ray cluster."""
