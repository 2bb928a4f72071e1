"""The command line: one module per noun; rendering, prompts and exit codes. Data goes to stdout, talk to stderr."""
