"""`python -m medllm`."""

from medllm.cli import main

if __name__ == "__main__":
    main()
