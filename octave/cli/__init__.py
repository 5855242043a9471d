"""The command line: one module per group of verbs, loaded only when its verb is used."""
