"""One module per package ecosystem; `base.py` says what each can do."""
