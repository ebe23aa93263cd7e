// Placeholder until the executable is written.
