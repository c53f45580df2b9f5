//! The TF tree at a time.
