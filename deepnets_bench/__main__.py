"""`python -m deepnets_bench`, and `torchrun -m deepnets_bench`: the command line."""

from deepnets_bench.cli import main

if __name__ == "__main__":
    main()
