//! A result as JSON (the command line's contract).
