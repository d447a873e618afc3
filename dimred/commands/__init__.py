"""The subcommands of `dimred`. Each file is imported when its command is called."""
