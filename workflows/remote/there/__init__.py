"""What runs on the other machine before the program itself is there: standard library only, imports nothing else."""
