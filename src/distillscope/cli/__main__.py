"""``python -m distillscope.cli``."""

from distillscope.cli import main

if __name__ == "__main__":
    main()
