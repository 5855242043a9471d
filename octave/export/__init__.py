"""What octave.toml and octave.lock say, in the words of other engines. Starts and resolves nothing.

No value of a secret leaves: every reference, and every value that looks like a secret, becomes a
variable of the environment, and a note says what has to be given.
"""
