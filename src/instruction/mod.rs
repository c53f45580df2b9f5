//! Instruction text to a typed instruction.
