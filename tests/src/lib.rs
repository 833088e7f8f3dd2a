//! Tests with real processes, and the harness that kills them at every instruction.
