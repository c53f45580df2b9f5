//! Two levels of configuration: what a person wrote, and what the program may use.
