//! One small program for each thing a user starts with.
